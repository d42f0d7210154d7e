"""A recipe that brings Liger's fused loss: Axolotl's own plugin patches it in, and it is left to do the loss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.axolotl_recipes import write_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Axolotl's plugin manager is one per process, and Liger patches classes of transformers."""
    from axolotl.integrations.base import PluginManager
    from transformers.models.qwen3 import modeling_qwen3

    before = dict(os.environ)
    for name, value in list(vars(modeling_qwen3).items()):
        monkeypatch.setattr(modeling_qwen3, name, value)
        if isinstance(value, type) and "forward" in vars(value):
            monkeypatch.setattr(value, "forward", value.forward)
    PluginManager.get_instance().plugins.clear()
    yield
    PluginManager.get_instance().plugins.clear()
    os.environ.clear()
    os.environ.update(before)


def test_ligers_fused_loss_from_a_recipe(
    stage1_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("liger_kernel.transformers", reason="Liger is not installed")
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.train import setup_model_and_trainer
    from liger_kernel.transformers.model import qwen3 as ligers_qwen3

    plugins = ["sftkey.SFTKeyPlugin", "axolotl.integrations.liger.LigerPlugin"]
    recipe = {**stage1_recipe, "plugins": plugins, "sftkey_method": "key-tag", "liger_fused_linear_cross_entropy": True}
    cfg = load_cfg(str(write_recipe(tmp_path / "recipe.yml", recipe)))
    trainer, *_ = setup_model_and_trainer(cfg, load_datasets(cfg=cfg, cli_args=TrainerCliArgs()))
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    count = int((batch["labels"] != -100).sum())
    calls: list[dict[str, Any]] = []

    def kernel(**given: Any) -> torch.Tensor:
        # In the place of the Triton kernel, which needs a GPU: the same sum over the labelled tokens.
        calls.append(given)
        logits = torch.nn.functional.linear(given["hidden_states"], given["lm_head_weight"])[:, :-1].float()
        labels = given["labels"][:, 1:].flatten()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum") / count

    monkeypatch.setattr(ligers_qwen3, "LigerForCausalLMLoss", kernel)
    monkeypatch.setattr(ligers_qwen3, "unpack_cross_entropy_result", lambda loss: (loss, None, None, None))
    said: list[str] = []
    monkeypatch.setattr("sftkey.training.sparse_logits.LOG.warning", lambda text, *values: said.append(text % values))
    found = trainer.compute_loss(trainer.model.train(), dict(batch), num_items_in_batch=torch.tensor(float(count)))
    trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(float(count)))
    assert len(calls) == 2
    assert len(said) == 1
    assert "Liger" in said[0]
    # Evaluation goes past it, and finds the same loss.
    trainer.model.eval()
    torch.testing.assert_close(found.detach(), trainer.compute_loss(trainer.model, dict(batch)).detach())
    assert len(calls) == 2
    # A batch without a label doesn't reach it.
    empty = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    loss = trainer.compute_loss(trainer.model.train(), empty, num_items_in_batch=torch.tensor(float(count)))
    loss.backward()
    assert loss == 0
    assert len(calls) == 2
