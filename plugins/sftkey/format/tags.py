"""The tag format ``<Thinking>{thinking}</Thinking><Answer>{answer}</Answer>`` (Eq. 2, appendix D), written only here."""

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
    "(?:" + "|".join(re.escape(ANSWER_CLOSE[:length]) for length in range(2, len(ANSWER_CLOSE))) + r")\Z", re.IGNORECASE
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
    """An output matched against the expected format.

    Attributes:
        failure: ``None`` when the output is in the expected format (Fmt = 1), else why not.
        thinking: The thinking, verbatim; ``None`` when the format failed.
        answer: The answer, verbatim; ``None`` when the format failed.
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
    """The verbatim text of an Answer block, and whether ``</Answer>`` closes it; a cut-off output doesn't."""

    text: str
    closed: bool


def contains_tag(text: str) -> bool:
    """Whether any of the four tags stands literally in ``text``."""
    return _ANY_TAG.search(text) is not None


def render(thinking: str, answer: str) -> tuple[Piece, ...]:
    """Write a response in the tag format (Eq. 2): six pieces, both texts verbatim, without the end of the turn."""
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
    """
    found: dict[str, re.Match[str]] = {}
    for match in _ANY_TAG.finditer(text):
        if match.group() in found:
            return ParsedResponse(FormatFailure.REPEATED)
        found[match.group()] = match
    thinking_open, thinking_close, answer_open, answer_close = (found.get(tag) for tag in TAGS)
    if thinking_open is None:
        return ParsedResponse(FormatFailure.NO_THINKING)
    if thinking_close is None:
        return ParsedResponse(FormatFailure.THINKING_CUT_OFF)
    if answer_open and thinking_open.start() < answer_open.start() < thinking_close.start():
        return ParsedResponse(FormatFailure.REPEATED)
    if (
        thinking_close.start() < thinking_open.start()
        or (answer_open and answer_open.start() < thinking_open.start())
        or (answer_close and answer_close.start() < (answer_open or thinking_close).start())
    ):
        return ParsedResponse(FormatFailure.WRONG_ORDER)
    thinking = text[thinking_open.end() : thinking_close.start()]
    if not thinking.strip():
        return ParsedResponse(FormatFailure.EMPTY_THINKING)
    if answer_open is None:
        return ParsedResponse(FormatFailure.NO_ANSWER)
    if answer_close is None:
        return ParsedResponse(FormatFailure.ANSWER_CUT_OFF)
    answer = text[answer_open.end() : answer_close.start()]
    if not answer.strip():
        return ParsedResponse(FormatFailure.EMPTY_ANSWER)
    between = text[thinking_close.end() : answer_open.start()]
    if any(part.strip() for part in (text[: thinking_open.start()], between, text[answer_close.end() :])):
        return ParsedResponse(FormatFailure.TEXT_OUTSIDE)
    return ParsedResponse(None, thinking, answer)


def find_answer_block(text: str) -> AnswerBlock | None:
    """Find the Answer block of any output, well-formed or not.

    The last ``<Answer>`` that opens a non-empty block counts: a model that corrects itself means its last word.
    ``None`` where there is none. Linear in ``len(text)``.
    """
    end, closed = len(text), False
    for match in reversed(list(_ANY_TAG.finditer(text))):
        if match.group() == ANSWER_OPEN:
            content = text[match.end() : end]
            if not closed:
                content = cut_off_close(content)
            if content.strip():
                return AnswerBlock(content, closed)
        end, closed = match.start(), match.group() == ANSWER_CLOSE
    return None


def cut_off_close(text: str) -> str:
    """The text of an unclosed Answer block without the first characters of its closing tag."""
    return _CUT_OFF_CLOSE.sub("", text)


def has_thinking(text: str) -> bool:
    """Whether an output, well-formed or not, has a closed Thinking block with more than whitespace. Linear time."""
    opened: int | None = None
    for match in _ANY_TAG.finditer(text):
        if match.group() == THINKING_CLOSE and opened is not None and text[opened : match.start()].strip():
            return True
        opened = match.end() if match.group() == THINKING_OPEN else None
    return False


def after_thinking(text: str) -> str:
    """The text after the last ``</Thinking>``, without tags; all of it where there is none."""
    return without_tags(text.rpartition(THINKING_CLOSE)[2])


def without_tags(text: str) -> str:
    """An output with a line break in the place of each tag."""
    return _ANY_TAG.sub("\n", text)
