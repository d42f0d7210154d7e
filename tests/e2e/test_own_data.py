"""README's "Your own data", copied and run: real GSM8K rows under other column names, a tiny model, the real commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.availability import REPOSITORY
from support.commands import run, succeeded

pytestmark = pytest.mark.slow

# What a tiny model on a CPU needs beside README's keys.
CPU = {
    "default_system_message": "Think first, then answer.",
    "num_epochs": 1,
    "learning_rate": 1e-3,
    "bf16": False,
    "attn_implementation": "sdpa",
    "optimizer": "adamw_torch",
    "dataset_prepared_path": "prepared",
    "save_strategy": "no",
}


def blocks(kind: str) -> list[str]:
    section = re.findall(
        r"^## Your own data\n(.*?)^## ", (REPOSITORY / "README.md").read_text("utf-8"), flags=re.M | re.S
    )[0]
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.M | re.S)
    return [block for language, block in fences if language == kind]


def test_readme_from_rows_to_diagnosis(
    tmp_path: Path, tiny_root: Path, gsm8k_rows: dict[str, list[dict[str, Any]]]
) -> None:
    (row,) = map(json.loads, blocks("json"))
    stage1, changed = map(yaml.safe_load, blocks("yaml"))
    assert sum(len(block.splitlines()) for kind in ("json", "yaml", "") for block in blocks(kind)) <= 20
    assert set(stage1["sftkey_columns"].values()) == set(row)
    assert len(changed) == 3

    def rows(split: str, count: int) -> list[str]:
        taken = gsm8k_rows[split][:count]
        parts = [(one["question"], *one["answer"].split("\n#### ")) for one in taken]
        return [json.dumps(dict(zip(("prompt", "cot", "target"), part, strict=True))) for part in parts]

    (tmp_path / "my_rows.jsonl").write_text("\n".join(rows("train", 48)))
    (tmp_path / "held_out.jsonl").write_text("\n".join(rows("test", 4)))
    stage1 = {**stage1, "base_model": str(tiny_root / "model"), **CPU}
    stage2 = {key: value for key, value in {**stage1, **changed}.items() if key != "base_model"}
    for name, recipe in (("stage1.yml", stage1), ("stage2.yml", stage2)):
        (tmp_path / name).write_text(yaml.safe_dump(recipe))

    commands = [line.partition("#")[0].split() for block in blocks("") for line in block.splitlines()]
    assert [words[:2] for words in commands] == [["sftkey", verb] for verb in ("inspect", "run", "diagnose")]
    results = [succeeded(run(*words, cwd=tmp_path)) for words in commands]
    assert "Natalia sold clips" in results[0].stdout
    places = [tmp_path / "outputs" / "mine" / stage / "sftkey_stage.json" for stage in ("stage1", "stage2")]
    markers = [json.loads(place.read_text()) for place in places]
    assert [marker["method"] for marker in markers] == ["sft-tag", "key-tag"]
    assert [marker["data"][0]["rows_used"] for marker in markers] == [48, 48]
    assert markers[1]["after"]["id"] == markers[0]["id"]
    assert "4 of 4 rows" in results[2].stdout
