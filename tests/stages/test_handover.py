"""A stage starts only from a finished stage that it agrees with; otherwise a short error names the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sftkey.axolotl.preparation import prepare_recipe
from sftkey.stages.checkpoints import checkpoints
from sftkey.stages.handover import (
    check_agreement,
    stages_before,
    start_from,
    template_fingerprint,
    tokenizer_file_sha256,
)
from sftkey.stages.marker import MARKER_FILE, RUN_FILE, SCHEMA, Marker
from sftkey.stages.same_data import data_identity
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from support.axolotl_recipes import stage2_of, write_recipe


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A Stage 1 recipe on disk, its recipe, and a Stage 2 recipe as the plugin gets it."""
    stage1: dict[str, Any] = {
        "base_model": "Qwen/Qwen3-8B-Base",
        "output_dir": str(tmp_path / "outputs" / "stage1"),
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": "sft-tag",
        "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
    }
    path = write_recipe(tmp_path / "recipes" / "stage1.yml", stage1)
    stage2 = {**stage2_of(stage1), "axolotl_config_path": str(tmp_path / "recipes" / "stage2.yml")}
    return path, stage1, stage2


def finish(recipe: dict[str, Any], copy: dict[str, Any] | None = None, **changes: Any) -> None:
    output_dir = Path(recipe["output_dir"])
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "tokenizer.json").write_text("{}")
    marker = {
        "schema": SCHEMA,
        "finished_at": "2026-01-01T00:00:00+00:00",
        "method": recipe["sftkey_method"],
        "base_model": recipe["base_model"],
        "tags": "text",
        "chat_template": template_fingerprint(recipe),
        "tokenizer": {"sha256": tokenizer_file_sha256(output_dir)},
        "data": data_identity(recipe),
        "recipe": {"config": copy or {}},
        **changes,
    }
    write_atomically(output_dir / MARKER_FILE, marker)


def test_a_first_stage_starts_from_its_base_model(chain: Any) -> None:
    _, stage1, _ = chain
    recipe = dict(stage1)
    assert start_from(recipe) is None
    assert recipe == stage1


def test_a_finished_stage_is_accepted(chain: Any) -> None:
    _, stage1, stage2 = chain
    finish(stage1)
    before = start_from(stage2)
    assert before is not None
    assert before.method == "sft-tag"
    assert stage2["base_model"] == stage1["output_dir"]


def test_base_model_may_be_left_out(chain: Any) -> None:
    _, stage1, stage2 = chain
    finish(stage1)
    del stage2["base_model"]
    start_from(stage2)
    assert stage2["base_model"] == stage1["output_dir"]


def test_another_output_dir_of_the_stage_before(chain: Any, tmp_path: Path) -> None:
    _, stage1, stage2 = chain
    elsewhere = str(tmp_path / "elsewhere")
    finish({**stage1, "output_dir": elsewhere})
    start_from({**stage2, "base_model": elsewhere})


def test_half_trained_in_another_output_dir(chain: Any, tmp_path: Path) -> None:
    path, _, stage2 = chain
    elsewhere = tmp_path / "else where"
    checkpoint = elsewhere / "checkpoint-8"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    (elsewhere / "model.safetensors").write_bytes(b"half-trained")
    write_atomically(elsewhere / RUN_FILE, {"schema": SCHEMA})
    stage2["base_model"] = str(elsewhere)
    message = refusal(chain)
    assert f"stage1.yml was interrupted: the weights in {elsewhere} are half-trained" in message
    assert "Run it to go on from checkpoint-8" in message
    assert message.endswith(f"axolotl train {path} --output-dir '{elsewhere}'")


