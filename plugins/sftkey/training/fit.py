"""The reference loop: one stage of training on a list of examples, for experiments and notebooks.

It has the masks, the loss and the schedule of a stage, and nothing else: no recipe, no checkpoint, no completion marker.
On the same rows, seed and settings it takes the steps of ``axolotl train``. It needs torch, transformers and accelerate::

    model, tokenizer = load_pretrained("models/SmolLM2-135M-Instruct")
    for name in ("sft-tag", "key-tag"):
        method = METHODS[name]
        tokenizer = with_template(tokenizer, method)
        tokenize = RowTokenizer(GSM8K, ExampleTokenizer(tokenizer, method, GSM8K.untagged), sequence_len=1024)
        examples = [result for result in tokenize(rows) if not isinstance(result, str)]
        fit(model, tokenizer, examples, epochs=3, learning_rate=1e-4)
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)

from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.methods import Method
from sftkey.format.templates import END_OF_TURN, PLAIN, TAGGED, chat_template
from sftkey.training.collator import SegmentCollator
from sftkey.training.objectives.base import Objective
from sftkey.training.tokenization import TokenizedExample
from sftkey.training.trainer import SegmentLossTrainer


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a stage did.

    Attributes:
        steps: Optimizer steps.
        seconds: Wall time of the training loop.
        step_seconds: Wall time of each step.
        curve: The log: ``step``, ``loss``, ``loss_answer``, ... of each logged step.
    """

    steps: int
    seconds: float
    step_seconds: list[float]
    curve: list[dict[str, float]]


def fit(
    model: Any,
    tokenizer: Any,
    examples: Sequence[TokenizedExample],
    *,
    epochs: float,
    learning_rate: float,
    seed: int = 0,
    batch_size: int = 32,
    micro_batch_size: int | None = None,
    warmup_epochs: float = 0.5,
    weight_decay: float = 0.1,
    schedule: str = "cosine",
    pad_to_multiple_of: int = 64,
    max_steps: int = -1,
    logging_steps: int = 10,
    context_grad: bool = True,
    weights: torch.Tensor | None = None,
    objective: Objective | None = None,
    reference: Any = None,
) -> FitResult:
    """Train a model in place, with a fresh optimizer and schedule (Eq. 5). The defaults are the paper's (section 3).

    A GPU computes in bf16 under autocast, a CPU in fp32.

    Args:
        model: A causal language model with the weights to start from.
        tokenizer: Its tokenizer; pads the batches.
        examples: The training sequences; their labels say what is trained.
        epochs: Passes over them, or a part of one.
        learning_rate: Peak of the schedule.
        seed: Of the order of the examples, and of dropout where the model has any.
        batch_size: Sequences per optimizer step.
        micro_batch_size: Sequences per forward pass, a divisor of `batch_size`; default `batch_size`.
        warmup_epochs: Linear warmup; at most half of `epochs`.
        weight_decay: AdamW's.
        schedule: Hugging Face name of the schedule.
        pad_to_multiple_of: Sequence lengths of a batch are rounded up to it.
        max_steps: Stop after so many optimizer steps instead of `epochs`; the schedule ends there as well.
        logging_steps: Steps between two points of the loss curve.
        context_grad: False to train without the context gradient (`sftkey.training.context_grad`).
        weights: Weight of each `Segment` in the loss (`sftkey.training.weights.segment_weights`); `None` for the labels as
            they are.
        objective: What is minimised instead of the weighted mean of the cross-entropy.
        reference: The model that the objective compares with, where it takes one.

    Raises:
        ValueError: `batch_size` is no multiple of `micro_batch_size`.
        UserError: The model can't be trained without the context gradient.
    """
    micro_batch_size = micro_batch_size or batch_size
    if batch_size % micro_batch_size:
        raise ValueError(f"batch_size {batch_size} is no multiple of micro_batch_size {micro_batch_size}")
    on_gpu = device().type == "cuda"
    steps_per_epoch = math.ceil(len(examples) / batch_size)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=micro_batch_size,
            gradient_accumulation_steps=batch_size // micro_batch_size,
            num_train_epochs=epochs,
            max_steps=max_steps,
            learning_rate=learning_rate,
            lr_scheduler_type=schedule,
            warmup_steps=round(min(warmup_epochs, epochs / 2) * steps_per_epoch),
            weight_decay=weight_decay,
            optim="adamw_torch_fused" if on_gpu else "adamw_torch",
            bf16=on_gpu,
            use_cpu=not on_gpu,
            logging_steps=logging_steps,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=seed,
        )
        # One GPU, however many there are: with more, transformers makes each batch larger by their number.
        args._n_gpu = min(args.n_gpu, 1)
        trainer = SegmentLossTrainer(
            model=model,
            args=args,
            train_dataset=_rows(model, examples, objective, reference),
            data_collator=SegmentCollator(
                DataCollatorForSeq2Seq(tokenizer, padding=True, pad_to_multiple_of=pad_to_multiple_of)
            ),
            processing_class=tokenizer,
        )
        trainer.configure_segment_loss(weights=weights, context_grad=context_grad, objective=objective)
        trainer.remove_callback(PrinterCallback)
        clock = _Clock()
        trainer.add_callback(clock)
        try:
            trainer.train()
        finally:
            # Accelerate leaves its autocast around `forward`, in the model itself: the next stage must not get another
            # around it, and a copy of the model must not call this one.
            for name in ("forward", "_original_forward"):
                model.__dict__.pop(name, None)
    return FitResult(
        steps=trainer.state.global_step,
        seconds=clock.times[-1] - clock.times[0],
        step_seconds=[later - earlier for earlier, later in pairwise(clock.times)],
        curve=[entry for entry in trainer.state.log_history if "loss" in entry],
    )


