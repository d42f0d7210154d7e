"""How a response is written: what stands around the thinking and the answer. Write one, match an output against it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from sftkey.format.segments import Piece, Segment


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
    """The verbatim text of an Answer block, and whether a closing tag ends it; a cut-off output doesn't."""

    text: str
    closed: bool


@dataclass(frozen=True)
class ResponseFormat:
    """What stands before and after the thinking and the answer, as it is written: with its line breaks.

    A tag is such a text without the white space around it. An output is matched by its tags; white space may stand around
    each. Without `answer_open` the answer begins where the thinking ends, without `answer_close` it ends with the output.

    Attributes:
        name: As in ``sftkey_format``.
        thinking_open: Before the thinking.
        thinking_close: After it.
        answer_open: Before the answer; may be empty.
        answer_close: After it; may be empty.
    """

    name: str
    thinking_open: str
    thinking_close: str
    answer_open: str = ""
    answer_close: str = ""

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The tags that the format has, in the order in which a well-formed response has them."""
        return tuple(tag for tag in self._tags if tag)

    @cached_property
    def _tags(self) -> tuple[str, str, str, str]:
        written = (self.thinking_open, self.thinking_close, self.answer_open, self.answer_close)
        opening, closing, answer, end = (text.strip() for text in written)
        return opening, closing, answer, end

    @cached_property
    def _any_tag(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(tag) for tag in sorted(self.tags, key=len, reverse=True)))

    @cached_property
    def _cut_off_close(self) -> re.Pattern[str] | None:
        """The token limit may cut the tag itself; from two characters on, for "<" alone may be part of an answer."""
        close = self._tags[3]
        beginnings = "|".join(re.escape(close[:length]) for length in range(2, len(close)))
        return re.compile(rf"(?:{beginnings})\Z", re.IGNORECASE) if beginnings else None

    def contains_tag(self, text: str) -> bool:
        """Whether any of the tags stands literally in ``text``."""
        return self._any_tag.search(text) is not None

    def render(self, thinking: str, answer: str) -> tuple[Piece, ...]:
        """Write a response (Eq. 2), piece by piece: both texts verbatim, without the end of the turn."""
        pieces = (
            Piece(Segment.THINKING_OPEN, self.thinking_open),
            Piece(Segment.THINKING, thinking),
            Piece(Segment.THINKING_CLOSE, self.thinking_close),
            Piece(Segment.ANSWER_OPEN, self.answer_open),
            Piece(Segment.ANSWER, answer),
            Piece(Segment.ANSWER_CLOSE, self.answer_close),
        )
        return tuple(piece for piece in pieces if piece.text or piece.segment in (Segment.THINKING, Segment.ANSWER))

    def parse(self, text: str) -> ParsedResponse:
        """Match an output against the format (Fmt, appendix D).

        Well-formed is exactly one thinking followed by exactly one answer, both with more than white space in them, and
        nothing but white space before, between and after. One pass, linear in ``len(text)``.
        """
        found: dict[str, re.Match[str]] = {}
        for match in self._any_tag.finditer(text):
            if match.group() in found:
                return ParsedResponse(FormatFailure.REPEATED)
            found[match.group()] = match
        thinking_open, thinking_close, answer_open, answer_close = (found.get(tag) for tag in self._tags)
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
        if answer_open is None and self.answer_open:
            return ParsedResponse(FormatFailure.NO_ANSWER)
        if answer_close is None and self.answer_close:
            return ParsedResponse(FormatFailure.ANSWER_CUT_OFF)
        before = (answer_open or thinking_close).end()
        answer = text[before : answer_close.start() if answer_close else len(text)]
        if not answer.strip():
            return ParsedResponse(FormatFailure.EMPTY_ANSWER if answer_open else FormatFailure.NO_ANSWER)
        between = text[thinking_close.end() : before - len(answer_open.group())] if answer_open else ""
        after = text[answer_close.end() :] if answer_close else ""
        if any(part.strip() for part in (text[: thinking_open.start()], between, after)):
            return ParsedResponse(FormatFailure.TEXT_OUTSIDE)
        return ParsedResponse(None, self._verbatim(thinking), self._verbatim_answer(answer))

    def _verbatim(self, thinking: str) -> str:
        return thinking.removeprefix(_after(self.thinking_open)).removesuffix(_before(self.thinking_close))

    def _verbatim_answer(self, answer: str) -> str:
        return answer.removeprefix(_after(self.answer_open or self.thinking_close)).removesuffix(
            _before(self.answer_close)
        )

    def find_answer_block(self, text: str) -> AnswerBlock | None:
        """Find the Answer block of any output, well-formed or not.

        The last opening tag of a non-empty block counts: a model that corrects itself means its last word. ``None`` where
        there is none, and in a format without such a tag. Linear in ``len(text)``.
        """
        end, closed = len(text), False
        _, _, answer_open, answer_close = self._tags
        for match in reversed(list(self._any_tag.finditer(text))):
            if match.group() == answer_open:
                content = text[match.end() : end]
                if not closed:
                    content = self.cut_off_close(content)
                if content.strip():
                    return AnswerBlock(content, closed)
            end, closed = match.start(), match.group() == answer_close
        return None

    def cut_off_close(self, text: str) -> str:
        """The text of an unclosed Answer block without the first characters of its closing tag."""
        return self._cut_off_close.sub("", text) if self._cut_off_close else text

    def has_thinking(self, text: str) -> bool:
        """Whether an output, well-formed or not, has a closed thinking with more than white space. Linear time."""
        opened: int | None = None
        opening, closing, _, _ = self._tags
        for match in self._any_tag.finditer(text):
            if match.group() == closing and opened is not None and text[opened : match.start()].strip():
                return True
            opened = match.end() if match.group() == opening else None
        return False

    def thinking_in(self, text: str) -> str | None:
        """The first thinking of an output, well-formed or not; all after its opening tag where none closes it."""
        opening, closing, _, _ = self._tags
        _, opened, rest = text.partition(opening)
        return rest.partition(closing)[0] if opened else None

    def rewritten(self, text: str, other: ResponseFormat) -> str:
        """An output with the tags of another format, one that has all four, in the place of its own."""
        tags = dict(zip(self._tags, other._tags, strict=True))
        written = self._any_tag.sub(lambda match: tags[match.group()], text)
        return written if self.answer_close or not self.answer_open else written + other.answer_close

    def without_tags(self, text: str) -> str:
        """An output with a line break in the place of each tag."""
        return self._any_tag.sub("\n", text)


def _after(written: str) -> str:
    return written[len(written.rstrip()) :]


def _before(written: str) -> str:
    return written[: len(written) - len(written.lstrip())]