def test_a_model_of_another_origin(chain: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a model")
    chain[2]["base_model"] = str(tmp_path)
    assert f"base_model: {tmp_path} is neither the output_dir of stage1.yml" in refusal(chain)


def refusal(chain: Any) -> str:
    with pytest.raises(UserError) as error:
        start_from(chain[2])
    return str(error.value)


def test_missing(chain: Any) -> None:
    message = refusal(chain)
    assert "stage1.yml has not been run" in message
    assert message.endswith(f"axolotl train {chain[0]}")


def test_unfinished(chain: Any) -> None:
    output_dir = Path(chain[1]["output_dir"])
    for step in (100, 20, 200):
        (output_dir / f"checkpoint-{step}").mkdir(parents=True)
    for step in (100, 20):
        (output_dir / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    whole, partial = checkpoints(output_dir)
    assert [path.name for path in whole] == ["checkpoint-20", "checkpoint-100"]
    assert [path.name for path in partial] == ["checkpoint-200"]
    message = refusal(chain)
    assert "has not finished" in message
    assert "to go on from checkpoint-100" in message
    assert message.endswith(f"axolotl train {chain[0]}")


def test_interrupted_by_ctrl_c(chain: Any) -> None:
    output_dir = Path(chain[1]["output_dir"])
    output_dir.mkdir(parents=True)
    (output_dir / "model.safetensors").write_bytes(b"half-trained")
    (output_dir / "config.json").write_text("{}")
    message = refusal(chain)
    assert "was interrupted: the weights in" in message
    assert "it left no checkpoint" in message


def test_only_config_and_tokenizer(chain: Any) -> None:
    output_dir = Path(chain[1]["output_dir"])
    output_dir.mkdir(parents=True)
    (output_dir / "config.json").write_text("{}")
    assert "has not been run" in refusal(chain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tags": "tokens"},
            "made with the tags as added tokens, this recipe has them as plain text; set sftkey_tags: tokens",
        ),
        ({"method": "sft"}, "made by sft, but key-tag builds on tagged data: start it from an sft-tag stage"),
        ({"method": "dpo"}, "'dpo', which this version doesn't know"),
        ({"chat_template": {"name": "thinking_answer", "sha256": "0"}}, "another chat template or system message"),
        ({"tokenizer": {"sha256": "0"}}, "is not the one that"),
        ({"data": [{"path": "my.jsonl"}]}, "was trained on my.jsonl, this recipe is on openai/gsm8k main train"),
    ],
)
def test_disagreement(chain: Any, changes: dict[str, Any], message: str) -> None:
    finish(chain[1], **changes)
    assert message in refusal(chain)


OWN = {"path": "my.jsonl", "split": "train"}
CHATS, TABLE = {**OWN, "type": "sftkey.datasets.messages"}, {**OWN, "type": "sftkey.datasets.columns"}


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "planned"])
@pytest.mark.parametrize(
    ("earlier", "now", "message"),
    [
        ({"sftkey_turns": "all"}, {}, "datasets[0]: sftkey_turns: all, this recipe has last"),
        ({}, {"datasets": [{**CHATS, "sftkey_turns": "all"}]}, "sftkey_turns: last, this recipe has all"),
        ({}, {"datasets": [{**CHATS, "field_thinking": "cot"}]}, "field_thinking: none, this recipe has cot"),
        (
            {},
            {"datasets": [{**CHATS, "drop_system_message": True}]},
            "drop_system_message: False, this recipe has True",
        ),
        ({"sftkey_turns": "last"}, {}, ""),
        ({"sftkey_turns": "all"}, {"datasets": [{**CHATS, "sftkey_turns": "all"}]}, ""),
        (
            {"datasets": [TABLE], "sftkey_columns": {"answer": "a"}},
            {"datasets": [TABLE]},
            "sftkey_columns: {'question': 'question', 'thinking': 'thinking', 'answer': 'a'}, this recipe has",
        ),
        ({"datasets": [TABLE]}, {"datasets": [TABLE], "sftkey_columns": {"answer": "answer"}}, ""),
        (
            {"datasets": [TABLE]},
            {"datasets": [TABLE], "sftkey_held_out": 0.1},
            "sftkey_held_out: none, this recipe has 0.1",
        ),
    ],
)
def test_the_same_rows_are_read_in_another_way(
    chain: Any, earlier: dict[str, Any], now: dict[str, Any], message: str, finished: bool
) -> None:
    """By what the finished stage was trained with, whatever its recipe says by now."""
    path, first, second = chain
    trained = {**first, "datasets": [CHATS], **earlier}
    recipe = {**second, "datasets": [CHATS], **now}
    write_recipe(path, {**first, "datasets": recipe["datasets"]} if finished else trained)
    if finished:
        finish(trained, copy=trained)
    before = next(stages_before(recipe))
    assert before.finished == finished
    if message:
        with pytest.raises(UserError, match=re.escape(message)) as refused:
            check_agreement(recipe, before)
        assert "sftkey_other_data: true if that is meant" in str(refused.value)
        assert ("stage1 was trained with " if finished else "stage1.yml has ") in str(refused.value)
        check_agreement({**recipe, "sftkey_other_data": True}, before)
    else:
        check_agreement(recipe, before)


def test_the_format_is_the_one_that_the_stage_was_trained_in(chain: Any) -> None:
    path, first, second = chain
    shared = {"chat_template": "tokenizer_default", "default_system_message": "Think."}
    trained = {**first, **shared, "sftkey_format": "think"}
    write_recipe(path, {**first, **shared})
    finish(trained, copy=trained)
    with pytest.raises(UserError, match="made with sftkey_format: think, this recipe has thinking_answer"):
        start_from({**second, **shared})


