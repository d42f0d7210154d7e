"""CoT-Collection: on rows in the published schema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets import cot_collection
from sftkey.datasets.cot_collection import COT_COLLECTION, HELD_OUT_SHARE, to_example
from sftkey.datasets.holdout import is_held_out
from sftkey.format.example import Example, SkippedRow


def make_row(**changes: Any) -> dict[str, Any]:
    row = {
        "source": "Premise: All birds lay eggs.\nHypothesis: A wren lays eggs.\nIs it entailed? Yes or no.",
        "target": "Yes",
        "rationale": "A wren is a bird, and all birds lay eggs.",
        "task": "nli",
        "type": "CoT",
    }
    return {**row, **changes}


def reason(row: dict[str, Any]) -> str:
    with pytest.raises(SkippedRow) as skipped:
        to_example(row)
    return skipped.value.reason


def test_rationale_is_the_thinking_and_target_the_answer() -> None:
    row = make_row(rationale=" A wren is a bird.\n", target=" Yes\n")
    assert to_example(row) == Example(make_row()["source"], "A wren is a bird.", "Yes")


def test_text_with_angle_brackets_is_kept_verbatim() -> None:
    row = make_row(rationale="If a<b and b<c then <a> < c, as in <html>.", target="a < c")
    assert to_example(row) == Example(row["source"], row["rationale"], row["target"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rationale": ""}, "empty thinking"),
        ({"rationale": "\n\t "}, "empty thinking"),
        ({"rationale": None}, "missing field: rationale"),
        ({"rationale": ["A wren", "is a bird"]}, "not text: rationale"),
        ({"source": ""}, "empty question"),
        ({"source": None}, "missing field: source"),
        ({"target": ["Yes", "No"]}, "not text: target"),
        ({"target": ""}, "no answer"),
        ({"target": True}, "not text: target"),
    ],
)
def test_unusable_rows_are_skipped_by_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(make_row(**changes)) == expected


def test_a_number_is_its_text() -> None:
    assert to_example(make_row(target=7)).answer == "7"


def test_a_missing_column_is_an_error_of_the_recipe() -> None:
    row = make_row()
    del row["rationale"]
    with pytest.raises(KeyError, match=r"no column 'rationale'.*source, target, task, type"):
        to_example(row)


def test_question_and_reference_need_no_rationale() -> None:
    row = {"source": " Which? ", "target": " that "}
    assert (cot_collection.question(row), cot_collection.reference(row)) == ("Which?", "that")


def test_where_it_is_published() -> None:
    found = (COT_COLLECTION.path, COT_COLLECTION.config, COT_COLLECTION.revision, COT_COLLECTION.test_split)
    assert found == ("kaist-ai/CoT-Collection", "en", "refs/convert/parquet", None)


def test_the_held_out_part() -> None:
    sources = [f"Count to {number}." for number in range(40_000)]
    held_out = [source for source in sources if COT_COLLECTION.held_out(make_row(source=source))]
    assert held_out == [source for source in sources if is_held_out(source, HELD_OUT_SHARE)]
    # 20 expected, standard deviation 4.5.
    assert 2 <= len(held_out) <= 45
    assert COT_COLLECTION.held_out(make_row(source=None)) is False


def test_rows_with_the_same_source_share_their_fate() -> None:
    held_out = next(f"Count to {n}." for n in range(10**6) if is_held_out(f"Count to {n}.", HELD_OUT_SHARE))
    assert COT_COLLECTION.held_out(make_row(source=held_out, rationale="One.", target="1"))
    assert COT_COLLECTION.held_out(make_row(source=f" {held_out}\n", rationale="Two.", target="2"))


def test_the_untagged_form() -> None:
    text = "".join(piece.text for piece in COT_COLLECTION.untagged.render("A wren is a bird.", "Yes"))
    assert text == "A wren is a bird.\n[ANSWER] Yes"


_cells = st.one_of(
    st.none(), st.booleans(), st.text(max_size=8), st.integers(), st.lists(st.text(max_size=3), max_size=2)
)


@given(st.fixed_dictionaries(dict.fromkeys(make_row(), _cells)))
def test_any_row_gives_an_example_or_a_reason(row: dict[str, Any]) -> None:
    try:
        example = to_example(row)
    except SkippedRow:
        return
    assert (cot_collection.question(row), cot_collection.reference(row)) == (example.question, example.answer)
