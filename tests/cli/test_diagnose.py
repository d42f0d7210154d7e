"""``sftkey diagnose`` on stages that can't be diagnosed, and on a model that has learned nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from sftkey.cli.main import sftkey
from sftkey.datasets.gsm8k import GSM8K
from sftkey.evaluation.diagnosis import Diagnosis
from sftkey.evaluation.generation import load_model
from sftkey.evaluation.headroom import MEANINGS
from sftkey.format.formats import THINKING_ANSWER
from sftkey.stages.marker import MARKER_FILE, SCHEMA
from sftkey.util.files import write_atomically


@pytest.fixture
def stage1(stage1_recipe: dict[str, Any], tiny_root: Path, tmp_path: Path) -> Path:
    """An output directory as a finished Stage 1 leaves it, whose weights are the untrained ones."""
    folder = tmp_path / "stage1"
    shutil.copytree(tiny_root / "model", folder)
    recipe = {key: value for key, value in stage1_recipe.items() if key != "dataset_prepared_path"}
    base = {"finished_at": "2026", "base_model": recipe["base_model"]}
    mark(folder, **base, method="sft-tag", recipe={"name": "stage1.yml", "config": recipe})
    return folder


def mark(folder: Path, **changed: Any) -> None:
    known = json.loads((folder / MARKER_FILE).read_text()) if (folder / MARKER_FILE).exists() else {"schema": SCHEMA}
    write_atomically(folder / MARKER_FILE, {**known, **changed})


def rows_file(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def diagnose(*arguments: str | Path) -> Result:
    # 24 tokens hold the reference responses of the tiny rows.
    return CliRunner().invoke(sftkey, ["diagnose", *map(str, arguments), "--max-new-tokens", "32", "--batch-size", "8"])


def test_a_model_that_never_stops_gets_no_verdict(stage1: Path, tiny_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "diagnosis.json"
    result = diagnose(stage1, "--data", tiny_root / "data" / "test.jsonl", "--rows", "12", "--json", file)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{stage1}: 12 of 16 rows of {tiny_root / 'data' / 'test.jsonl'}"
    assert lines[-1].startswith("Headroom for Stage 2: can't tell")
    assert "12 of 12 outputs have no complete thinking" in lines[-1]
    found = json.loads(file.read_text())
    assert (found["rows"], found["unfinished"], found["over_limit"], found["format_rate"]) == (12, 1, 0, 0)
    assert found["given_own"] is None
    assert found["outcomes"]["wrong without a thinking"] == 12
    assert found["shares_of_wrong"]["wrong without a thinking"] == 1
    assert found["on_training_rows"]["rows"] == 12
    assert found["verdict"] == "can't tell"
    assert found["summary"] == lines[-1]
    # Every number has a definition, there and in the help.
    assert found["definitions"] == dict(MEANINGS)
    assert set(MEANINGS) == {field.name for field in fields(Diagnosis)} | {"shares_of_wrong"}
    assert set(found) - set(MEANINGS) == {
        "checkpoint",
        "held_out",
        "training_rows",
        "max_new_tokens",
        "summary",
        "definitions",
    }
    # Without a file, all of stdout is JSON.
    printed = diagnose(stage1, "--data", tiny_root / "data" / "test.jsonl", "--rows", "12", "--json")
    assert json.loads(printed.stdout) == found
    shown = "".join(CliRunner().invoke(sftkey, ["diagnose", "--help"]).stdout.split())
    for name, meaning in MEANINGS.items():
        assert "".join(f"{name}{meaning}".split()) in shown


def test_what_is_no_finished_sft_tag_stage(stage1: Path) -> None:
    mark(stage1, method="key-tag")
    result = diagnose(stage1)
    assert result.exit_code == 1
    assert f"{stage1} was made by key-tag; a diagnosis is about what Stage 2 can gain after sft-tag" in result.stderr
    mark(stage1, schema=99)
    assert "has a schema this version of sftkey doesn't know" in diagnose(stage1).stderr
    (stage1 / MARKER_FILE).write_text("{")
    assert f"{stage1 / MARKER_FILE} is not valid JSON" in diagnose(stage1).stderr
    (stage1 / MARKER_FILE).unlink()
    result = diagnose(stage1)
    assert result.exit_code == 1
    assert f"{stage1} is no finished stage: it holds no {MARKER_FILE}; train it first" in result.stderr
    assert diagnose(stage1 / "missing").exit_code == 2


def test_rows_that_cannot_be_diagnosed(stage1: Path, tiny_root: Path, tmp_path: Path) -> None:
    result = diagnose(stage1)
    assert result.exit_code == 1
    assert "it isn't known which rows are held out: give some with --data FILE" in result.stderr
    good = {"question": "Which?", "thinking": "This.", "answer": "red"}
    path = tmp_path / "rows.jsonl"
    rows_file(path, {**good, "thinking": ""}, {**good, "thinking": "  "}, {**good, "answer": "<Answer>"})
    result = diagnose(stage1, "--data", path)
    assert result.exit_code == 1
    assert (
        f"{path}: none of its 3 rows can be used (empty thinking: 2, tag in the text: 1)" in result.stderr
        or f"{path}: none of its 3 rows can be used (tag in the text: 1, empty thinking: 2)" in result.stderr
    )
    rows_file(path, {"question": "Which?", "answer": "red"})
    assert (
        f"{path}: no column 'thinking' in the data; it has: answer, question" in diagnose(stage1, "--data", path).stderr
    )
    path.write_text("")
    result = diagnose(stage1, "--data", path)
    assert result.exit_code == 1
    assert f"Error: {path}: it holds no rows" in result.stderr
    path.write_text('{"question": ')
    result = diagnose(stage1, "--data", path)
    assert result.exit_code == 1
    assert f"Error: {path}: the file is not valid JSON" in result.stderr


def test_published_rows_without_a_part_for_evaluation(stage1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = SimpleNamespace(dataset=replace(GSM8K, test_split=None))
    monkeypatch.setattr("sftkey.axolotl.rows.row_tokenizer", lambda *_: tokenizer)
    result = diagnose(stage1)
    assert result.exit_code == 1
    assert "it isn't known which rows are held out: give some with --data FILE" in result.stderr


def test_without_training_rows_or_weights(stage1: Path, tiny_root: Path) -> None:
    recipe = json.loads((stage1 / MARKER_FILE).read_text())["recipe"]
    recipe["config"]["datasets"][0]["path"] = str(stage1 / "moved.jsonl")
    mark(stage1, recipe=recipe)
    held_out = ("--data", tiny_root / "data" / "test.jsonl", "--rows", "4")
    result = diagnose(stage1, *held_out, "--no-gradient")
    assert result.exit_code == 0, result.output
    assert "note: whether the training rows' answers are learned already isn't looked at" in result.stderr
    assert "moved.jsonl" in result.stderr
    assert "answers of training rows" in result.stdout
    assert "not measured" in result.stdout
    assert "gradient" not in result.stdout
    (stage1 / "model.safetensors").unlink()
    result = diagnose(stage1, *held_out)
    assert result.exit_code == 1
    assert f"Error: {stage1}: its weights can't be loaded" in result.stderr


@pytest.mark.parametrize("tokens", [False, True], ids=["text", "tokens"])
def test_an_adapter_is_merged_into_its_base_model(stage1: Path, tiny_root: Path, tokens: bool) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(tiny_root / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_root / "model")
    options: dict[str, Any] = {}
    if tokens:
        tokenizer.add_tokens(list(THINKING_ANSWER.tags))
        base.resize_token_embeddings(len(tokenizer) + 3)
        options["modules_to_save"] = ["embed_tokens", "lm_head"]
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, **options))
    # What an adapter's stage leaves: the adapter, and the config and tokenizer of the whole model.
    (stage1 / "model.safetensors").unlink()
    adapted.save_pretrained(stage1)
    base.config.save_pretrained(stage1)
    tokenizer.save_pretrained(stage1)
    ids = torch.arange(5, len(tokenizer), 7)[None]
    expected = adapted.eval()(input_ids=ids).logits
    found = load_model(stage1, len(tokenizer))
    torch.testing.assert_close(found(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    unadapted = AutoModelForCausalLM.from_pretrained(tiny_root / "model")(input_ids=ids[:, :20]).logits
    assert not torch.allclose(expected[:, :20, : unadapted.shape[-1]], unadapted, atol=1e-3)
    assert all(parameter.requires_grad for parameter in found.parameters())
    result = diagnose(stage1, "--data", tiny_root / "data" / "test.jsonl", "--rows", "3")
    assert result.exit_code == 0, result.output
    config = json.loads((stage1 / "adapter_config.json").read_text())
    (stage1 / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "no/model"}))
    result = diagnose(stage1, "--data", tiny_root / "data" / "test.jsonl", "--rows", "3")
    assert f"Error: no/model, the base model of the adapter in {stage1}: its weights can't be loaded" in result.stderr


@pytest.mark.parametrize(
    "code", [{"datasets": [{"path": "rows.jsonl", "type": "strangers_lab.rows"}]}, {"trust_remote_code": True}]
)
def test_a_marker_that_names_code_is_refused(
    stage1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: dict[str, Any]
) -> None:
    """A marker may be a stranger's: what it names isn't imported before the user says so."""
    (tmp_path / "strangers_lab").mkdir()
    (tmp_path / "strangers_lab" / "rows.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = json.loads((stage1 / MARKER_FILE).read_text())["recipe"]
    mark(stage1, recipe={**recipe, "config": {**recipe["config"], **code}})
    result = diagnose(stage1)
    assert result.exit_code == 1, result.output
    assert f"{stage1 / MARKER_FILE} runs code that it names" in result.output
    assert "--trust-remote-code" in result.output
    assert not (tmp_path / "ran").exists()
    if "datasets" in code:
        diagnose(stage1, "--trust-remote-code")
        assert (tmp_path / "ran").exists()
