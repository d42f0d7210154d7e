"""The untagged form: its pieces and what they join to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
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
