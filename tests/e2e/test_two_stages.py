"""Both stages through the real ``axolotl train``: hand-over, errors, interruption, resumption."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.axolotl_recipes import stage2_of, write_recipe
from support.commands import environment, run, succeeded, train
from support.finished_stages import read_marker


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory as a user has it: a model, data, and recipes in a folder."""
    from demo.setup_demo import set_up

    root = tmp_path_factory.mktemp("user")
    set_up(root, train=64, test=16)
    return root


@pytest.fixture(scope="module")
def recipes(root: Path) -> dict[str, Path]:
    """Stage 1 and Stage 2 on disk."""
    stage1: dict[str, Any] = {
        "base_model": "model",
        "output_dir": "outputs/stage1",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "sftkey_warmup_epochs": 0.5,
        "sftkey_tags": "tokens",
        "default_system_message": "Think first, then answer.",
        "datasets": [{"path": "data/train.jsonl", "type": "sftkey.datasets.columns"}],
        "test_datasets": [{"path": "data/test.jsonl", "split": "train", "type": "sftkey.datasets.columns"}],
        "dataset_prepared_path": "prepared",
        "sequence_len": 128,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_epochs": 2,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "bf16": False,
        "attn_implementation": "sdpa",
        "logging_steps": 2,
        "eval_steps": 8,
        "save_steps": 4,
        "seed": 7,
    }
    return {
        "stage1": write_recipe(root / "recipes" / "stage1.yml", stage1),
        "stage2": write_recipe(root / "recipes" / "stage2.yml", stage2_of(stage1)),
    }


