"""OpenBookQA: on rows in the published schema of both configs, and on the real rows of ``main``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sftkey.datasets import openbookqa
from sftkey.datasets.openbookqa import OPENBOOKQA, to_example
from sftkey.format.example import Example, SkippedRow


def make_row(**changes: Any) -> dict[str, Any]:
    row = {
        "id": "9-1185",
        "question_stem": "A plant in a dark room will",
        "choices": {"text": ["grow fast", "turn pale", "bloom", "sing"], "label": ["A", "B", "C", "D"]},
        "answerKey": "B",
        "fact1": "plants need light to make chlorophyll",
        "humanScore": 1.0,
        "clarity": 2.0,
        "turkIdAnonymized": "b356d338b7",
    }
    return {**row, **changes}


QUESTION = "A plant in a dark room will\nA. grow fast\nB. turn pale\nC. bloom\nD. sing"


def reason(row: dict[str, Any]) -> str:
    with pytest.raises(SkippedRow) as skipped:
        to_example(row)
    return skipped.value.reason


def test_fact_is_the_thinking_and_the_right_line_is_the_answer() -> None:
    assert to_example(make_row()) == Example(QUESTION, "plants need light to make chlorophyll", "B. turn pale")


def test_config_main_lacks_the_fact_and_the_error_says_which_config_has_it() -> None:
    row = make_row()
    del row["fact1"]
    with pytest.raises(KeyError, match=r"fact1.*name: additional"):
        to_example(row)
    assert OPENBOOKQA.config == "additional"


def test_question_and_reference_need_no_fact() -> None:
    row = make_row()
    del row["fact1"]
    assert (openbookqa.question(row), openbookqa.reference(row)) == (QUESTION, "B. turn pale")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fact1": ""}, "empty thinking"),
        ({"fact1": "  "}, "empty thinking"),
        ({"fact1": None}, "missing field: fact1"),
        ({"fact1": ["a fact"]}, "not text: fact1"),
        ({"question_stem": " "}, "empty question"),
        ({"question_stem": ["A", "plant"]}, "not text: question_stem"),
        ({"answerKey": ""}, "no answer"),
        ({"answerKey": None}, "missing field: answerKey"),
        ({"answerKey": "E"}, "answer key is none of the choices"),
        ({"answerKey": "b"}, "answer key is none of the choices"),
        ({"choices": None}, "missing field: choices"),
        ({"choices": ["grow fast", "turn pale"]}, "malformed choices"),
        ({"choices": {"text": ["a", "b", "c"], "label": ["A", "B"]}}, "malformed choices"),
        ({"choices": {"text": ["a", "b"], "label": ["A", "A"]}}, "malformed choices"),
        ({"choices": {"text": ["a", ""], "label": ["A", "B"]}}, "malformed choices"),
        ({"choices": {"text": ["a", None], "label": ["A", "B"]}}, "malformed choices"),
        ({"choices": {"text": "ab", "label": "AB"}}, "malformed choices"),
        ({"choices": {"text": [], "label": []}}, "malformed choices"),
        ({"choices": {}}, "malformed choices"),
    ],
)
def test_unusable_rows_are_skipped_by_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(make_row(**changes)) == expected


def test_equal_texts_are_told_apart_by_their_letters() -> None:
    row = make_row(choices={"text": ["wind", "wind"], "label": ["A", "B"]})
    assert to_example(row).answer == "B. wind"


def test_the_untagged_form() -> None:
    text = "".join(piece.text for piece in OPENBOOKQA.untagged.render("plants need light", "B. turn pale"))
    assert text == "plants need light\nThe answer is B. turn pale"


@pytest.mark.parametrize(("split", "count"), [("train", 4957), ("test", 500)])
def test_every_real_row_has_a_question_and_a_reference(split: str, count: int, shared_dir: Path) -> None:
    lines = (shared_dir / "data/openbookqa" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == count
    for row in rows:
        asked, reference = openbookqa.question(row), openbookqa.reference(row)
        # Read back from the text alone: the answer is the one line of the question with the key's letter.
        lettered = dict(re.findall(r"^([A-D])\. (.+)$", asked, flags=re.MULTILINE))
        assert list(lettered) == ["A", "B", "C", "D"]
        assert reference == f"{row['answerKey']}. {lettered[row['answerKey']]}"
        assert asked.startswith(row["question_stem"])
        example = to_example({**row, "fact1": "a fact"})
        assert (example.question, example.answer) == (asked, reference)
