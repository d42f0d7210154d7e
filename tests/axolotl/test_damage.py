"""A run that is resumed among damaged files says which, uses the newest whole checkpoint, and ends with the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sftkey.stages.checkpoints import CHECKPOINT_FILE
from sftkey.stages.marker import MARKER_FILE
from support.axolotl_recipes import write_recipe

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def interrupted(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run with two whole checkpoints and its prepared data, and the weights with which it ended undisturbed."""
    root = tmp_path_factory.mktemp("damage")
    shutil.copytree(tiny_root / "model", root / "model")
    config = json.loads((root / "model" / "config.json").read_text())
    # Dropout, so that the state of the random generators counts.
    (root / "model" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.2}))
    recipe = {
        "base_model": "model",
        "output_dir": "out",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "default_system_message": "Think first, then answer.",
        "datasets": [{"path": str(tiny_root / "data" / "train.jsonl"), "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 128,
        "micro_batch_size": 4,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "bf16": False,
        "attn_implementation": "eager",
        "logging_steps": 1,
        "save_steps": 2,
        "seed": 7,
    }
    write_recipe(root / "recipe.yml", recipe)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        train()
    weights = load_file(root / "out" / "model.safetensors")
    (root / "out" / MARKER_FILE).unlink()
    (root / "out" / "model.safetensors").unlink()
    shutil.rmtree(root / "out" / "checkpoint-6")
    return root, weights


def train() -> None:
    """``axolotl train recipe.yml`` in this process, which starts sooner than one of its own."""
    from axolotl.cli.train import do_cli
    from axolotl.integrations.base import PluginManager

    PluginManager.get_instance().plugins.clear()
    do_cli("recipe.yml")


@pytest.fixture
def place(interrupted: tuple[Path, Any], tmp_path: Path, fresh_axolotl: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(interrupted[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def a_list(path: Path) -> None:
    path.write_text("[]")


def texts_for_numbers(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "global_step": "four", "schema": "one"}))


def unlisted_scheduler(path: Path) -> None:
    record = json.loads(path.read_text())
    del record["files"]["scheduler.pt"]
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("model.safetensors", flipped, marks=pytest.mark.slow),
        pytest.param("model.safetensors", truncated, marks=pytest.mark.kills),
        pytest.param("model.safetensors", removed, marks=pytest.mark.kills),
        pytest.param("optimizer.pt", flipped, marks=pytest.mark.kills),
        pytest.param("optimizer.pt", truncated, marks=pytest.mark.slow),
        pytest.param("scheduler.pt", truncated, marks=pytest.mark.kills),
        pytest.param("scheduler.pt", removed, marks=pytest.mark.slow),
        pytest.param("rng_state.pth", emptied, marks=pytest.mark.kills),
        pytest.param("rng_state.pth", removed, marks=pytest.mark.kills),
        pytest.param("trainer_state.json", truncated, marks=pytest.mark.slow),
        pytest.param("trainer_state.json", a_list, marks=pytest.mark.kills),
        pytest.param("trainer_state.json", texts_for_numbers, marks=pytest.mark.kills),
        pytest.param(CHECKPOINT_FILE, unlisted_scheduler, marks=pytest.mark.slow),
        pytest.param(CHECKPOINT_FILE, texts_for_numbers, marks=pytest.mark.kills),
        pytest.param(CHECKPOINT_FILE, truncated, marks=pytest.mark.kills),
    ],
)
def test_a_damaged_checkpoint(
    place: Path, interrupted: tuple[Path, Any], caplog: pytest.LogCaptureFixture, name: str, damage: Damage
) -> None:
    damage(place / "out" / "checkpoint-4" / name)
    train()
    assert_equal(load_file(place / "out" / "model.safetensors"), interrupted[1])
    assert (place / "out" / MARKER_FILE).is_file()
    said = caplog.text
    assert "going on from out/checkpoint-2" in said
    (line,) = (line for line in said.splitlines() if "set-aside-checkpoint-4" in line)
    assert name in line or "random states" in line
    assert (place / "out" / "set-aside-checkpoint-4").is_dir()
    assert (place / "out" / "checkpoint-4" / CHECKPOINT_FILE).is_file()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flipped, marks=pytest.mark.slow),
        *(pytest.param(damage, marks=pytest.mark.kills) for damage in (truncated, removed, emptied)),
    ],
)
def test_damaged_prepared_data(
    place: Path, interrupted: tuple[Path, Any], caplog: pytest.LogCaptureFixture, damage: Damage
) -> None:
    (data,) = (place / "prepared").rglob("*.arrow")
    damage(data)
    train()
    assert_equal(load_file(place / "out" / "model.safetensors"), interrupted[1])
    assert "going on from out/checkpoint-4" in caplog.text
    (line,) = (line for line in caplog.text.splitlines() if "is prepared again" in line)
    assert data.name in line


def assert_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, weights in expected.items():
        assert torch.equal(actual[name], weights), name
