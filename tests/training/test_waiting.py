"""A training step reads nothing from the device.

The device is "meta": a tensor there has a shape and no values, so that whatever would have to wait for a value (`item`,
`nonzero`, `tolist`, a boolean index, a copy to the CPU) raises. Copies to it are recorded with whether they wait.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from sftkey.training.collator import SegmentCollator
from sftkey.training.loss import causal_loss
from sftkey.training.placement import UnwaitingTrainer
from sftkey.training.trainer import SegmentLossTrainer
from support.small_models import small_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.models.qwen3 import modeling_qwen3

VOCABULARY = 53
WEIGHTS = torch.tensor([0.0, 1.0, 0.25, 1.0, 1.0, 1.0, 1.0, 1.0])
LATER = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])


class Copies(TorchDispatchMode):
    """Records copies from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.free = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if func is torch.ops.aten._to_copy.default else args[1]
            target = kwargs.get("device") if func is torch.ops.aten._to_copy.default else args[0].device
            if target is not None and source.device.type == "cpu" and torch.device(target).type != "cpu":
                if kwargs.get("non_blocking") or (len(args) > 2 and args[2]):
                    self.free += 1
                else:
                    self.waiting.append(f"{func} {tuple(source.shape)}")
        return func(*args, **kwargs)


def build() -> Any:
    return small_model(VOCABULARY, max_position_embeddings=64)


def rows(count: int) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(count)
    made = []
    for index in range(count):
        segments = [0, 0, 1, *[2] * (1 + index * 7 % 5), 3, 4, *[5] * (1 + index * 5 % 3), 6, 7]
        ids = torch.randint(VOCABULARY, (len(segments),), generator=generator).tolist()
        labels = [token if its else -100 for token, its in zip(ids, segments, strict=True)]
        made.append({"input_ids": ids, "labels": labels, "segments": segments})
    return made


def pad(given: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in given)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    filled = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in given]
    return {
        name: torch.tensor([row[name] + [value] * (width - len(row[name])) for row in filled])
        for name, value in fill.items()
    }


class Ended(Exception):
    """Training ends before `Trainer` reads the loss of the whole training."""


class EndsAfter(TrainerCallback):
    def __init__(self, steps: int, copies: Copies) -> None:
        self.steps, self.copies = steps, copies

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:  # what is copied once (weights, the first learning rate) is behind
            self.copies.waiting.clear()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.steps:
            raise Ended


def trainer_on_meta(folder: Path, monkeypatch: pytest.MonkeyPatch, copies: Copies, **options: Any) -> Any:
    """A trainer of a model on the device without values, which has seen its first batch on the CPU."""
    model = build()
    first = SegmentCollator(pad)(rows(2))
    causal_loss(model, {"input_ids": first["input_ids"]}, first["labels"], first["segments"])
    arguments = TrainingArguments(
        str(folder), use_cpu=True, per_device_train_batch_size=2, gradient_accumulation_steps=2, logging_strategy="no",
        save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False, max_steps=9, optim="adamw_torch",
        **options,
    )  # fmt: skip
    trainer = SegmentLossTrainer(
        model=model,
        args=arguments,
        data_collator=SegmentCollator(pad),
        train_dataset=rows(24),  # type: ignore[arg-type]
        callbacks=[EndsAfter(4, copies)],
    )
    monkeypatch.setattr(TrainingArguments, "device", torch.device("meta"))
    monkeypatch.setattr(trainer.accelerator.state, "device", torch.device("meta"))
    # transformers looks at position ids and masks to see whether there is anything to mask: the model's own wait.
    monkeypatch.setattr(modeling_qwen3, "create_causal_mask", lambda **_: None)
    # There is no autocast on meta.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    model.to("meta")
    trainer._compared = True  # like the first batch, this looks at values once
    return trainer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": WEIGHTS, "end_weights": LATER},
        {"weights": LATER, "context_grad": False},
        {"sparse_logits": False},
    ],
    ids=["labels", "weights", "without context gradient", "all logits"],
)
def test_a_training_step_reads_nothing_from_the_device(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = Copies()
    trainer = trainer_on_meta(tmp_path, monkeypatch, copies)
    trainer.configure_segment_loss(**options)
    with copies, pytest.raises(Ended):
        trainer.train()
    assert trainer.state.global_step == 4
    assert copies.waiting == []
    assert copies.free > 0


def test_batches_that_are_on_the_device_have_to_be_read_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_on_meta(tmp_path, monkeypatch, Copies())
    monkeypatch.setattr(UnwaitingTrainer, "get_train_dataloader", Trainer.get_train_dataloader)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        trainer.train()
