"""The user's own rows, under any column names."""

from __future__ import annotations

from typing import Any

import pytest
from sftkey.datasets.columns import to_example, with_columns
from sftkey.format.example import Example, SkippedRow

ROW = {"question": " Q?\n", "thinking": " T <b>\n", "answer": "A"}


def test_text_is_kept_verbatim() -> None:
    assert to_example(ROW) == Example(" Q?\n", " T <b>\n", "A")


def test_columns_can_be_renamed_one_by_one() -> None:
    dataset = with_columns({"thinking": "cot"})
    assert dataset.to_example({"question": "Q?", "cot": "T", "answer": 7}) == Example("Q?", "T", "7")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="sftkey_columns: reasoning unknown; its keys are question, thinking, answer"):
        with_columns({"reasoning": "cot"})


def test_a_missing_column_names_those_there_are() -> None:
    with pytest.raises(KeyError, match="no column 'cot' in the data; it has: answer, question, thinking"):
        with_columns({"thinking": "cot"}).to_example(ROW)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"thinking": ""}, "empty thinking"),
        ({"answer": " "}, "no answer"),
        ({"question": "\n"}, "empty question"),
        ({"answer": None}, "missing field: answer"),
        ({"answer": float("nan")}, "missing field: answer"),
        ({"answer": True}, "not text: answer"),
        ({"thinking": ["T"]}, "not text: thinking"),
    ],
)
def test_unusable_rows_are_skipped_by_reason(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(SkippedRow) as skipped:
        to_example({**ROW, **changes})
    assert skipped.value.reason == expected
