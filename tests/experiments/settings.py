"""What an experiment is: everything that its numbers depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any


class InputError(ValueError):
    """An argument, a file or a folder that the experiment can't be run with. The message says which and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One experiment. The defaults are the paper's (section 3), as far as one device allows.

    Attributes:
        model: Folder of the pretrained model and its tokenizer.
        dataset: ``gsm8k``, ``openbookqa`` or ``columns`` (own rows with question, thinking and answer).
        train_file: JSONL rows to train on.
        test_file: JSONL rows to generate for.
        answers: For own rows what the answers are: ``number``, ``maths`` or ``text``.
        rows: At most so many training rows, the first ones; ``None`` for all.
        tags: ``text``, or ``tokens`` for one added token for each tag.
        system_message: Replaces the paper's prompt (C.1) of the tagged methods.
        sequence_len: Longer rows are left out and counted.
        batch_size: Sequences per optimizer step.
        micro_batch_size: Sequences per forward pass.
        learning_rate: Of every stage, unless `stage2_learning_rate` says otherwise.
        stage2_learning_rate: Of Stage 2 and of its control, SFT-Tag continued.
        stage2_epochs: Epochs of Stage 2 and its control as a multiple of the first stage's.
        warmup_epochs: Linear warmup.
        weight_decay: AdamW's.
        schedule: Hugging Face name of the schedule.
        pad_to_multiple_of: Sequence lengths of a batch are rounded up to it.
        max_new_tokens: Limit of a generated response.
        generation_batch: Prompts per batch in generation.
        diagnosis_rows: So many test rows are diagnosed after SFT-Tag; 0 for none.
    """

    model: str
    dataset: str
    train_file: str
    test_file: str
    answers: str | None = None
    rows: int | None = None
    tags: str = "text"
    system_message: str | None = None
    sequence_len: int = 1024
    batch_size: int = 32
    micro_batch_size: int = 32
    learning_rate: float = 5e-6
    stage2_learning_rate: float | None = None
    stage2_epochs: float = 1.0
    warmup_epochs: float = 0.5
    weight_decay: float = 0.1
    schedule: str = "cosine"
    pad_to_multiple_of: int = 64
    max_new_tokens: int = 320
    generation_batch: int = 256
    diagnosis_rows: int = 200

    def __post_init__(self) -> None:
        if self.micro_batch_size < 1 or self.batch_size % self.micro_batch_size:
            raise InputError(
                f"batch size {self.batch_size} isn't a multiple of {self.micro_batch_size}, the micro batch size"
            )

    def as_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    @property
    def training(self) -> dict[str, Any]:
        """What all stages have in common: arguments of `sftkey.training.fit.fit`."""
        names = ("batch_size", "micro_batch_size", "warmup_epochs", "weight_decay", "schedule", "pad_to_multiple_of")
        return {name: getattr(self, name) for name in names}

    @property
    def fingerprint(self) -> str:
        """Cells with the same fingerprint belong to the same experiment."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]
