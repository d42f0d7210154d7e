"""CommonsenseQA with human explanations: on rows in the published schema, and on all real rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sftkey.datasets.commonsenseqa import COMMONSENSEQA, FILLER_EXPLANATION, FILLERS, to_example
from sftkey.format.example import Example, SkippedRow
from sftkey.recipes.catalogue import shipped_recipe
from sftkey.recipes.writing import write_recipe


def make_row(**changes: Any) -> dict[str, Any]:
    row = {
        "id": "1",
        "question": "A revolving door is convenient for two direction travel, but it also serves as a what?",
        "choices": {"text": ["bank", "library", "mall", "new york"], "label": ["A", "B", "C", "D"]},
        "answerKey": "A",
        "explanation": " Banks have revolving doors for security. ",
    }
    return {**row, **changes}


QUESTION = make_row()["question"] + "\nA. bank\nB. library\nC. mall\nD. new york"


def test_the_explanation_is_the_thinking_and_the_right_line_is_the_answer() -> None:
    assert to_example(make_row()) == Example(QUESTION, "Banks have revolving doors for security.", "A. bank")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"explanation": ""}, "empty thinking"),
        ({"explanation": None}, "missing field: explanation"),
        ({"explanation": " rivers flow trough valleys"}, FILLER_EXPLANATION),
        ({"question": " "}, "empty question"),
        ({"answerKey": ""}, "no answer"),
        ({"answerKey": "E"}, "answer key is none of the choices"),
        ({"choices": {"text": ["a"], "label": ["A"]}}, "malformed choices"),
    ],
)
def test_unusable_rows_are_skipped_by_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SkippedRow) as skipped:
        to_example(make_row(**changes))
    assert skipped.value.reason == reason


def test_published_rows_can_be_evaluated_and_training_says_where_explanations_are() -> None:
    published = make_row()
    del published["explanation"]
    assert (COMMONSENSEQA.question_of(published), COMMONSENSEQA.reference_of(published)) == (QUESTION, "A. bank")
    with pytest.raises(KeyError, match=r"no column 'explanation' .* join those of CoS-E 1\.11 by id and set path:"):
        to_example(published)


def test_the_untagged_form() -> None:
    text = "".join(piece.text for piece in COMMONSENSEQA.untagged.render("Banks are safe.", "A. bank"))
    assert text == "Banks are safe.\nThe answer is A. bank"


def test_a_recipe_says_which_file_it_needs() -> None:
    written = write_recipe(shipped_recipe("qwen3_8b_stage1"), dataset_name="commonsenseqa")
    assert written.config["datasets"][0]["type"] == "sftkey.datasets.commonsenseqa"
    assert written.config["sequence_len"] == 1024
    assert COMMONSENSEQA.note in written.notes


@pytest.mark.parametrize(("split", "count", "fillers"), [("train", 9_741, 1_082), ("validation", 1_221, 242)])
def test_every_real_row_is_an_example_or_has_a_filler(split: str, count: int, fillers: int, shared_dir: Path) -> None:
    lines = (shared_dir / f"data/commonsenseqa/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    skipped: Counter[str] = Counter()
    for row in rows:
        letters = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
        assert list(letters) == ["A", "B", "C", "D", "E"]
        answer = f"{row['answerKey']}. {letters[row['answerKey']].strip()}"
        assert COMMONSENSEQA.reference_of(row) == answer
        assert answer in COMMONSENSEQA.question_of(row).splitlines()
        try:
            assert to_example(row) == Example(COMMONSENSEQA.question_of(row), row["explanation"].strip(), answer)
        except SkippedRow as reason:
            skipped[reason.reason] += 1
            # Told by eye, not by the key that the module compares.
            assert any(row["explanation"].strip(" .").lower() == filler.strip(".").lower() for filler in FILLERS)
    assert len(rows) == count
    assert skipped == {FILLER_EXPLANATION: fillers}