def _rows(model: Any, examples: Sequence[TokenizedExample], objective: Objective | None, reference: Any) -> Any:
    """The rows, with the columns that an objective reads."""
    rows = [{**row._asdict(), "attention_mask": [1] * len(row.input_ids)} for row in examples]
    if objective is None or not objective.columns:
        return rows
    from datasets import Dataset

    from sftkey.training.prepare import FEATURES
    from sftkey.training.reference import Reference, add_columns

    models = Reference({"start": model, "reference": reference}.__getitem__, str, "start", "reference")
    return list(add_columns(Dataset.from_list(rows, features=FEATURES), objective, models))


class _Clock(TrainerCallback):
    """When training began and when each optimizer step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(_now())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(_now())


def _now() -> float:
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_pretrained(source: str | Path, *, tag_tokens: bool = False) -> tuple[Any, Any]:
    """Load a pretrained model in fp32 onto the device, and its tokenizer with the end of the turn as end of text.

    Args:
        source: A folder or a Hub name. A folder with a ``.gguf`` file and no safetensors is read through the ``gguf``
            package.
        tag_tokens: Make each tag one added token.

    Raises:
        OSError: There is no model.
    """
    gguf = sorted(Path(source).glob("*.gguf"))
    options = {"gguf_file": gguf[0].name} if gguf and not any(Path(source).glob("*.safetensors")) else {}
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="sdpa", **options
    )
    tokenizer.eos_token = END_OF_TURN
    if tokenizer.pad_token is None:
        tokenizer.pad_token = END_OF_TURN
    if tag_tokens:
        tokenizer.add_tokens(list(THINKING_ANSWER.tags))
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    return model.to(device()), tokenizer


def with_template(tokenizer: Any, method: Method, system_message: str | None = None) -> Any:
    """Copy a tokenizer and give it the chat template of a method.

    Args:
        tokenizer: From `load_pretrained`.
        method: The stage's method.
        system_message: Replaces the paper's prompt (C.1) of the tagged methods.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = chat_template(TAGGED, system_message) if method.tagged else chat_template(PLAIN)
    return tokenizer