def test_the_chain(root: Path, recipes: dict[str, Path]) -> None:
    early = train(recipes["stage2"], cwd=root)
    assert early.returncode != 0
    assert "sftkey: stage1.yml has not been run: there is no outputs/stage1" in early.stderr
    assert f"axolotl train {recipes['stage1']}" in early.stderr
    assert "UserError" not in early.stderr

    succeeded(train(recipes["stage1"], cwd=root))
    stage1 = root / "outputs" / "stage1"
    marker = read_marker(stage1)
    assert marker is not None
    assert marker["method"] == "sft-tag"
    assert marker["tags"] == "tokens"
    assert marker["after"] is None
    assert marker["data"][0]["rows_used"] == 64
    assert marker["training"]["steps"] == 16
    assert {"loss_answer", "loss_thinking", "loss_format", "acc_answer"} <= marker["training"]["losses"].keys()
    assert marker["training"]["eval_losses"]["eval_tokens_answer"] > 0

    again = succeeded(train(recipes["stage1"], cwd=root))
    assert "outputs/stage1 is finished" in again.stdout + again.stderr
    other = train(recipes["stage1"], "--learning-rate", "0.01", cwd=root)
    assert other.returncode != 0
    assert "holds a finished stage with other settings (learning_rate: 0.001 -> 0.01)" in other.stderr

    # Stage 2 with a learning rate of zero ends with exactly the weights that it started from.
    succeeded(train(recipes["stage2"], "--learning-rate", "0", "--output-dir", "outputs/still", cwd=root))
    before, after = load_file(stage1 / "model.safetensors"), load_file(root / "outputs" / "still" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    succeeded(train(recipes["stage2"], cwd=root))
    stage2 = root / "outputs" / "stage2"
    marker = read_marker(stage2)
    assert marker is not None
    assert marker["after"]["output_dir"] == "outputs/stage1"
    assert marker["after"]["stage"] == read_marker(stage1)
    card = (stage2 / "README.md").read_text()
    assert "1. `sft-tag`" in card
    assert "2. `key-tag`" in card
    assert "data/train.jsonl" in card
    assert marker["training"]["losses"]["loss_answer"] > 0
    assert "loss_thinking" not in marker["training"]["losses"]
    assert marker["training"]["eval_losses"]["eval_loss_thinking"] > 0
    trained = load_file(stage2 / "model.safetensors")
    assert any(not torch.equal(before[name], trained[name]) for name in before)

    history = json.loads((stage2 / "trainer_state.json").read_text())["log_history"]
    first = next(entry for entry in history if "learning_rate" in entry)
    # Fresh schedule: 8 steps an epoch, warmup over half an epoch, so the first steps are below the peak again.
    assert first["step"] == 2
    assert 0 < first["learning_rate"] < 1e-3
    optimizer = torch.load(stage2 / "checkpoint-4" / "optimizer.pt", weights_only=True)
    assert {int(state["step"]) for state in optimizer["state"].values()} == {4}
    lm_eval_builds_the_training_prompt(stage2)


def lm_eval_builds_the_training_prompt(checkpoint: Path) -> None:
    from lm_eval.models.huggingface import HFLM
    from sftkey.datasets.columns import with_columns
    from sftkey.format.example import Example
    from sftkey.format.methods import METHODS
    from sftkey.format.segments import Segment
    from sftkey.training.tokenization import ExampleTokenizer
    from transformers import AutoTokenizer

    model = HFLM(pretrained=str(checkpoint), device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenize = ExampleTokenizer(tokenizer, METHODS["key-tag"], with_columns(None).untagged)
    for question in ("Tom takes the lamp and the rope to which box?", "\n\n x ", "é <Answer>"):
        (row,) = tokenize([Example(question, "t", "a")])
        prompt = [token for token, its in zip(row.input_ids, row.segments, strict=True) if its == Segment.PROMPT]
        text = model.apply_chat_template([{"role": "user", "content": question}])
        assert model.tok_encode(text) == prompt
        batch, _ = model.tok_batch_encode([text])
        assert batch[0].tolist() == prompt
    assert model.eot_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def wait_for(path: Path, process: subprocess.Popen[str], seconds: int = 300) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-4000:]
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_and_on_again(root: Path, recipes: dict[str, Path], tmp_path: Path) -> None:
    import yaml

    recipe = yaml.safe_load(recipes["stage1"].read_text())
    recipe |= {"output_dir": "outputs/cut", "num_epochs": 12, "save_steps": 8, "eval_steps": 1000}
    cut = write_recipe(root / "recipes" / "cut.yml", recipe)
    process = subprocess.Popen(
        ["axolotl", "train", str(cut), "--launcher", "python"],
        cwd=root,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(
        root / "outputs" / "cut" / "checkpoint-16" / "trainer_state.json", process
    )  # so that checkpoint-8 is whole
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    output_dir = root / "outputs" / "cut"
    assert (output_dir / "model.safetensors").exists()
    assert read_marker(output_dir) is None

    after = write_recipe(root / "recipes" / "after_cut.yml", stage2_of(recipe, "cut.yml") | {"output_dir": "outputs/x"})
    refused = run("axolotl", "train", after, "--launcher", "python", cwd=root)
    assert refused.returncode != 0
    assert "cut.yml was interrupted: the weights in outputs/cut are half-trained" in refused.stderr
    assert "Run it to go on from checkpoint-" in refused.stderr

    other = run("axolotl", "train", cut, "--learning-rate", "0.5", "--launcher", "python", cwd=root)
    assert "holds checkpoints of a run with other settings" in other.stderr

    last = max(int(path.name.split("-")[1]) for path in output_dir.glob("checkpoint-*"))
    resumed = succeeded(run("axolotl", "train", cut, "--launcher", "python", cwd=root))
    assert "going on from outputs/cut/checkpoint-" in resumed.stdout + resumed.stderr
    marker = read_marker(output_dir)
    assert marker is not None
    assert marker["training"]["steps"] == 96
    state = json.loads((output_dir / "trainer_state.json").read_text())
    seen = [entry["examples_seen"] for entry in state["log_history"] if "examples_seen" in entry]
    assert seen == sorted(seen)
    assert last >= 8