@pytest.mark.parametrize(
    ("key", "value"),
    [("sftkey_columns", {"answer": 3}), ("sftkey_columns", [1]), ("sftkey_turns", ["all"]), ("sftkey_format", 3)],
)
def test_a_finished_stage_whose_recipe_has_another_shape_is_named(chain: Any, key: str, value: object) -> None:
    _, first, second = chain
    data = CHATS if key == "sftkey_turns" else TABLE
    trained = {**first, "datasets": [data], key: value}
    finish({**first, "datasets": [data]}, copy=trained)
    with pytest.raises(UserError, match=rf"stage1: its recipe: {key}: ") as refused:
        check_agreement({**second, "datasets": [data]}, next(stages_before(second)))
    assert "\n" not in str(refused.value)


def test_other_data_can_be_meant(chain: Any) -> None:
    finish(chain[1], data=[{"path": "my.jsonl"}])
    start_from({**chain[2], "sftkey_other_data": True})


def test_base_model_is_the_base_model_itself(chain: Any) -> None:
    _, stage1, stage2 = chain
    finish(stage1)
    with pytest.raises(UserError, match=r"to start from its output set base_model: .*stage1"):
        start_from({**stage2, "base_model": stage1["base_model"]})


def test_recipe_before_does_not_exist(chain: Any) -> None:
    with pytest.raises(
        UserError, match=r"sftkey_after: nowhere\.yml: there is no file .*relative to the recipe's folder"
    ):
        start_from({**chain[2], "sftkey_after": "nowhere.yml"})


def test_recipe_before_is_the_recipe_itself(chain: Any) -> None:
    write_recipe(Path(chain[2]["axolotl_config_path"]), chain[2])
    with pytest.raises(UserError, match=r"sftkey_after: stage2\.yml is this recipe itself"):
        start_from({**chain[2], "sftkey_after": "stage2.yml"})


def test_broken_marker(chain: Any) -> None:
    finish(chain[1])
    path = Path(chain[1]["output_dir"]) / MARKER_FILE
    path.write_text(path.read_text()[:20])
    with pytest.raises(UserError, match="not valid JSON"):
        Marker.read(path.parent)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not valid JSON"):
        Marker.read(path.parent)
    path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(UserError, match="upgrade sftkey"):
        Marker.read(path.parent)


def test_adapter_is_trained_on(chain: Any) -> None:
    _, stage1, stage2 = chain
    finish(stage1)
    (Path(stage1["output_dir"]) / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter, but this recipe trains no adapter"):
        start_from(stage2)
    stage2["adapter"] = "lora"
    start_from(stage2)
    assert stage2["base_model"] == stage1["base_model"]
    assert stage2["lora_model_dir"] == stage2["tokenizer_config"] == stage1["output_dir"]


def test_a_merged_adapter_is_a_model(chain: Any) -> None:
    path, stage1, stage2 = chain
    write_recipe(path, {**stage1, "adapter": "lora"})
    finish(stage1)
    (Path(stage1["output_dir"]) / "model.safetensors").write_bytes(b"merged")
    start_from(stage2)
    assert stage2["base_model"] == stage1["output_dir"]
    assert "lora_model_dir" not in stage2


@pytest.mark.parametrize("third", [False, True], ids=["two stages", "three stages"])
def test_a_prepared_recipe_starts_from_the_same_adapter(chain: Any, tmp_path: Path, third: bool) -> None:
    """Ray's workers get the recipe as the plugin has completed it, and the plugin is asked again there."""
    path, stage1, stage2 = chain
    finish(stage1)
    elsewhere = str(tmp_path / "elsewhere")
    finish({**stage1, "output_dir": elsewhere})
    if third:
        write_recipe(path, {**stage1, "adapter": "lora", "base_model": "outputs/stage0", "sftkey_after": "stage0.yml"})
    (Path(elsewhere) / "adapter_config.json").write_text("{}")
    stage2 |= {"adapter": "lora", "base_model": elsewhere}
    for _ in range(2):
        before = start_from(stage2)
        assert before is not None
        assert before.output_dir == Path(elsewhere)
        assert stage2["base_model"] == stage1["base_model"]
        assert stage2["lora_model_dir"] == stage2["tokenizer_config"] == elsewhere
        prepare_recipe(stage2)


def test_the_adapter_that_a_recipe_names(chain: Any, tmp_path: Path) -> None:
    _, stage1, stage2 = chain
    elsewhere = str(tmp_path / "elsewhere")
    stage2 |= {"adapter": "lora", "base_model": stage1["base_model"], "lora_model_dir": elsewhere}
    assert f"stage2.yml: lora_model_dir: {elsewhere} is neither the output_dir of stage1.yml" in refusal(chain)
    for folder in (stage1["output_dir"], elsewhere):
        finish({**stage1, "output_dir": folder})
        (Path(folder) / "adapter_config.json").write_text("{}")
    start_from(stage2)
    assert stage2["lora_model_dir"] == elsewhere
