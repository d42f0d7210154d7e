"""Tables, long texts, unprintable characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sftkey.util.text import shorten, table, visible


def test_a_table() -> None:
    rows = [("STAGE", "STEPS", "LOSS", "NOTE", "EMPTY"), ("stage1", 1234, 0.25, "3 x", ""), ("s", None, 10.0, "no", "")]
    assert table(rows).splitlines() == [
        "STAGE   STEPS     LOSS  NOTE  EMPTY",
        "stage1  1,234   0.2500  3 x",
        "s           -  10.0000  no",
    ]
    assert table([("A", "B")]) == "A  B"


def test_figures_in_text_stand_to_the_right() -> None:
    assert table([("", "acc"), ("a", "0.5 -> 0.25"), ("b", "nan -> 1"), ("c", "5%")]).splitlines() == [
        "           acc",
        "a  0.5 -> 0.25",
        "b     nan -> 1",
        "c           5%",
    ]
    assert table([("X", "NAME"), ("a", "nancy"), ("b", "1")]).splitlines()[2] == "b  1"


@given(st.text())
def test_visible_text_has_no_control_characters(text: str) -> None:
    shown = visible(text)
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    if text.isprintable():
        assert shown == text


@given(st.text(max_size=200), st.integers(1, 60))
def test_a_long_text_is_bounded_and_keeps_both_ends(text: str, shown: int) -> None:
    short = shorten(text, shown, "not shown")
    if len(text) <= shown:
        assert short == text
    else:
        head, note, tail = short.partition(f"\n[... {len(text) - shown:,} characters not shown ...]\n")
        assert note
        assert len(head) + len(tail) == shown
        assert text.startswith(head)
        assert text.endswith(tail)
