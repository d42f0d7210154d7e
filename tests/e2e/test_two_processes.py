"""Two CPU processes train as one: the data is split, the loss is over all labelled tokens, one marker, one evaluation.

Compared with one process with twice the micro-batch, which sees the same rows in each step.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from demo.tiny_model import make_model
from safetensors.torch import load_file
from support.axolotl_recipes import write_recipe
from support.commands import run, succeeded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUMBERS = "one two three four five six seven eight nine ten".split()


def rows(count: int, start: int) -> list[dict[str, str]]:
    """Problems in the form of GSM8K, with reasonings of very different lengths: a mean of means would be another loss."""
    problems = []
    for index in range(start, start + count):
        terms = [(index * step) % 9 + 1 for step in range(1, 2 + index % 7)]
        total, lines = 0, []
        for term in terms:
            lines.append(f"{total}+{term}=<<{total}+{term}={total + term}>>{total + term}.")
            total += term
        question = f"What is {' plus '.join(NUMBERS[term] for term in terms)}?"
        problems.append({"question": question, "answer": "\n".join(lines) + f"\n#### {total}"})
    return problems


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a local data set in the place of GSM8K, and a recipe."""
    root = tmp_path_factory.mktemp("two")
    data = root / "openai" / "gsm8k"
    data.mkdir(parents=True)
    for split, problems in (("train", rows(64, 0)), ("test", rows(6, 100))):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    (data / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: train.jsonl\n"
        "  - split: test\n    path: test.jsonl\n---\n"
    )
    make_model(root / "model", [text for row in rows(200, 0) for text in row.values()], layers=2, width=32)
    config = json.loads((root / "model" / "config.json").read_text())
    # Room for the task's 1,024 new tokens.
    (root / "model" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    write_recipe(
        root / "stage1.yml",
        {
            "base_model": "model",
            "output_dir": "out/two",
            "plugins": ["sftkey.SFTKeyPlugin"],
            "sftkey_method": "sft-tag",
            "default_system_message": "Think.",
            "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
            "dataset_prepared_path": "prepared",
            "sequence_len": 512,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_epochs": 2,
            "learning_rate": 0.002,
            "lr_scheduler": "cosine",
            "optimizer": "adamw_torch",
            "bf16": False,
            "attn_implementation": "sdpa",
            "logging_steps": 1,
            "save_steps": 8,
            "seed": 42,
        },
    )
    return root


def axolotl(workplace: Path, *arguments: str) -> Any:
    # A cache of its own: datasets knows a folder openai/gsm8k by its relative path, whatever the working directory is.
    cache = str(workplace / "cache")
    return run("axolotl", *arguments, cwd=workplace, OMP_NUM_THREADS="1", HF_DATASETS_CACHE=cache)


def history(output: Path) -> list[dict[str, Any]]:
    entries = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in entries if "loss" in entry]


def test_two_processes(workplace: Path) -> None:
    evaluation = ("--eval", "--eval-limit", "3", "--launcher", "torchrun", "--", "--nproc_per_node", "2")
    ran = succeeded(axolotl(workplace, "sftkey", "run", "stage1.yml", *evaluation))
    succeeded(axolotl(workplace, "train", "stage1.yml", "--output-dir", "out/one", "--micro-batch-size", "4"))
    two, one = workplace / "out" / "two", workplace / "out" / "one"

    # The same rows and tokens in each step, each row once an epoch, and the same loss and gradient.
    assert len(history(two)) == len(history(one)) == 16
    for ours, reference in zip(history(two), history(one), strict=True):
        for key in ("step", "examples_seen", "tokens_answer", "tokens_thinking", "tokens_format"):
            assert ours[key] == reference[key]
        for key in ("loss", "loss_answer", "loss_thinking", "loss_format", "grad_norm", "learning_rate"):
            assert ours[key] == pytest.approx(reference[key], rel=1e-4), (key, ours["step"])
    assert history(two)[-1]["examples_seen"] == 2 * 64
    expected = load_file(one / "model.safetensors")
    for name, weights in load_file(two / "model.safetensors").items():
        torch.testing.assert_close(weights, expected[name], rtol=1e-4, atol=1e-5)

    # One marker, by the first process, after the weights; both processes' random states.
    marker = json.loads((two / "sftkey_stage.json").read_text())
    assert marker["training"]["world_size"] == 2
    assert marker["data"][0]["rows_used"] == 64
    assert not list(two.glob(".sftkey_stage.json.*"))
    assert {path.name for path in (two / "checkpoint-16").glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}

    # One evaluation, and none again.
    (results,) = (two / "eval").rglob("results_*.json")
    assert json.loads(results.read_text())["n-samples"]["sftkey_gsm8k"]["effective"] == 3
    assert "sftkey_gsm8k" in ran.stdout
    # The live view reads what the real commands print.
    assert "  training, log: out/logs/two.log" in ran.stderr
    assert re.search(
        r"^  training: \d+/16, [\d:]+ left, loss \d\.\d{3} \(thinking \d\.\d{3}, answer ", ran.stderr, flags=re.M
    )
    assert re.search(r"^  training took \d+:\d\d, loss \d\.\d{3} \(", ran.stderr, flags=re.M)
    assert re.search(r"^  evaluation took \d+:\d\d$", ran.stderr, flags=re.M)
    assert "axolotl.cli.config" not in ran.stdout + ran.stderr
    assert "axolotl.cli.config" in (workplace / "out" / "logs" / "two.log").read_text()
    again = succeeded(axolotl(workplace, "sftkey", "run", "stage1.yml", *evaluation))
    assert list((two / "eval").rglob("results_*.json")) == [results]
    assert again.stdout.splitlines()[-1] == ran.stdout.splitlines()[-1]


def test_an_interrupted_run_goes_on_with_both(workplace: Path) -> None:
    two = workplace / "out" / "two"
    expected = load_file(two / "model.safetensors")
    for name in ("sftkey_stage.json", "model.safetensors"):
        (two / name).unlink()
    shutil.rmtree(two / "checkpoint-16")
    result = succeeded(
        axolotl(workplace, "train", "stage1.yml", "--launcher", "torchrun", "--", "--nproc_per_node", "2")
    )
    assert "going on from out/two/checkpoint-8" in result.stdout + result.stderr
    for name, weights in load_file(two / "model.safetensors").items():
        assert torch.equal(weights, expected[name])


def test_other_number_of_processes_does_not_resume(workplace: Path) -> None:
    two = workplace / "out" / "two"
    (two / "sftkey_stage.json").unlink()
    result = axolotl(workplace, "train", "stage1.yml")
    assert result.returncode != 0
    assert "was made by 2 processes, this run has 1" in result.stdout + result.stderr
