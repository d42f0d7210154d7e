"""The tree of a formula, and the tokens that it is read from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn


class Unreadable(ValueError):
    """Raised for a text that is no formula."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a formula.

    Attributes:
        kind: What it is.
        args: Its parts, or its value.
        span: Where it stands in the text.
    """

    kind: str
    args: tuple[object, ...] = ()
    span: tuple[int, int] = (0, 0)

    def nodes(self) -> list[Node]:
        """The parts that are nodes."""
        return [part for part in self.args if isinstance(part, Node)]


FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln log lg exp max min gcd lcm".split()
)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.\\overline\s?\{\d+\}|\d+\.\d*\\overline\s?\{\d+\}|\d+\.\d*\(\d+\)|\d+\.\\dot\s?\{?\d\}?"
    r"|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<command>\\(?:[A-Za-z]+|[{}|%]))|(?P<word>[A-Za-z]+)|(?P<sign><=|>=|!=|[-+*/^_=<>(){}\[\],;|!:%&']|\\\\|\S))"
)
_REPEATING = re.compile(r"(\d+)\.(\d*)(?:\\overline\s?\{(\d+)\}|\((\d+)\)|\\dot\s?\{?(\d)\}?)")


def number(text: str) -> tuple[Fraction, int | None]:
    """The value of a numeral, and its decimals; ``None`` for those of a repeating one, which is exact."""
    repeating = _REPEATING.fullmatch(text)
    if repeating is None:
        return Fraction(text), len(text.partition(".")[2])
    whole, lead, *groups = repeating.groups()
    period = next(group for group in groups if group)
    scale = 10 ** len(lead)
    fraction = Fraction(int(lead or "0"), scale) + Fraction(int(period), scale * (10 ** len(period) - 1))
    return int(whole) + fraction, None


class Tokens:
    """A text as tokens, and the place where it is read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int, int]] = []
        end = len(text)
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup or "sign"
            self.tokens.append((kind, match[kind], match.start(kind), match.end(kind)))
        self.tokens.append(("end", "", end, end))
        self.at = self.depth = 0

    @property
    def token(self) -> str:
        """The token at this place."""
        return self.tokens[self.at][1]

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.tokens[self.at][0]

    def fail(self) -> NoReturn:
        """Give up."""
        raise Unreadable(f"no formula: {self.token or 'it ends too early'}")

    def take(self, *wanted: str) -> bool:
        """Step over a token if it is one of these."""
        if self.kind != "end" and self.token in wanted:
            self.at += 1
            return True
        return False

    def need(self, wanted: str) -> None:
        """Step over this token, or give up."""
        if not self.take(wanted):
            self.fail()

    def node(self, kind: str, start: int, *args: object) -> Node:
        """A node of what was read since a place."""
        return Node(kind, args, (self.tokens[start][2], self.tokens[self.at - 1][3]))
