"""The recipe as Axolotl gets it, and the folder of its prepared data: another for whatever decides tokens and labels."""

from __future__ import annotations

import importlib
import linecache
import sys
from pathlib import Path
from typing import Any

import pytest
from sftkey.axolotl.preparation import prepare_recipe
from sftkey.format import tags

ROWS = {"path": "rows.jsonl", "type": "sftkey.datasets.columns"}
RECIPE: dict[str, Any] = {"base_model": "model", "sftkey_method": "key-tag", "datasets": [ROWS], "sequence_len": 512}


def prepared(**changes: Any) -> dict[str, Any]:
    recipe = {**RECIPE, **changes}
    prepare_recipe(recipe)
    return recipe


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with rows and a tokenizer."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"question": "q"}\n')
    Path("model").mkdir()
    Path("model/tokenizer.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "changes",
    [
        {"sftkey_method": "sft-tag"},
        {"sftkey_tags": "tokens"},
        {"default_system_message": "Think."},
        {"sequence_len": 256},
        {"eval_sequence_len": 256},
        {"excess_length_strategy": "raise"},
        {"special_tokens": {"additional_special_tokens": ["<|x|>"]}},
        {"sftkey_columns": {"thinking": "cot"}},
        {"sftkey_segment_weights": {"thinking": 0.1}},
        {"datasets": [{**ROWS, "split": "train[:10]"}]},
        {"test_datasets": [ROWS]},
        {"tokenizer_config": "other"},
    ],
)
def test_what_decides_the_labels_decides_the_folder(changes: dict[str, Any]) -> None:
    assert prepared(**changes)["dataset_prepared_path"] != prepared()["dataset_prepared_path"]


def test_changed_files_are_prepared_anew(workplace: Path) -> None:
    folders = {prepared()["dataset_prepared_path"]}
    (workplace / "rows.jsonl").write_text('{"question": "another"}\n')
    folders.add(prepared()["dataset_prepared_path"])
    (workplace / "model" / "tokenizer.json").write_text('{"a": 1}')
    folders.add(prepared()["dataset_prepared_path"])
    assert len(folders) == 3


@pytest.mark.parametrize("changes", [{"learning_rate": 1.0}, {"output_dir": "elsewhere"}, {"num_epochs": 5}])
def test_what_does_not_keeps_it(changes: dict[str, Any]) -> None:
    assert prepared(**changes)["dataset_prepared_path"] == prepared()["dataset_prepared_path"]


def test_preparing_twice_changes_nothing() -> None:
    once = prepared(sftkey_tags="tokens", sftkey_warmup_epochs=0.5, num_epochs=3)
    twice = dict(once)
    prepare_recipe(twice)
    assert twice == once
    assert once["tokens"] == list(tags.TAGS)
    assert once["special_tokens"] == {"eos_token": "<|im_end|>"}
    assert once["warmup_ratio"] == pytest.approx(0.5 / 3)
    assert once["auto_resume_from_checkpoints"] is True


def test_another_module_of_the_users_own_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "lab_of_this_test.py"
    folders = set()
    for text in ("x = 1", "x = 22"):
        module.write_text(text)
        linecache.checkcache()
        monkeypatch.delitem(sys.modules, "lab_of_this_test", raising=False)
        importlib.invalidate_caches()
        importlib.import_module("lab_of_this_test")
        folders |= {prepared(datasets=[{**ROWS, "type": "lab_of_this_test"}])["dataset_prepared_path"] for _ in "ab"}
    assert len(folders) == 2


def test_another_helper_module_of_the_users_own_is_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "my_lab_of_this_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "svamp.py").write_text("from my_lab_of_this_test.common import to_example")
    folders = set()
    for text in ("to_example = 1", "to_example = 22"):
        (package / "common.py").write_text(text)
        for module in ("svamp", "common"):
            monkeypatch.delitem(sys.modules, f"{package.name}.{module}", raising=False)
        importlib.invalidate_caches()
        importlib.import_module(f"{package.name}.svamp")
        entry = {**ROWS, "type": f"{package.name}.svamp"}
        folders |= {prepared(datasets=[entry])["dataset_prepared_path"] for _ in "ab"}
    assert len(folders) == 2
