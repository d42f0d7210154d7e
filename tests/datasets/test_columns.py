"""The user's own rows, under any column names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.columns import columns_of, to_example, with_carried_columns, with_columns
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


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (18, "18"),
        (18.0, "18"),
        (-3.0, "-3"),
        (0.0, "0"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e3, "1000"),
        (2.50, "2.5"),
        (1e-5, "0.00001"),
        (1e20, "100000000000000000000"),
        (12345678901234567890, "12345678901234567890"),
        (6.02e23, "6.02e+23"),
        (Decimal("18.00"), "18"),
        (Decimal("0.30"), "0.3"),
        (Decimal("1E+2"), "100"),
        (10.0, "10"),
        (100, "100"),
    ],
)
def test_a_number_is_written_as_people_write_it(number: Any, text: str) -> None:
    assert to_example({**ROW, "answer": number}).answer == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value(number: float) -> None:
    text = to_example({**ROW, "answer": number}).answer
    assert float(text) == number
    assert number != int(number) or "." not in text or "e" in text


def test_an_entry_has_its_own_columns() -> None:
    carried = with_carried_columns({"path": "rows.jsonl", "sftkey_columns": {"thinking": "cot"}})
    assert carried == {"path": "rows.jsonl", "message_property_mappings": {"thinking": "cot"}}
    # Axolotl's validation adds the two keys of messages.
    validated = {"message_property_mappings": {"thinking": "cot", "role": "role", "content": "content"}}
    assert columns_of(validated) == columns_of({"sftkey_columns": {"thinking": "cot"}}) == {"thinking": "cot"}
    assert columns_of({"path": "rows.jsonl"}) == {}
