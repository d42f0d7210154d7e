"""The trainer refuses what it would otherwise ignore, counts the rows it evaluates, and keeps the best checkpoint."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.parallelism_config import ParallelismConfig
from datasets import Dataset
from sftkey.format.segments import Segment
from sftkey.training.trainer import SegmentLossTrainer
from sftkey.util.errors import UserError
from transformers import Qwen3Config, Qwen3ForCausalLM, TrainingArguments, default_data_collator


@pytest.mark.parametrize(
    ("arguments", "options", "key"),
    [
        ({}, {"compute_loss_func": lambda *_: 0.0}, "compute_loss_func"),
        ({"label_smoothing_factor": 0.1}, {}, "label_smoothing_factor"),
        ({}, {}, None),
    ],
)
def test_another_loss_is_refused(tmp_path: Path, arguments: dict[str, Any], options: dict[str, Any], key: str) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=11, num_key_value_heads=1, head_dim=8, **sizes))

    def build() -> None:
        SegmentLossTrainer(model=model, args=TrainingArguments(str(tmp_path), use_cpu=True, **arguments), **options)

    if key is None:
        build()
        return
    with pytest.raises(UserError, match=f"{key}: asks for another loss than that of the segments; remove it"):
        build()


@pytest.mark.parametrize("sizes", [{"cp_size": 2}, {"sp_size": 2}, {"dp_replicate_size": 1}])
def test_split_sequences_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]) -> None:
    if not sizes.keys() <= inspect.signature(ParallelismConfig).parameters.keys():
        pytest.skip("this accelerate knows no sequence parallelism")
    create = SegmentLossTrainer.create_accelerator_and_postprocess

    def create_for_two(trainer: SegmentLossTrainer) -> None:
        create(trainer)
        # As in two processes; one alone can't be told to split.
        monkeypatch.setattr(Accelerator, "parallelism_config", ParallelismConfig(**sizes))

    monkeypatch.setattr(SegmentLossTrainer, "create_accelerator_and_postprocess", create_for_two)
    if "dp_replicate_size" in sizes:
        trainer_of(tmp_path)
        return
    with pytest.raises(UserError, match="split sequences, which the segment loss can't follow; remove them"):
        trainer_of(tmp_path)


SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
ROW = {
    "input_ids": [1, 2, 3, 4],
    "labels": [-100, 2, 3, 4],
    "segments": [Segment.PROMPT, Segment.ANSWER, Segment.ANSWER, Segment.END_OF_TURN],
}
ROWS = Dataset.from_list([ROW] * 5)


def trainer_of(folder: Path, **arguments: Any) -> SegmentLossTrainer:
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=11, num_key_value_heads=1, head_dim=8, **SIZES))
    given = {"use_cpu": True, "per_device_eval_batch_size": 2, "report_to": [], "disable_tqdm": True, **arguments}
    return SegmentLossTrainer(
        model=model,
        args=TrainingArguments(str(folder), **given),
        train_dataset=ROWS,
        eval_dataset=ROWS,
        data_collator=default_data_collator,
    )


@pytest.mark.parametrize(("drop", "missed"), [(True, 1), (False, 0)])
def test_rows_that_an_evaluation_leaves_out_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, drop: bool, missed: int
) -> None:
    trainer = trainer_of(tmp_path, dataloader_drop_last=drop)
    with caplog.at_level(logging.WARNING, "sftkey"):
        metrics = trainer.evaluate()
    assert metrics["eval_loss_answer"] > 0
    assert trainer.eval_rows_missed == missed
    assert ("eval: the evaluation covered 4 of the 5 rows of its split" in caplog.text) == bool(missed)


def test_an_evaluation_without_a_row_has_nothing_to_choose_by(tmp_path: Path) -> None:
    options = {"dataloader_drop_last": True, "per_device_eval_batch_size": 8}
    trainer = trainer_of(tmp_path, **options, metric_for_best_model="loss_answer")
    with pytest.raises(
        UserError, match="covered 0 of the 5 rows of its split, so there is no loss_answer to choose by"
    ):
        trainer.evaluate()


@pytest.mark.parametrize("metric", ["loss_answer", "eval_loss_answer", "acc_answer"])
@pytest.mark.parametrize("given", [None, True, False])
def test_the_best_checkpoint_is_that_with_the_lowest_loss(tmp_path: Path, metric: str, given: bool | None) -> None:
    # Uphill: each step makes the loss worse, so the first evaluation is the best, whatever the trainer's default is.
    trainer = trainer_of(
        tmp_path,
        max_steps=3,
        learning_rate=0.5,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=given,
    )
    trainer.compute_loss = _uphill(trainer.compute_loss)
    trainer.train()
    values = {entry["step"]: entry["eval_loss_answer"] for entry in trainer.state.log_history if "eval_loss" in entry}
    assert values[1] < values[2] < values[3]
    assert trainer.args.greater_is_better is metric.startswith("acc")
    if not metric.startswith("acc"):
        assert trainer.state.best_metric == values[1]
        assert Path(str(trainer.state.best_model_checkpoint)).name == "checkpoint-1"


@pytest.mark.parametrize(("metric", "mode"), [("acc_answer", "max"), ("loss_answer", "min"), (None, "min")])
def test_a_plateau_is_where_the_metric_gets_no_better(tmp_path: Path, metric: str | None, mode: str) -> None:
    trainer = trainer_of(
        tmp_path, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="steps", metric_for_best_model=metric
    )
    trainer.create_optimizer_and_scheduler(1)
    assert trainer.lr_scheduler.mode == mode


def _uphill(loss: Any) -> Any:
    def compute(model: Any, *args: Any, **kwargs: Any) -> Any:
        found = loss(model, *args, **kwargs)
        return -found if model.training else found

    return compute
