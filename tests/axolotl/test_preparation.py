"""The recipe as Axolotl gets it, and the folder of its prepared data: another for whatever decides tokens and labels."""

from __future__ import annotations

import importlib
import json
import linecache
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from axolotl.utils.dict import DictDefault
from sftkey.axolotl.preparation import prepare_recipe, train_rows_alone
from sftkey.format.formats import THINKING_ANSWER
from sftkey.util.errors import UserError

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
        {"sftkey_turns": "all"},
        {"sftkey_segment_weights": {"thinking": 0.1}},
        {"datasets": [{**ROWS, "split": "train[:10]"}]},
        {"test_datasets": [ROWS]},
        {"tokenizer_config": "other"},
    ],
)
def test_what_decides_the_labels_decides_the_folder(changes: dict[str, Any]) -> None:
    assert prepared(**changes)["dataset_prepared_path"] != prepared()["dataset_prepared_path"]


def test_what_an_objective_knows_of_each_token_decides_the_folder(workplace: Path) -> None:
    (workplace / "model" / "model.safetensors").write_text("weights")
    (workplace / "other").mkdir()
    (workplace / "other" / "model.safetensors").write_text("others")
    rho = {"sftkey_objective": "rho-1", "sftkey_reference_model": "model"}
    folders = [
        prepared(**changes)["dataset_prepared_path"]
        for changes in (
            {},
            rho,
            {**rho, "sftkey_reference_model": "other"},
            {**rho, "sftkey_objective": "long-range"},
            {**rho, "sftkey_objective": {"name": "long-range", "context": 8}},
            {"sftkey_objective": "sft-go"},
        )
    ]
    assert len(set(folders)) == len(folders)
    same = prepared(**{**rho, "sftkey_objective": {"name": "rho-1", "share": 0.1}})
    assert same["dataset_prepared_path"] == folders[1]
    assert prepared(sftkey_objective="dft")["dataset_prepared_path"] == folders[0]
    # A command that trains nothing prepares the recipe of a stage whose reference is gone.
    assert prepared(**{**rho, "sftkey_reference_model": "outputs/gone"})
    (workplace / "other" / "model.safetensors").write_text("trained anew")
    changed = prepared(**{**rho, "sftkey_reference_model": "other"})
    assert changed["dataset_prepared_path"] not in folders


def test_changed_files_are_prepared_anew(workplace: Path) -> None:
    folders = {prepared()["dataset_prepared_path"]}
    (workplace / "rows.jsonl").write_text('{"question": "another"}\n')
    folders.add(prepared()["dataset_prepared_path"])
    (workplace / "model" / "tokenizer.json").write_text('{"a": 1}')
    folders.add(prepared()["dataset_prepared_path"])
    assert len(folders) == 3


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "rows.jsonl"},
        {"path": "*.jsonl"},
        {"path": "json", "data_files": "rows.jsonl"},
        {"path": ".", "data_files": ["rows.jsonl"]},
        {"path": "json", "data_files": {"train": "rows.jsonl"}},
    ],
)
def test_the_files_of_an_entry_count_and_no_others(workplace: Path, entry: dict[str, Any]) -> None:
    datasets = [{**ROWS, **entry}]
    folder = prepared(datasets=datasets)["dataset_prepared_path"]
    (workplace / "outputs").mkdir()
    (workplace / "outputs" / "debug.log").write_text("a line\n")
    assert prepared(datasets=datasets)["dataset_prepared_path"] == folder
    rows = workplace / "rows.jsonl"
    status, text = rows.stat(), rows.read_text()
    rows.write_text(text.replace("q", "z"))
    os.utime(rows, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (rows.stat().st_size, rows.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert prepared(datasets=datasets)["dataset_prepared_path"] != folder


@pytest.mark.parametrize("changes", [{"learning_rate": 1.0}, {"output_dir": "elsewhere"}, {"num_epochs": 5}])
def test_what_does_not_keeps_it(changes: dict[str, Any]) -> None:
    assert prepared(**changes)["dataset_prepared_path"] == prepared()["dataset_prepared_path"]


def test_preparing_twice_changes_nothing() -> None:
    once = prepared(sftkey_tags="tokens", sftkey_warmup_epochs=0.5, num_epochs=3)
    twice = dict(once)
    prepare_recipe(twice)
    assert twice == once
    assert once["tokens"] == list(THINKING_ANSWER.tags)
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


def test_tied_layers_stay_tied(tmp_path: Path) -> None:
    recipe = {"sftkey_method": "sft-tag", "datasets": [], "adapter": "lora", "output_dir": str(tmp_path)}
    saved = {"lora_modules_to_save": ["embed_tokens", "lm_head", "norm"]}

    def tying(**more: Any) -> Any:
        cfg = {**recipe, **more}
        prepare_recipe(cfg)
        return cfg.get("peft_ensure_weight_tying")

    assert tying() is None
    assert tying(lora_modules_to_save=["lm_head"]) is None
    assert tying(**saved) is True
    assert tying(**saved, peft_ensure_weight_tying=False) is False
    # A run of an earlier version, which trained the two apart, goes on as it began.
    (tmp_path / "checkpoint-4").mkdir()
    for content, expected in (
        ('{"ensure_weight_tying": true}', True),
        ('{"ensure_weight_tying": false}', False),
        ("{}", False),
    ):
        (tmp_path / "checkpoint-4" / "adapter_config.json").write_text(content)
        assert tying(**saved) is expected


def test_tokens_that_the_stage_before_added_are_not_added_again(tmp_path: Path) -> None:
    added = [{"id": number, "content": token} for number, token in enumerate((*THINKING_ANSWER.tags, "<mine>"))]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    recipe = {"sftkey_method": "key-tag", "datasets": [], "base_model": str(tmp_path), "sftkey_after": "stage1.yml"}
    for tokens in (
        {"sftkey_tags": "tokens"},
        {"tokens": [*THINKING_ANSWER.tags]},
        {"tokens": [*THINKING_ANSWER.tags, "<mine>"]},
    ):
        cfg = {**recipe, **tokens, "adapter": "lora"}
        for _ in range(2):  # a Ray worker prepares it again
            prepare_recipe(cfg)
            assert not cfg["tokens"]
            assert cfg["sftkey_tags"] == "tokens"
    with pytest.raises(
        UserError, match=r"^tokens: <new>: added here, and adapter: lora would leave the new embeddings"
    ):
        prepare_recipe({**recipe, "adapter": "lora", "tokens": ["<new>", "<mine>"]})
    # A first stage adds them, and trains their rows alone where that is asked for.
    cfg = {
        **recipe,
        "sftkey_after": None,
        "adapter": "lora",
        "sftkey_tags": "tokens",
        "peft_trainable_token_indices": [5],
    }
    prepare_recipe(cfg)
    assert cfg["tokens"] == [*THINKING_ANSWER.tags]
    assert cfg["lora_modules_to_save"] == ["embed_tokens", "lm_head"]
    assert cfg.get("peft_ensure_weight_tying") is None
    train_rows_alone(validated := DictDefault(cfg))
    assert validated.lora_modules_to_save is None
