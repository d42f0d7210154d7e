"""Steps of Hugging Face's Trainer with accumulation: the losses with and without this package, and calls that wait."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from sftkey.training.collator import SEGMENTS_COLUMN, SegmentCollator
from sftkey.training.doctor.compare import FLOAT32, Sample, distance
from sftkey.training.doctor.cost import counted_waits
from sftkey.training.doctor.numerics import batch_of, model_of
from sftkey.training.doctor.task import Findings, Task
from sftkey.training.trainer import SegmentLossTrainer

STEPS = 3
ROWS = 2
ACCUMULATED = 2


class _Counting(Trainer):
    """Counts the calls of each micro-batch that wait for the GPU, and keeps the loss of each step."""

    waits: list[int | None]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with counted_waits("cuda" if self.args.device.type == "cuda" else "cpu") as count:
            loss = super().training_step(*args, **kwargs)
        self.waits.append(count[0])
        return loss

    @property
    def losses(self) -> list[float]:
        return [float(entry["loss"]) for entry in self.state.log_history if "loss" in entry]


class _Segments(_Counting, SegmentLossTrainer):
    pass


def steps(task: Task) -> Findings:
    """Train the same rows by both trainers, in float32."""
    everything = batch_of(task, STEPS * ROWS * ACCUMULATED)
    columns = {**everything.inputs, "labels": everything.labels, SEGMENTS_COLUMN: everything.segments}
    lists = (value.tolist() for value in columns.values())
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=ROWS,
            gradient_accumulation_steps=ACCUMULATED,
            optim="sgd",
            learning_rate=0.1,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            max_grad_norm=0.0,  # it would hide a gradient of another scale
            use_cpu=task.device != "cuda",
            seed=1,
        )
        trainers = [_trained(kind, model_of(task), arguments, rows) for kind in (_Counting, _Segments)]
    own, ours = trainers
    findings = Findings({"own_losses": own.losses, "losses": ours.losses, "own_waits": own.waits, "waits": ours.waits})
    if len(ours.losses) != STEPS:
        findings.problems.append(f"{len(ours.losses)} of {STEPS} steps logged a loss")
    for step, (found, expected) in enumerate(zip(ours.losses, own.losses, strict=False), start=1):
        if not abs(found - expected) <= FLOAT32.loss * abs(expected):
            findings.problems.append(
                f"step {step}: the loss is {found:.6g}, that of transformers' Trainer {expected:.6g}"
            )
    # What one step teaches needn't show in the loss of the next one's rows.
    apart = distance(_moved(ours, task), _moved(own, task))
    findings.figures |= {"weights_error": apart.gradient, "weights_limit": FLOAT32.gradient}
    if not apart.gradient <= FLOAT32.gradient:
        findings.problems.append(f"the weights moved {apart.gradient:.1e} away from those of transformers' Trainer")
    return findings


def _moved(trainer: Any, task: Task) -> Sample:
    """How far training has moved each weight."""
    before = dict(model_of(task).named_parameters())
    return Sample(
        1.0, {name: after.detach() - before[name].detach() for name, after in trainer.model.named_parameters()}
    )


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0] if name != SEGMENTS_COLUMN}


def _trained(kind: type[_Counting], model: Any, arguments: TrainingArguments, rows: list[dict[str, list[int]]]) -> Any:
    collator = SegmentCollator(_collate) if kind is _Segments else _collate
    trainer: Any = kind(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    trainer.waits = []
    trainer.train()
    return trainer
