"""A tiny model and a few rows, as Axolotl needs them on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model/`` and ``data/{train,test}.jsonl``: the demo's, with few rows."""
    from setup_demo import set_up

    root = tmp_path_factory.mktemp("tiny")
    set_up(root, train=64, test=16)
    return root


@pytest.fixture
def stage1_recipe(tiny_root: Path, tmp_path: Path) -> dict[str, Any]:
    """A Stage 1 recipe that trains the tiny model on the CPU."""
    return {
        "base_model": str(tiny_root / "model"),
        "output_dir": str(tmp_path / "outputs" / "stage1"),
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "default_system_message": "Think first, then answer.",
        "datasets": [{"path": str(tiny_root / "data" / "train.jsonl"), "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": str(tmp_path / "prepared"),
        "sequence_len": 128,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_epochs": 1,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 7,
    }


@pytest.fixture
def fresh_axolotl() -> Iterator[None]:
    """Axolotl's plugin manager is one per process, and it sets environment variables."""
    from axolotl.integrations.base import PluginManager

    before = dict(os.environ)
    PluginManager.get_instance().plugins.clear()
    yield
    PluginManager.get_instance().plugins.clear()
    os.environ.clear()
    os.environ.update(before)
