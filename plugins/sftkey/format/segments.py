"""The parts of a training sequence."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Segment(IntEnum):
    r"""The segment that a token belongs to. Stored per token beside ``labels``.

    In an untagged response the text between reasoning and answer (``"\n#### "`` in GSM8K) is ``ANSWER_OPEN``, the
    text after the answer ``ANSWER_CLOSE``.
    """

    PROMPT = 0
    THINKING_OPEN = 1
    THINKING = 2
    THINKING_CLOSE = 3
    ANSWER_OPEN = 4
    ANSWER = 5
    ANSWER_CLOSE = 6
    END_OF_TURN = 7


RESPONSE = frozenset(Segment) - {Segment.PROMPT}
"""Every segment of the response, the end of the turn included."""

AFTER_THINKING = frozenset({Segment.ANSWER_OPEN, Segment.ANSWER, Segment.ANSWER_CLOSE, Segment.END_OF_TURN})
"""The positions t > T_i of Eq. 4: everything after ``</Thinking>``."""

SEGMENT_GROUPS: dict[str, frozenset[Segment]] = {
    "thinking": frozenset({Segment.THINKING}),
    "answer": frozenset({Segment.ANSWER}),
    "format": RESPONSE - {Segment.THINKING, Segment.ANSWER},
}
"""The three names under which losses are reported and weights are given; together they are ``RESPONSE``."""


class Piece(NamedTuple):
    """A part of a response's text and its segment."""

    segment: Segment
    text: str
