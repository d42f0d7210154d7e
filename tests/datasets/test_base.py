"""The untagged form: its pieces and what they join to; how a data set is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets import columns
from sftkey.datasets.base import AnswerKind, ReasoningDataset, required_text
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.loading import entry_rows
from sftkey.format.segments import Segment
from sftkey.format.untagged import UntaggedForm


def test_pieces_have_the_segments_of_a_tagged_response() -> None:
    form = UntaggedForm(before="(", between=") = ", after=".")
    assert form.render("1+1", "2") == (
        (Segment.THINKING_OPEN, "("),
        (Segment.THINKING, "1+1"),
        (Segment.ANSWER_OPEN, ") = "),
        (Segment.ANSWER, "2"),
        (Segment.ANSWER_CLOSE, "."),
    )


def test_empty_surroundings_make_no_pieces() -> None:
    assert [piece.segment for piece in UntaggedForm(between="").render("a", "b")] == [Segment.THINKING, Segment.ANSWER]


@given(st.text(), st.text(), st.text(), st.text(), st.text())
def test_pieces_join_to_the_text(before: str, thinking: str, between: str, answer: str, after: str) -> None:
    pieces = UntaggedForm(before=before, between=between, after=after).render(thinking, answer)
    assert "".join(piece.text for piece in pieces) == before + thinking + between + answer + after


ROW = {"question": "3 + 4?", "thinking": "I add.", "answer": "7"}


def test_question_and_reference_follow_from_the_example_where_no_function_says_them() -> None:
    own = ReasoningDataset("own", None, columns.to_example, UntaggedForm(between="="))
    assert (own.question_of(ROW), own.reference_of(ROW)) == ("3 + 4?", "7")
    named = replace(own, question=lambda row: "Q", reference=lambda row: "R")
    assert (named.question_of(ROW), named.reference_of(ROW)) == ("Q", "R")


def test_own_rows_with_renamed_columns_are_asked_by_them() -> None:
    own = columns.with_columns({"question": "prompt"})
    assert own.question_of({"prompt": "3 + 4?", "thinking": "I add.", "answer": "7"}) == "3 + 4?"


def test_the_kind_of_own_rows_can_be_said_and_that_of_published_ones_is_known() -> None:
    assert columns.ROWS.with_kind(None) is columns.ROWS
    assert columns.ROWS.with_kind(AnswerKind.NUMBER) == replace(columns.ROWS, kind=AnswerKind.NUMBER)
    with pytest.raises(ValueError, match="own rows have no options; their answers are number, maths or text"):
        columns.ROWS.with_kind(AnswerKind.OPTION)
    assert GSM8K.with_kind(AnswerKind.NUMBER) is GSM8K
    with pytest.raises(ValueError, match="the answers of gsm8k are of the kind number"):
        GSM8K.with_kind(AnswerKind.TEXT)


@pytest.mark.parametrize("text", ["2024-01-31", "1999-12-31T23:59:00", "today"])
def test_a_date_that_arrow_read_is_the_text_that_was_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"answer": text}) + "\n")
    (row,) = entry_rows({"path": str(tmp_path / "rows.jsonl")}, "datasets[0]")
    assert isinstance(row["answer"], datetime) == (text != "today")
    assert required_text(row, "answer") == text
