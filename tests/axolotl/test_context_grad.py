"""Training without the context gradient in Axolotl's own trainer: its batches, gradient checkpointing and optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sftkey.util.errors import UserError
from support.axolotl_recipes import write_recipe

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fresh_axolotl")]


def build(recipe: dict[str, Any], folder: Path) -> Any:
    """The trainer of a recipe, as ``axolotl train`` builds it."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.integrations.base import PluginManager
    from axolotl.train import setup_model_and_trainer

    PluginManager.get_instance().plugins.clear()
    cfg = load_cfg(str(write_recipe(folder / "recipe.yml", recipe)))
    trainer, *_ = setup_model_and_trainer(cfg, load_datasets(cfg=cfg, cli_args=TrainerCliArgs()))
    assert trainer.context_grad is (recipe.get("sftkey_context_grad") is not False)
    return trainer


def losses(recipe: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    """Train by a recipe; what each step logged."""
    trainer = build(recipe, folder)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_stage_2_by_it(stage1_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**stage1_recipe, "sftkey_method": "key-tag", "max_steps": 4, "lr_scheduler": "constant"}
    exact = losses({**recipe, "output_dir": str(tmp_path / "exact")}, tmp_path)
    without = losses(
        {
            **recipe,
            "output_dir": str(tmp_path / "without"),
            "sftkey_context_grad": False,
            "gradient_checkpointing": True,
        },
        tmp_path,
    )
    assert len(exact) == len(without) == 4
    for metric in ("loss", "loss_answer", "loss_format", "tokens_answer"):
        assert without[0][metric] == pytest.approx(exact[0][metric], rel=1e-3)
    assert "loss_thinking" not in without[0]
    assert without[-1]["loss_answer"] < without[0]["loss_answer"]
    # Another gradient: already the second step starts from other weights.
    assert without[1]["loss_answer"] != pytest.approx(exact[1]["loss_answer"], rel=1e-4)
    assert without[0]["grad_norm"] < exact[0]["grad_norm"]


def test_a_model_that_cannot_do_it_is_refused_in_terms_of_the_recipe(
    stage1_recipe: dict[str, Any], tmp_path: Path
) -> None:
    trainer = build({**stage1_recipe, "sftkey_method": "key-tag"}, tmp_path)
    trainer.configure_segment_loss(context_grad=False)
    trainer.model.config.output_router_logits = True
    with pytest.raises(UserError, match="sftkey_context_grad: false can't be had here: the load-balancing loss"):
        trainer.configure_segment_loss(context_grad=False)
