"""Recipes as tests write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def stage2_of(recipe: dict[str, Any], file: str = "stage1.yml") -> dict[str, Any]:
    """The Stage 2 recipe that starts from a Stage 1 recipe."""
    output_dir = recipe["output_dir"]
    return {
        **recipe,
        "base_model": output_dir,
        "output_dir": output_dir.replace("stage1", "stage2"),
        "sftkey_method": "key-tag",
        "sftkey_after": file,
    }


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def build(recipe: dict[str, Any], folder: Path) -> Any:
    """The trainer as ``axolotl train`` builds it."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.train import setup_model_and_trainer

    cfg = load_cfg(str(write_recipe(folder / "recipe.yml", recipe)))
    trainer, *_ = setup_model_and_trainer(cfg, load_datasets(cfg=cfg, cli_args=TrainerCliArgs()))
    return trainer
