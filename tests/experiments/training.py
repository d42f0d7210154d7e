"""One training stage with the Hugging Face `Trainer` and the project's masks and loss."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sftkey.format.methods import Method
from sftkey.training.collator import SegmentCollator
from sftkey.training.tokenization import TokenizedExample
from sftkey.training.trainer import SegmentLossTrainer
from transformers import DataCollatorForSeq2Seq, TrainerCallback, TrainingArguments

from experiments.models import device
from experiments.settings import Settings


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage trains.

    Attributes:
        method: Which tokens are in the loss.
        examples: The training sequences.
        epochs: Passes over them, or a part of one.
        learning_rate: Peak of the schedule.
        seed: Of the order of the rows (and of dropout, where the model has any).
        max_steps: Stop after so many optimizer steps instead of `epochs`; the schedule ends there as well.
        logging_steps: Steps between two points of the loss curve.
        context_grad: False for the answer-only gradient.
    """

    method: Method
    examples: Sequence[TokenizedExample]
    epochs: float
    learning_rate: float
    seed: int
    max_steps: int = -1
    logging_steps: int = 10
    context_grad: bool = True


@dataclass(frozen=True, slots=True)
class TrainingResult:
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


class _Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, examples: Sequence[TokenizedExample]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        example = self._examples[index]
        return {**example._asdict(), "attention_mask": [1] * len(example.input_ids)}


class _Clock(TrainerCallback):
    """When each optimizer step ended."""

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


def train(model: Any, tokenizer: Any, stage: Stage, settings: Settings) -> TrainingResult:
    """Train a model in place, with a fresh optimizer and schedule (Eq. 5).

    Args:
        model: The model with the weights to start from.
        tokenizer: Its tokenizer; pads the batches.
        stage: What is trained.
        settings: The experiment.
    """
    accumulation = settings.batch_size // settings.micro_batch_size
    on_gpu = device().type == "cuda"
    steps_per_epoch = math.ceil(len(stage.examples) / settings.batch_size)
    # A stage of less than an epoch warms up for half of it.
    warmup_epochs = min(settings.warmup_epochs, stage.epochs / 2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SegmentLossTrainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=settings.micro_batch_size,
                gradient_accumulation_steps=accumulation,
                num_train_epochs=stage.epochs,
                max_steps=stage.max_steps,
                learning_rate=stage.learning_rate,
                lr_scheduler_type=settings.schedule,
                warmup_steps=round(warmup_epochs * steps_per_epoch),
                weight_decay=settings.weight_decay,
                optim="adamw_torch_fused" if on_gpu else "adamw_torch",
                bf16=on_gpu,
                use_cpu=not on_gpu,
                logging_steps=stage.logging_steps,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=stage.seed,
            ),
            train_dataset=_Rows(stage.examples),
            data_collator=SegmentCollator(
                DataCollatorForSeq2Seq(tokenizer, padding=True, pad_to_multiple_of=settings.pad_to_multiple_of)
            ),
            processing_class=tokenizer,
        )
        trainer.configure_segment_loss(context_grad=stage.context_grad)
        for callback in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "PrinterCallback"]:
            trainer.remove_callback(type(callback))
        clock = _Clock()
        trainer.add_callback(clock)
        trainer.train()
    # Accelerate leaves its autocast around `forward`, in the model itself: the next stage must not get another around it,
    # and a copy of the model must not call this one.
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)
    seconds = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
    return TrainingResult(
        steps=trainer.state.global_step,
        seconds=clock.times[-1] - clock.times[0],
        step_seconds=seconds,
        curve=[entry for entry in trainer.state.log_history if "loss" in entry],
    )
