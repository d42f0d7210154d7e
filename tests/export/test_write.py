"""`sftkey export`: files, refusals, and the rows as each trainer's own rules cut them (`make test-exports` runs them)."""

from __future__ import annotations

import json
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from demo.tiny_model import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.cli.export import export_command
from sftkey.export.rows import ExportedRow, Piece
from sftkey.export.write import DIFFERENCES_FILE, TRAINERS, export
from sftkey.format.methods import METHODS
from sftkey.format.templates import PLAIN, TAGGED
from sftkey.training.recipe_rows import recipe_row_tokenizer, set_up_tokenizer
from sftkey.util.errors import UserError
from support.axolotl_recipes import write_recipe
from support.chats import chats, trained_turns

ANSWER = {"role": "assistant", "content": "yes", "reasoning_content": "It is."}
ROWS = [
    {"question": "How many are 2 and 2?", "thinking": "2 + 2 = 4.", "answer": "4"},
    {"question": " <Answer> \n", "thinking": "\n\n<think>\nfour</think>\n", "answer": " 4\n"},
    {"question": "Wie viele?", "thinking": "Zwölf — 十二 🙂.", "answer": "a</b>"},
    {"question": "too long", "thinking": "x y " * 2000, "answer": "1"},
    {"question": "a tag", "thinking": "</Thinking>", "answer": "1"},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    make_tokenizer(
        [text for row in ROWS for text in row.values()] + ["</Thinking><Answer></Answer>.</"] * 9
    ).save_pretrained(folder / "model")
    (folder / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    return folder


def recipes(place: Path, folder: Path, method: str = "key-tag", **more: Any) -> Path:
    """A recipe of a method, after an sft-tag stage for Stage 2; the path of the last one."""
    first = {
        "base_model": str(place / "model"),
        "output_dir": "outputs/stage1",
        "sftkey_method": "sft-tag",
        "datasets": [{"path": str(place / "rows.jsonl"), "type": "sftkey.datasets.columns"}],
        "sequence_len": 1000,
        "num_epochs": 3,
        "learning_rate": 5e-6,
        "sftkey_warmup_epochs": 0.5,
        "saves_per_epoch": 1,
        "deepspeed": {"zero_optimization": {"stage": 3}},
        "sample_packing": True,
    }
    if method != "key-tag":
        return write_recipe(folder / "only.yml", first | {"sftkey_method": method} | more)
    write_recipe(folder / "stage1.yml", first | ({"sftkey_tags": "tokens"} if more.get("sftkey_tags") else {}))
    del first["base_model"]
    second = first | {"output_dir": "outputs/stage2", "sftkey_method": method, "sftkey_after": "stage1.yml"}
    return write_recipe(folder / "stage2.yml", second | more)


def ours(recipe: Path) -> list[tuple[list[int], list[int]]]:
    from sftkey.datasets.columns import ROWS as columns
    from transformers import AutoTokenizer

    cfg = yaml.safe_load(recipe.read_text())
    base = cfg.get("base_model") or yaml.safe_load((recipe.parent / "stage1.yml").read_text())["base_model"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    tagged = METHODS[cfg["sftkey_method"]].tagged
    set_up_tokenizer(tokenizer, TAGGED if tagged else PLAIN, None, tags_as_tokens=False)
    found = recipe_row_tokenizer(columns, cfg, tokenizer, evaluation=False)(ROWS)
    return [(row.input_ids, row.labels) for row in found if not isinstance(row, str)]


def as_llamafactory(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Each turn by itself: what a human says is masked, what the model says is trained."""
    ids, labels = [], []
    for turn in row["conversations"]:
        tokens = tokenizer.encode(turn["value"], add_special_tokens=False) if turn["value"] else []
        ids += tokens
        labels += tokens if turn["from"] == "gpt" else [-100] * len(tokens)
    return ids, labels


def as_ms_swift(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """ChatML turns and the assistant's messages; neighbours of one weight are joined, then tokenised."""
    messages = row["messages"]
    prompt = "".join(
        f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages if "loss" not in one
    )
    parts = [(prompt + "<|im_start|>assistant\n", 0.0)]
    parts += [
        (one["content"], float(one.get("loss_scale", one["loss"])))
        for one in messages
        if one.get("content") and "loss" in one
    ]
    assert messages[-1]["content"] == "<|im_end|>"  # a stop word, after which the template adds nothing
    ids, labels = [], []
    for weight, group in groupby(parts, key=lambda part: part[1]):
        tokens = tokenizer.encode("".join(text for text, _ in group), add_special_tokens=False)
        ids += tokens
        labels += tokens if weight > 0 else [-100] * len(tokens)
    return ids, labels


RULES = {"llamafactory": as_llamafactory, "ms-swift": as_ms_swift}


@pytest.mark.parametrize("method", ["key-tag", "sft-tag", "key", "sft"])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_trained_tokens_are_those_of_the_recipe(place: Path, tmp_path: Path, trainer: str, method: str) -> None:
    from transformers import AutoTokenizer

    recipe = recipes(place, tmp_path, method)
    export(recipe, TRAINERS[trainer], tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    lines = (tmp_path / "out" / f"{recipe.stem}.jsonl").read_text("utf-8").splitlines()
    expected = ours(recipe)
    assert len(expected) == 3  # without the one that is too long and the one that holds a tag
    assert [RULES[trainer](tokenizer, json.loads(line)) for line in lines] == expected


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_files_of_a_chain(place: Path, tmp_path: Path, trainer: str) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        export_command, [str(recipes(place, tmp_path)), "--for", trainer, "-o", str(out)], catch_exceptions=False
    )
    text = (out / DIFFERENCES_FILE).read_text()
    assert text in result.stdout
    for said in (
        "3 rows used, 2 skipped",
        "sample_packing: True has no counterpart",
        "leaves no marker",
        "stage2.yaml",
    ):
        assert said in text
    first, second = (yaml.safe_load((out / f"stage{number}.yaml").read_text()) for number in (1, 2))
    model = "model" if trainer == "ms-swift" else "model_name_or_path"
    assert first[model] == str(place / "model")
    assert second[model] == ("outputs/stage1/last" if trainer == "ms-swift" else "outputs/stage1")
    assert first["output_dir"] == "outputs/stage1"
    assert first["warmup_ratio"] == pytest.approx(0.5 / 3)
    assert (first["learning_rate"], first["num_train_epochs"], first["save_strategy"]) == (5e-6, 3, "epoch")
    assert json.loads((out / first["deepspeed"]).read_text()) == {"zero_optimization": {"stage": 3}}
    listed = json.loads((out / "dataset_info.json").read_text()) if trainer == "llamafactory" else {}
    assert {entry["file_name"] for entry in listed.values()} == ({"stage1.jsonl", "stage2.jsonl"} if listed else set())


@pytest.mark.parametrize(
    ("trainer", "more", "message"),
    [
        (
            "llamafactory",
            {"sftkey_segment_weights": {"answer": 3.0}},
            "sftkey_segment_weights: LLaMA-Factory 0.9.5 trains",
        ),
        (
            "llamafactory",
            {"sftkey_segment_schedule": {"answer": 3.0}},
            "sftkey_segment_schedule: LLaMA-Factory can't do",
        ),
        ("ms-swift", {"sftkey_segment_schedule": {"answer": 3.0}}, "sftkey_segment_schedule: ms-swift can't do that"),
        ("ms-swift", {"sftkey_objective": "dft"}, "sftkey_objective: ms-swift can't do that"),
        (
            "ms-swift",
            {"sftkey_context_grad": False, "sample_packing": None, "deepspeed": None},
            "sftkey_context_grad: ms-swift can't do that",
        ),
        ("ms-swift", {"sftkey_tags": "tokens"}, "sftkey_tags: tokens: ms-swift adds tokens as special ones only"),
        ("ms-swift", {"datasets": [{"path": "rows.jsonl", "type": "my_lab.rows"}]}, "give --trust-remote-code"),
    ],
)
def test_what_would_train_something_else_is_refused(
    place: Path, tmp_path: Path, trainer: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(recipes(place, tmp_path, **more), TRAINERS[trainer], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_model_that_can_not_be_loaded_is_one_line(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    recipe = recipes(place, tmp_path, "sft-tag", base_model=str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"empty: its tokenizer can't be loaded \(.+\)") as refused:
        export(recipe, TRAINERS["ms-swift"], tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_weights_between_segments_are_loss_scales(place: Path, tmp_path: Path) -> None:
    recipe = recipes(place, tmp_path, sftkey_segment_weights={"answer": 3.0, "format": 0.5})
    export(recipe, TRAINERS["ms-swift"], tmp_path / "out")
    assert yaml.safe_load((tmp_path / "out" / "stage2.yaml").read_text())["is_binary_loss_scale"] is False
    row = json.loads((tmp_path / "out" / "stage2.jsonl").read_text().splitlines()[0])
    scales = [(one["content"], one["loss_scale"]) for one in row["messages"] if one.get("loss_scale", 0) > 0]
    assert [text for text, _ in scales] == ["<Answer>", "4", "</Answer>", "<|im_end|>"]
    assert np.array_equal(np.float32([scale for _, scale in scales]), np.float32([0.5, 3.0, 0.5, 0.5]))


OWN = {"thinking_open": "<t>", "thinking_close": "</t>", "answer_open": "<a>", "answer_close": "</a>"}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    "more",
    [
        {"sftkey_format": "think"},
        {"sftkey_format": OWN},
        {"chat_template": "tokenizer_default"},
        {"chat_template": "jinja", "chat_template_jinja": "{{ messages[0].content }}"},
    ],
    ids=str,
)
def test_a_template_of_the_models_own_is_refused(
    place: Path, tmp_path: Path, trainer: str, more: dict[str, Any]
) -> None:
    for method in ("sft-tag", "sft"):
        with pytest.raises(
            UserError, match=f"sftkey_format, chat_template: {TRAINERS[trainer].NAME} can't do"
        ) as found:
            export(recipes(place, tmp_path, method, **more), TRAINERS[trainer], tmp_path / "out")
        assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("turns", ["last", "all"])
@pytest.mark.parametrize("method", ["sft-tag", "key-tag"])
def test_conversations_are_exported_with_their_history(place: Path, tmp_path: Path, turns: str, method: str) -> None:
    from transformers import AutoTokenizer

    @settings(max_examples=5, deadline=None, database=None)
    @given(st.lists(chats(), min_size=1, max_size=4), st.randoms(use_true_random=False))
    def check(rows: list[dict[str, Any]], random: Any) -> None:
        rows.append({"messages": [{"role": "user", "content": "Is it?"}, ANSWER]})  # one that any template takes
        random.shuffle(rows)
        (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        entry = {"path": str(tmp_path / "chats.jsonl"), "type": "sftkey.datasets.messages"}
        recipe = recipes(place, tmp_path, method, datasets=[entry], sftkey_turns=turns, sftkey_other_data=True)
        if method == "key-tag":
            recipes(place, tmp_path, "sft-tag", datasets=[entry], sftkey_turns=turns)
            (tmp_path / "only.yml").replace(tmp_path / "stage1.yml")
        tokenizer = AutoTokenizer.from_pretrained(place / "model")
        set_up_tokenizer(tokenizer, TAGGED, None, tags_as_tokens=False)
        expected = [one for row in rows for one in trained_turns(tokenizer, row, turns, method)]
        export(recipe, TRAINERS["llamafactory"], tmp_path / "out")
        lines = (tmp_path / "out" / f"{recipe.stem}.jsonl").read_text("utf-8").splitlines()
        assert [as_llamafactory(tokenizer, json.loads(line)) for line in lines] == expected
        alone = all(len(row["messages"]) == 2 for row in rows if trained_turns(tokenizer, row, turns, method))
        if not alone:
            with pytest.raises(UserError, match="ms-swift can't train one turn of a conversation") as refused:
                export(recipe, TRAINERS["ms-swift"], tmp_path / "swift")
            assert "\n" not in str(refused.value)
            return
        export(recipe, TRAINERS["ms-swift"], tmp_path / "swift")
        lines = (tmp_path / "swift" / f"{recipe.stem}.jsonl").read_text("utf-8").splitlines()
        assert [as_ms_swift(tokenizer, json.loads(line)) for line in lines] == expected

    check()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=8))
def test_no_two_pieces_are_joined_and_none_changes_its_side(pieces: list[tuple[str, float]]) -> None:
    row = ExportedRow("q", "prompt", tuple(Piece(*piece) for piece in pieces))
    turns = TRAINERS["llamafactory"].row(row, None)["conversations"]
    spoken = [(turn["value"], float(turn["from"] == "gpt")) for turn in turns if turn["value"]]
    assert spoken == [("prompt", 0.0), *pieces]
    messages = TRAINERS["ms-swift"].row(row, None)["messages"]
    spoken = [one for one in messages if "loss" in one]
    scales = [float(one.get("loss_scale", one["loss"])) for one in spoken]
    assert [(one["content"], float(scale > 0)) for one, scale in zip(spoken, scales, strict=True)] == pieces
    assert all(one != other for one, other in pairwise([0.0, *scales]))
    assert np.isin(np.float32(scales), np.float32([0.0, -1e-9, 1.0])).all()
