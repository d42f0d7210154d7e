"""What `SegmentLossTrainer` logs in two processes with accumulation, against full logits of one row at a time.

Gloo, on the CPU. The learning rate is 0, so that every step sees the weights that the brute-force computation has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sftkey.format.methods import METHODS
from sftkey.format.segments import Segment
from sftkey.training.collator import SegmentCollator
from sftkey.training.trainer import SegmentLossTrainer
from support.processes import PROCESSES, in_processes
from support.small_models import small_model
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset
from transformers import TrainingArguments

VOCABULARY = 53
GROUPS = {"thinking": {2}, "answer": {5}, "format": {1, 3, 4, 6, 7}}


class Rows(Dataset[dict[str, Any]]):
    """Rows of very different lengths, labelled as a method labels them: a mean of means would be another number."""

    def __init__(self, count: int, method: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = []
        for index in range(count):
            thinking, answer = 1 + (index * 7) % 13, 1 + (index * 5) % 6
            segments = [0, 0, 0, 1, *[2] * thinking, 3, 4, *[5] * answer, 6, 7]
            ids = torch.randint(VOCABULARY, (len(segments),), generator=generator).tolist()
            trained = METHODS[method].trained
            labels = [token if Segment(its) in trained else -100 for token, its in zip(ids, segments, strict=True)]
            self.rows.append({"input_ids": ids, "labels": labels, "segments": segments})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])


def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": 0, "labels": -100}
    batch = {
        name: torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])
        for name, value in fill.items()
    }
    mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
    return {**batch, "attention_mask": torch.tensor(mask)}


def build() -> Any:
    return small_model(VOCABULARY, max_position_embeddings=64)


def brute_force(rows: Rows, every_segment: bool) -> dict[str, float]:
    """Mean loss and token count of each group of segments, and the answer's accuracy."""
    model = build().eval()
    loss, tokens, correct = dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, 0), 0
    with torch.no_grad():
        for row in rows.rows:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double()
            for position, token in enumerate(row["input_ids"]):
                for name, group in GROUPS.items():
                    if row["segments"][position] in group and (every_segment or row["labels"][position] != -100):
                        loss[name] -= float(logits[position - 1].log_softmax(-1)[token])
                        tokens[name] += 1
                correct += row["segments"][position] == 5 and int(logits[position - 1].argmax()) == token
    names = [name for name in GROUPS if tokens[name]]
    found = {f"loss_{name}": loss[name] / tokens[name] for name in names}
    return found | {f"tokens_{name}": tokens[name] for name in names} | {"acc_answer": correct / tokens["answer"]}


def work(rank: int, method: str, folder: Path) -> None:
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        ddp_backend="gloo",
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        learning_rate=0.0,
        logging_steps=2,
        eval_strategy="epoch",
        save_strategy="no",
        remove_unused_columns=False,
        report_to=["tensorboard"],
        disable_tqdm=True,
    )
    trainer = SegmentLossTrainer(
        model=build(),
        args=arguments,
        data_collator=SegmentCollator(pad),
        train_dataset=Rows(16, method, seed=1),
        eval_dataset=Rows(5, method, seed=2),
    )
    assert trainer.args.world_size == PROCESSES
    trainer.configure_segment_loss()
    trainer.train()
    if trainer.is_world_process_zero():
        trainer.save_state()
    # Tokens that aren't logged yet, and a log of one process alone: the other one doesn't come.
    batch = trainer.data_collator(trainer.train_dataset.rows[:2])
    trainer.compute_loss(trainer.model.train(), batch, num_items_in_batch=torch.tensor(4.0))
    trainer.callback_handler.callbacks.clear()  # what is read of the files is what was logged in training
    if rank == 0:
        trainer.log({"loss": 1.0})
        assert not [name for name in trainer.state.log_history[-1] if name.startswith("loss_")]


def logged(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


def events(folder: Path) -> dict[str, float]:
    """The last value of every series that TensorBoard was given."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(file))
    accumulator.Reload()
    return {tag: accumulator.Scalars(tag)[-1].value for tag in accumulator.Tags()["scalars"]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["sft-tag", "key-tag"])
def test_logs_are_means_over_the_tokens_of_all_processes(method: str, tmp_path: Path) -> None:
    in_processes(work, method, tmp_path)
    (training,) = [entry for entry in logged(tmp_path) if "loss" in entry]
    expected = brute_force(Rows(16, method, seed=1), every_segment=False)
    assert {name for name in training if name.startswith(("loss_", "tokens_", "acc_"))} == set(expected)
    assert ("loss_thinking" in expected) == (method == "sft-tag")
    for name, value in expected.items():
        assert training[name] == pytest.approx(value, rel=1e-5), name
    assert training["examples_seen"] == 16
    # 5 rows in batches of 2 for 2 processes: the last round is filled up with rows that were there before.
    (evaluation,) = [entry for entry in logged(tmp_path) if "eval_loss" in entry]
    for name, value in brute_force(Rows(5, method, seed=2), every_segment=True).items():
        assert evaluation[f"eval_{name}"] == pytest.approx(value, rel=1e-5), name
    series = events(tmp_path)
    for name, value in expected.items():
        assert series[f"train/{name}"] == pytest.approx(value, rel=1e-5), name
    assert series["eval/loss_thinking"] == pytest.approx(evaluation["eval_loss_thinking"], rel=1e-5)


def fsdp2_on_cpus() -> None:
    """Let accelerate, which shards on GPUs alone, take these processes for some; the model is sharded as Axolotl does."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState
    from axolotl.monkeypatch.accelerate.fsdp2 import patch_accelerate_fsdp2

    original = AcceleratorState.__init__

    def start(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
        if not self._shared_state:
            PartialState(cpu=True)
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        original(self, *args, **kwargs)

    AcceleratorState.__init__ = start  # type: ignore[method-assign]
    patch_accelerate_fsdp2()


def go_on(rank: int, folder: Path) -> None:
    fsdp2_on_cpus()

    def trained(output: Path, resume: Path | None = None) -> tuple[dict[str, torch.Tensor], list[float]]:
        trainer = SegmentLossTrainer(
            model=build(),
            args=TrainingArguments(
                output_dir=str(output),
                use_cpu=True,
                ddp_backend="gloo",
                per_device_train_batch_size=2,
                max_steps=4,
                learning_rate=0.01,
                logging_steps=1,
                save_steps=2,
                remove_unused_columns=False,
                report_to=[],
                disable_tqdm=True,
                fsdp=True,
                fsdp_config={
                    "version": 2,
                    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                    "state_dict_type": "FULL_STATE_DICT",
                    "activation_checkpointing": True,
                },
            ),
            data_collator=SegmentCollator(pad),
            train_dataset=Rows(16, "key-tag", seed=1),
        )
        assert trainer.is_fsdp_enabled
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        parameters = dict(trainer.model.named_parameters())
        assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {name: value.full_tensor().detach().clone() for name, value in parameters.items()}, losses

    whole, losses = trained(folder / "whole")
    again, resumed = trained(folder / "again", folder / "whole" / "checkpoint-2")
    assert resumed == losses
    assert losses[-1] < losses[0]
    start = dict(build().named_parameters())
    for name, weights in whole.items():
        assert torch.equal(again[name], weights), name
        assert not torch.equal(weights, start[name.replace("_checkpoint_wrapped_module.", "")]), name


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fsdp2_goes_on_from_a_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    pytest.importorskip("axolotl")
    in_processes(go_on, tmp_path)
