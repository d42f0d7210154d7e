"""The tag format: render, parse, match. Nothing else in the package knows what a tag looks like.

The paper's format is ``<Thinking>{thinking}</Thinking><Answer>{answer}</Answer>`` (Eq. 2, appendix D).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from sftkey.format.segments import Piece, Segment

THINKING_OPEN = "<Thinking>"
THINKING_CLOSE = "</Thinking>"
ANSWER_OPEN = "<Answer>"
ANSWER_CLOSE = "</Answer>"

TAGS = (THINKING_OPEN, THINKING_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
"""The four tags, in the order in which a well-formed response has them."""

_ANY_TAG = re.compile("|".join(re.escape(tag) for tag in TAGS))
# The token limit may cut the tag itself; from two characters on, for "<" alone may be part of an answer.
_CUT_OFF_CLOSE = re.compile(
    "(?:" + "|".join(re.escape(ANSWER_CLOSE[:length]) for length in range(2, len(ANSWER_CLOSE))) + r")\Z"
)


class FormatFailure(StrEnum):
    """Why an output is not in the expected format. One kind per output: the first that applies, in this order."""

    REPEATED = "repeated or nested blocks"
    NO_THINKING = "no thinking"
    THINKING_CUT_OFF = "thinking cut off"
    WRONG_ORDER = "wrong order"
    EMPTY_THINKING = "empty thinking"
    NO_ANSWER = "no answer"
    ANSWER_CUT_OFF = "answer cut off"
    EMPTY_ANSWER = "empty answer"
    TEXT_OUTSIDE = "text outside"


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """What `parse` found in an output.

    Attributes:
        failure: ``None`` when the output is in the expected format (Fmt = 1), else why not.
        thinking: The text of the Thinking block, verbatim; ``None`` when the format failed.
        answer: The text of the Answer block, verbatim; ``None`` when the format failed.
    """

    failure: FormatFailure | None
    thinking: str | None = None
    answer: str | None = None

    @property
    def well_formed(self) -> bool:
        """Whether the output counts towards Fmt (appendix D)."""
        return self.failure is None


@dataclass(frozen=True, slots=True)
class AnswerBlock:
    """The Answer block of an output that may be otherwise malformed.

    Attributes:
        text: What stands in the block, verbatim.
        closed: Whether ``</Answer>`` ends it; ``False`` where the output was cut off.
    """

    text: str
    closed: bool


def contains_tag(text: str) -> bool:
    """Whether any of the four tags stands literally in ``text``."""
    return _ANY_TAG.search(text) is not None


def render(thinking: str, answer: str) -> tuple[Piece, ...]:
    """Write a response in the tag format (Eq. 2), piece by piece.

    Args:
        thinking: Reasoning text; inserted verbatim.
        answer: Answer text; inserted verbatim.

    Returns:
        Six pieces whose texts concatenate to the response, without the end of the turn.
    """
    return (
        Piece(Segment.THINKING_OPEN, THINKING_OPEN),
        Piece(Segment.THINKING, thinking),
        Piece(Segment.THINKING_CLOSE, THINKING_CLOSE),
        Piece(Segment.ANSWER_OPEN, ANSWER_OPEN),
        Piece(Segment.ANSWER, answer),
        Piece(Segment.ANSWER_CLOSE, ANSWER_CLOSE),
    )


def parse(text: str) -> ParsedResponse:
    """Match an output against the expected format (Fmt, appendix D).

    Well-formed is exactly one Thinking block followed by exactly one Answer block, both with more than
    whitespace in them, and nothing but whitespace before, between and after. One pass, linear in ``len(text)``.

    Args:
        text: The model's output, of any length and content.

    Returns:
        The two texts, or the kind of failure.
    """
    found: dict[str, re.Match[str]] = {}
    for match in _ANY_TAG.finditer(text):
        if match.group() in found:
            return ParsedResponse(FormatFailure.REPEATED)
        found[match.group()] = match
    failure = _failure(text, *(found.get(tag) for tag in TAGS))
    if failure is not None:
        return ParsedResponse(failure)
    thinking_open, thinking_close, answer_open, answer_close = (found[tag] for tag in TAGS)
    return ParsedResponse(
        None,
        thinking=text[thinking_open.end() : thinking_close.start()],
        answer=text[answer_open.end() : answer_close.start()],
    )


def _failure(
    text: str,
    thinking_open: re.Match[str] | None,
    thinking_close: re.Match[str] | None,
    answer_open: re.Match[str] | None,
    answer_close: re.Match[str] | None,
) -> FormatFailure | None:
    if thinking_open and thinking_close and answer_open:  # noqa: SIM102
        if thinking_open.start() < answer_open.start() < thinking_close.start():
            return FormatFailure.REPEATED
    if thinking_open is None:
        return FormatFailure.NO_THINKING
    if thinking_close is None:
        return FormatFailure.THINKING_CUT_OFF
    if thinking_close.start() < thinking_open.start():
        return FormatFailure.WRONG_ORDER
    if answer_open and answer_open.start() < thinking_open.start():
        return FormatFailure.WRONG_ORDER
    if answer_close and answer_close.start() < (answer_open or thinking_close).start():
        return FormatFailure.WRONG_ORDER
    if not text[thinking_open.end() : thinking_close.start()].strip():
        return FormatFailure.EMPTY_THINKING
    if answer_open is None:
        return FormatFailure.NO_ANSWER
    if answer_close is None:
        return FormatFailure.ANSWER_CUT_OFF
    if not text[answer_open.end() : answer_close.start()].strip():
        return FormatFailure.EMPTY_ANSWER
    outside = (
        text[: thinking_open.start()],
        text[thinking_close.end() : answer_open.start()],
        text[answer_close.end() :],
    )
    if any(part.strip() for part in outside):
        return FormatFailure.TEXT_OUTSIDE
    return None


def find_answer_block(text: str) -> AnswerBlock | None:
    """Find the Answer block of any output, well-formed or not.

    The last ``<Answer>`` that opens a non-empty block counts: a model that corrects itself means its last word.
    Linear in ``len(text)``.

    Args:
        text: The model's output.

    Returns:
        The block, or ``None`` where no non-empty ``<Answer>`` was opened.
    """
    end, closed = len(text), False
    for match in reversed(list(_ANY_TAG.finditer(text))):
        if match.group() == ANSWER_OPEN:
            content = text[match.end() : end]
            if not closed:
                content = _CUT_OFF_CLOSE.sub("", content)
            if content.strip():
                return AnswerBlock(content, closed)
        end, closed = match.start(), match.group() == ANSWER_CLOSE
    return None


def has_thinking(text: str) -> bool:
    """Whether an output, well-formed or not, has a closed Thinking block with more than whitespace in it.

    ``False`` is what a model that has stopped thinking shows: its block is missing, empty or cut off. Linear in
    ``len(text)``.

    Args:
        text: The model's output.
    """
    opened: int | None = None
    for match in _ANY_TAG.finditer(text):
        if match.group() == THINKING_CLOSE and opened is not None and text[opened : match.start()].strip():
            return True
        opened = match.end() if match.group() == THINKING_OPEN else None
    return False


def after_thinking(text: str) -> str:
    """What stands after the last ``</Thinking>`` of an output, without tags; all of the output where there is none."""
    return without_tags(text.rpartition(THINKING_CLOSE)[2])


def without_tags(text: str) -> str:
    """An output with a line break in the place of each tag."""
    return _ANY_TAG.sub("\n", text)
