"""What an experiment tracker is told of a training: the segment losses among it, read back from the tracker's own files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.availability import skip_or_fail
from support.axolotl_recipes import write_recipe

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fresh_axolotl")]

Figures = dict[int, dict[str, float]]
"""What was logged at each step."""


def train(recipe: dict[str, Any], folder: Path, **tracker: Any) -> Figures:
    """Train two steps as ``axolotl train`` does; what the trainer says it has logged."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.train import setup_model_and_trainer

    cfg = load_cfg(str(write_recipe(folder / "recipe.yml", {**recipe, **tracker, "max_steps": 2})))
    trainer, *_ = setup_model_and_trainer(cfg, load_datasets(cfg=cfg, cli_args=TrainerCliArgs()))
    trainer.train()
    logged = {entry["step"]: entry for entry in trainer.state.log_history if "loss_answer" in entry}
    assert sorted(logged) == [1, 2]
    return logged


def check(arrived: Figures, logged: Figures) -> None:
    """Each segment's loss and number of tokens has arrived, at its step."""
    names = {name for name in logged[1] if name.startswith(("loss", "tokens_"))}
    assert {"loss", "loss_thinking", "loss_answer", "loss_format", "tokens_answer"} <= names
    for step, figures in logged.items():
        for name in names:
            assert arrived[step][name] == pytest.approx(figures[name], rel=1e-6), (step, name)


def records(log: bytes) -> Iterator[bytes]:
    """What is in a ``.wandb`` file: a header of 7 bytes, then a LevelDB log in blocks of 32 KiB."""
    position, parts = 7, b""
    while position < len(log):
        if (left := 32_768 - position % 32_768) < 7:
            position += left
            continue
        size, kind = struct.unpack_from("<HB", log, position + 4)
        parts += log[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # the whole of a record, or the last part of one
            yield parts
            parts = b""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, where trackers put what they aren't told where to put."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_wandb_offline(stage1_recipe: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_SILENT", "true")
    logged = train(stage1_recipe, here, use_wandb=True, wandb_project="sftkey", wandb_mode="offline")
    wandb.finish()
    wandb.teardown()  # the process that writes the file ends: only then is all of it on the disk
    (path,) = here.glob("wandb/offline-run-*/*.wandb")
    arrived: Figures = {}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        names = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        if "train/loss_answer" in names:
            arrived[names["train/global_step"]] = {
                name.removeprefix("train/"): value for name, value in names.items() if name.startswith("train/")
            }
    check(arrived, logged)


@pytest.mark.trackers
def test_trackio(stage1_recipe: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    logged = train(stage1_recipe, here, use_trackio=True, trackio_project_name="sftkey", trackio_run_name="one")
    trackio.finish()
    arrived: Figures = {}
    for entry in SQLiteStorage.get_logs("sftkey", "one"):
        if "train/loss_answer" in entry:
            arrived[entry["train/global_step"]] = {
                name.removeprefix("train/"): value for name, value in entry.items() if name.startswith("train/")
            }
    check(arrived, logged)


@pytest.mark.trackers
def test_mlflow_on_sqlite(stage1_recipe: dict[str, Any], here: Path) -> None:
    try:
        import mlflow
    except ImportError:
        skip_or_fail("needs the package mlflow-skinny (make test-trackers)")
    place = f"sqlite:///{here}/mlflow.db"
    logged = train(stage1_recipe, here, use_mlflow=True, mlflow_tracking_uri=place, mlflow_experiment_name="sftkey")
    mlflow.end_run()
    client = mlflow.MlflowClient(place)
    (experiment,) = (one for one in client.search_experiments() if one.name == "sftkey")
    (run,) = client.search_runs([experiment.experiment_id])
    arrived: Figures = {1: {}, 2: {}}
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            arrived.setdefault(metric.step, {})[name] = metric.value
    check(arrived, logged)
