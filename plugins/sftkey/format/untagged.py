"""A data set's own form in place of tags: write a response, match an output (the ``_plain`` tasks)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.response_format import FormatFailure, ParsedResponse
from sftkey.format.segments import Piece, Segment


@dataclass(frozen=True, slots=True)
class UntaggedForm:
    """A data set's own form of a response, without tags.

    Attributes:
        between: The text between the reasoning and the answer.
        after: The text after the answer.
        before: The text before the reasoning.
    """

    between: str
    after: str = ""
    before: str = ""

    def render(self, thinking: str, answer: str) -> tuple[Piece, ...]:
        """Write a response, piece by piece, without the end of the turn."""
        pieces = (
            Piece(Segment.THINKING_OPEN, self.before),
            Piece(Segment.THINKING, thinking),
            Piece(Segment.ANSWER_OPEN, self.between),
            Piece(Segment.ANSWER, answer),
            Piece(Segment.ANSWER_CLOSE, self.after),
        )
        return tuple(piece for piece in pieces if piece.text or piece.segment in (Segment.THINKING, Segment.ANSWER))


def parse(output: str, form: UntaggedForm, *, one_line: bool = True) -> ParsedResponse:
    r"""Match an output against a data set's untagged form.

    Well-formed is: reasoning, what the form has between, an answer, what the form has after it, and nothing else. Both
    texts have more than white space in them; white space may stand around each part. A tag is text outside. Linear in
    ``len(output)``.

    Args:
        output: The model's output, of any length and content.
        form: The data set's form, ``\n#### `` between reasoning and answer in GSM8K.
        one_line: Whether a line break after the answer begins text outside, where the form ends with the answer;
            ``False`` where the reference itself has several lines.
    """
    before, end = form.before.strip(), form.after.strip()
    if THINKING_ANSWER.contains_tag(output):
        return ParsedResponse(FormatFailure.TEXT_OUTSIDE)
    output = output.strip()
    if before and not output.startswith(before):
        return ParsedResponse(FormatFailure.NO_THINKING)
    output = output.removeprefix(before)
    marker = re.compile((r"(?m)^[^\S\n]*" if form.between.startswith("\n") else "") + re.escape(form.between.strip()))
    found = marker.search(output)
    if found is None:
        return ParsedResponse(FormatFailure.NO_ANSWER if output else FormatFailure.NO_THINKING)
    if marker.search(output, found.end()):
        return ParsedResponse(FormatFailure.REPEATED)
    thinking, answer = output[: found.start()], output[found.end() :].strip()
    if not thinking.strip():
        return ParsedResponse(FormatFailure.NO_THINKING)
    if not answer:
        return ParsedResponse(FormatFailure.EMPTY_ANSWER)
    if end:
        if end not in answer:
            return ParsedResponse(FormatFailure.ANSWER_CUT_OFF)
        if not answer.endswith(end):
            return ParsedResponse(FormatFailure.TEXT_OUTSIDE)
        answer = answer.removesuffix(end)
        if not answer.strip():
            return ParsedResponse(FormatFailure.EMPTY_ANSWER)
    elif one_line and "\n" in answer:
        return ParsedResponse(FormatFailure.TEXT_OUTSIDE)
    return ParsedResponse(None, thinking=thinking, answer=answer)


def has_thinking(output: str, form: UntaggedForm) -> bool:
    """Whether an output, well-formed or not, has reasoning before an answer in the untagged form."""
    thinking, found, _ = output.removeprefix(form.before).partition(form.between.strip())
    return bool(found) and bool(thinking.strip())
