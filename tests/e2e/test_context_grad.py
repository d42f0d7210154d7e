"""Without the context gradient through the real ``axolotl train``, beside the exact Stage 2 from the same Stage 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import succeeded, train
from support.finished_stages import read_marker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGE1: dict[str, Any] = {
    "base_model": "model",
    "output_dir": "outputs/stage1",
    "plugins": ["sftkey.SFTKeyPlugin"],
    "sftkey_method": "sft-tag",
    "default_system_message": "Think first, then answer.",
    "datasets": [{"path": "data/train.jsonl", "type": "sftkey.datasets.columns"}],
    "test_datasets": [{"path": "data/test.jsonl", "split": "train", "type": "sftkey.datasets.columns"}],
    "dataset_prepared_path": "prepared",
    "sequence_len": 128,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_epochs": 1,
    "learning_rate": 1e-3,
    "optimizer": "adamw_torch",
    "lr_scheduler": "constant",
    "bf16": False,
    "attn_implementation": "sdpa",
    "logging_steps": 1,
    "eval_steps": 8,
    "save_strategy": "no",
    "seed": 7,
}


def test_stage_2_by_it(tmp_path: Path) -> None:
    from demo.setup_demo import set_up

    set_up(tmp_path, train=64, test=16)
    exact = stage2_of(STAGE1)
    without = {
        **exact,
        "output_dir": "outputs/without",
        "sftkey_context_grad": False,
        "gradient_checkpointing": True,
    }
    recipes = {
        name: write_recipe(tmp_path / "recipes" / f"{name}.yml", recipe)
        for name, recipe in (("stage1", STAGE1), ("stage2", exact), ("without", without))
    }
    for name in ("stage1", "stage2"):
        succeeded(train(recipes[name], cwd=tmp_path))
    told = succeeded(train(recipes["without"], cwd=tmp_path))
    output = told.stdout + told.stderr
    assert "the gradient leaves out what the context's keys and values owe to the weights" in output
    assert "gradient checkpointing is off in training steps" in output

    folders = {name: tmp_path / "outputs" / name for name in ("stage1", "stage2", "without")}
    logs = {
        name: json.loads((folders[name] / "trainer_state.json").read_text())["log_history"]
        for name in ("stage2", "without")
    }
    first = {name: next(entry for entry in log if "loss" in entry) for name, log in logs.items()}
    for metric in ("loss", "loss_answer", "loss_format", "tokens_answer", "acc_answer"):
        assert first["without"][metric] == pytest.approx(first["stage2"][metric], rel=1e-3)
    losses = {name: [entry["loss_answer"] for entry in log if "loss" in entry] for name, log in logs.items()}
    assert len(losses["without"]) == len(losses["stage2"]) == 8
    assert losses["without"][-1] < losses["without"][0]
    assert losses["without"][-1] != pytest.approx(losses["stage2"][-1], rel=1e-4)
    # Evaluation is exact, and measures the thinking too.
    evaluated = next(entry for entry in logs["without"] if "eval_loss" in entry)
    assert evaluated["eval_tokens_thinking"] > 0

    weights = {name: load_file(folder / "model.safetensors") for name, folder in folders.items()}
    for other in ("stage1", "stage2"):
        assert any(not torch.allclose(weights["without"][name], value) for name, value in weights[other].items())
    marker = read_marker(folders["without"])
    assert marker is not None
    assert marker["settings"]["sftkey_context_grad"] is False
    assert marker["recipe"]["config"]["sftkey_context_grad"] is False
    assert marker["after"]["method"] == "sft-tag"

    # The exact method is another run: it doesn't take this one for its own.
    write_recipe(recipes["without"], {key: value for key, value in without.items() if key != "sftkey_context_grad"})
    refused = train(recipes["without"], cwd=tmp_path)
    assert refused.returncode != 0
    assert "holds a finished stage with other settings (sftkey_context_grad: False -> None)" in refused.stderr
