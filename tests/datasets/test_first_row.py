"""The first row of data that none can be used of, for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.first_row import first_row


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"q": 1, "a": None}, "its first row has the columns q, a"),
        (
            {"id": 1, "chat": [{"role": "asker", "text": "x", "cot": None}, {"role": "bot", "text": "y", "cot": "z"}]},
            "its first row has the columns id, chat; chat has the roles asker, bot and the keys role, text, cot",
        ),
        ({"chat": [{"value": "x"}]}, "its first row has the columns chat; chat has the keys value"),
        (
            {f"c{i}": 0 for i in range(20)},
            "its first row has the columns " + ", ".join(f"c{i}" for i in range(12)) + ", ...",
        ),
        ({"\x1b[31m" + "x" * 100: 0}, "its first row has the columns \\x1b[31m" + "x" * 32),
    ],
)
def test_columns_roles_and_keys_are_named(row: dict[str, Any], expected: str) -> None:
    assert first_row([row, {"other": 1}]) == expected


def test_no_row() -> None:
    assert first_row([]) == "it holds no row"


_json = st.recursive(
    st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=20
)


@given(st.dictionaries(st.text(), _json))
def test_any_row_is_one_bounded_line(row: dict[str, Any]) -> None:
    text = first_row([row])
    assert len(text) < 20_000
    assert "\x1b" not in text
