"""Exported rows in the trainers' own data pipelines, token by token: run by `make test-exports`, which installs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sftkey.datasets.gsm8k import GSM8K
from sftkey.export.write import TRAINERS, export
from sftkey.format.templates import PLAIN, TAGGED
from sftkey.training.prepare import prepare
from sftkey.training.recipe_rows import recipe_row_tokenizer, set_up_tokenizer
from support.availability import SHARED, skip_or_fail
from support.axolotl_recipes import write_recipe

pytestmark = pytest.mark.exports

ROWS = 500
WEIGHTS = {"format": 0.5, "answer": 3.0}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Recipes on real rows: both stages, and Stage 2 with weights between its segments."""
    folder = tmp_path_factory.mktemp("exports")
    source, tokenizer = SHARED / "data" / "gsm8k" / "train.jsonl", SHARED / "tokenizers" / "qwen3"
    if not source.is_file() or not tokenizer.is_dir():
        skip_or_fail(f"no {source} or no {tokenizer}")
    rows = source.read_text("utf-8").splitlines(keepends=True)[:ROWS]
    (folder / "rows.jsonl").write_text("".join(rows))
    shutil.copytree(tokenizer, folder / "model")
    (folder / "model" / "config.json").write_text('{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}')
    stage1 = {
        "base_model": str(folder / "model"),
        "output_dir": "outputs/stage1",
        "sftkey_method": "sft-tag",
        "datasets": [{"path": str(folder / "rows.jsonl"), "type": "sftkey.datasets.gsm8k"}],
        "sequence_len": 320,
    }
    stage2 = stage1 | {"output_dir": "outputs/stage2", "sftkey_method": "key-tag", "sftkey_after": "stage1.yml"}
    del stage2["base_model"]
    recipes = {
        "stage1": stage1,
        "stage2": stage2,
        "weighted": stage2 | {"output_dir": "outputs/weighted", "sftkey_segment_weights": WEIGHTS},
        "untagged": stage1 | {"output_dir": "outputs/untagged", "sftkey_method": "sft"},
    }
    for name, recipe in recipes.items():
        write_recipe(folder / f"{name}.yml", recipe)
    return {"folder": {"path": folder}, **recipes}


def ours(recipe: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    template = PLAIN if recipe["sftkey_method"] == "sft" else TAGGED
    set_up_tokenizer(tokenizer, template, None, tags_as_tokens=False)
    tokenize = recipe_row_tokenizer(GSM8K, recipe, tokenizer, evaluation=False)
    prepared, skipped = prepare(Dataset.from_json(str(folder / "rows.jsonl")), tokenize)
    assert sum(skipped.values())  # some are too long: those are left out there as well
    return prepared.to_list()


@pytest.mark.parametrize(
    ("trainer", "name"),
    [
        *(("llamafactory", name) for name in ("stage1", "stage2", "untagged")),
        *(("ms-swift", name) for name in ("stage1", "stage2", "untagged", "weighted")),
    ],
)
def test_the_same_rows_and_trained_tokens(
    chain: dict[str, dict[str, Any]], tmp_path: Path, trainer: str, name: str
) -> None:
    folder: Path = chain["folder"]["path"]
    python = Path(os.environ.get("EXPORTS", "")).absolute() / trainer / "bin" / "python"
    if not python.exists():
        skip_or_fail(f"no {python}: run make test-exports")
    export(folder / f"{name}.yml", TRAINERS[trainer], tmp_path)
    script = Path(__file__).with_name(f"read_{trainer.replace('-', '_')}.py")
    environment = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "DISABLE_VERSION_CHECK": "1",
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
        "MODELSCOPE_CACHE": str(tmp_path / "modelscope"),
    }
    command = [python, script, f"{name}.yaml", folder / "model", tmp_path / "read.jsonl"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    theirs = [json.loads(line) for line in (tmp_path / "read.jsonl").read_text("utf-8").splitlines()]
    expected = ours(chain[name], folder)
    assert len(theirs) == len(expected)
    for row, our in zip(theirs, expected, strict=True):
        assert row["input_ids"] == our["input_ids"]
        assert row["labels"] == our["labels"]
    if name == "weighted":
        for row, our in zip(theirs, expected, strict=True):
            trained = {scale for scale, label in zip(row["loss_scale"], our["labels"], strict=True) if label != -100}
            assert trained == {0.5, 3.0}
            assert all(
                scale <= 0 for scale, label in zip(row["loss_scale"], our["labels"], strict=True) if label == -100
            )
    tokens = sum(label != -100 for our in expected for label in our["labels"])
    print(f"{trainer} {name}: {len(theirs)} rows, {tokens} trained tokens, no difference")
