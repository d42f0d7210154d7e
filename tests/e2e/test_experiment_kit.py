"""The experiment kit and Axolotl train the same, and Axolotl's checkpoint can be diagnosed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from demo.setup_demo import SYSTEM_MESSAGE, set_up
from experiments.data import load_data, training_examples
from experiments.models import load_model, weights_of
from experiments.settings import Settings
from safetensors.torch import load_file
from sftkey.format.methods import METHODS
from sftkey.training.fit import fit, with_template
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import run, succeeded

pytestmark = pytest.mark.slow

RATE, SEED, EPOCHS = 1e-3, 7, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages trained by ``axolotl train``."""
    root = tmp_path_factory.mktemp("same")
    set_up(root, train=60, test=24)
    stage1: dict[str, Any] = {
        "base_model": str(root / "model"),
        "output_dir": str(root / "stage1"),
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "sftkey_warmup_epochs": 0.5,
        "default_system_message": SYSTEM_MESSAGE,
        "datasets": [{"path": str(root / "data" / "train.jsonl"), "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": str(root / "prepared"),
        # The kit takes the rows in the order of the file.
        "shuffle_merged_datasets": False,
        "sequence_len": 128,
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "num_epochs": EPOCHS,
        "learning_rate": RATE,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "weight_decay": 0.1,
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": SEED,
    }
    write_recipe(root / "stage1.yml", stage1)
    write_recipe(root / "stage2.yml", stage2_of(stage1))
    for stage in ("stage1", "stage2"):
        _axolotl(root, "train", f"{stage}.yml")
    return root


def _axolotl(folder: Path, *arguments: str) -> str:
    return succeeded(run("axolotl", *arguments, cwd=folder, ACCELERATE_USE_CPU="true")).stdout


def test_same_loss_curve_as_axolotl(root: Path) -> None:
    settings = Settings(
        model=str(root / "model"),
        dataset="columns",
        train_file=str(root / "data" / "train.jsonl"),
        test_file=str(root / "data" / "test.jsonl"),
        system_message=SYSTEM_MESSAGE,
        sequence_len=128,
        batch_size=16,
        micro_batch_size=8,
        learning_rate=RATE,
        warmup_epochs=0.5,
    )
    data = load_data(settings)
    model, tokenizer = load_model(settings)
    for stage, name in (("stage1", "sft-tag"), ("stage2", "key-tag")):
        method = METHODS[name]
        tokenizer = with_template(tokenizer, method, settings.system_message)
        examples = training_examples(data, tokenizer, method, settings)
        options: dict[str, Any] = {"epochs": EPOCHS, "learning_rate": RATE, "seed": SEED, "logging_steps": 1}
        ours = fit(model, tokenizer, examples, **options, **settings.training).curve
        state = json.loads((root / stage / "trainer_state.json").read_text())
        theirs = [entry for entry in state["log_history"] if "loss" in entry]
        # 60 rows in steps of 16, two epochs.
        assert len(ours) == len(theirs) == 8
        for own, other in zip(ours, theirs, strict=True):
            assert own["learning_rate"] == pytest.approx(other["learning_rate"], rel=1e-6)
            assert own["loss"] == pytest.approx(other["loss"], rel=2e-4)
            assert own["loss_answer"] == pytest.approx(other["loss_answer"], rel=2e-4)
            for key in ("tokens_answer", "tokens_format", "examples_seen"):
                assert own[key] == other[key]
        # And the weights: Stage 2 above went on from the kit's own Stage 1.
        saved, own_weights = load_file(root / stage / "model.safetensors"), weights_of(model)
        for weight, value in saved.items():
            torch.testing.assert_close(own_weights[weight], value, rtol=1e-3, atol=2e-4)


def test_diagnoses_axolotls_stage_1(root: Path) -> None:
    rows = str(root / "data" / "test.jsonl")
    out = _axolotl(
        root,
        "sftkey",
        "diagnose",
        "stage1",
        "--data",
        rows,
        "--rows",
        "20",
        "--max-new-tokens",
        "24",
        "--json",
        "d.json",
    )
    assert "Headroom for Stage 2: " in out.splitlines()[-1]
    found = json.loads((root / "d.json").read_text())
    assert found["rows"] == sum(found["outcomes"].values()) == 20
    assert found["on_training_rows"]["rows"] == 20
    assert sum(found["gradient_shares"].values()) == pytest.approx(1)
    # Eight steps teach a tiny model nothing, but its loss on rows like those it saw is about what it last logged.
    last = json.loads((root / "stage1" / "sftkey_stage.json").read_text())["training"]["losses"]["loss_answer"]
    assert found["on_training_rows"]["loss"] == pytest.approx(last, rel=0.25)
