"""The names that `expressions` reads: symbols, subscripts, combinations and permutations, bases of numerals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftkey.evaluation.rules.expression_tokens import FUNCTIONS, Node

if TYPE_CHECKING:
    from sftkey.evaluation.rules.expressions import Parser


def letters(parser: Parser) -> Node:
    """Letters: a symbol, the name of a function, or a product of two or three symbols."""
    kind, word, start, _ = parser.tokens[parser.at]
    if len(word) == 1:
        return symbol(parser)
    if word in FUNCTIONS:
        return parser.function(word)
    if len(word) > 3:
        parser.fail()
    # ab is a times b.
    parser.tokens[parser.at : parser.at + 1] = [
        (kind, letter, start + i, start + i + 1) for i, letter in enumerate(word)
    ]
    return symbol(parser)


def symbol(parser: Parser) -> Node:
    """A symbol, with its subscript."""
    start = parser.at
    name = parser.token
    parser.at += 1
    if name in ("C", "A", "P") and parser.token in ("_", "^") and (count := counted(parser, name, start)) is not None:
        return count
    if parser.take("_"):
        name += "_" + subscript(parser)
    return parser.node("symbol", start, name)


def counted(parser: Parser, name: str, start: int) -> Node | None:
    """C_{10}^{3} and A_5^2: combinations and permutations."""
    before = parser.at
    found: dict[str, Node | None] = {}
    while parser.token in ("_", "^") and parser.token not in found:
        sign = parser.token
        parser.at += 1
        found[sign] = inside(parser.atom())
    if len(found) == 2 and all(node and node.kind == "number" for node in found.values()):
        return parser.node("choose" if name == "C" else "arrange", start, found["_"], found["^"])
    parser.at = before
    return None


def subscript(parser: Parser) -> str:
    """What stands after an underscore, as part of a name."""
    if parser.take("{"):
        parts = []
        while not parser.take("}"):
            if parser.kind == "end":
                parser.fail()
            parts.append(parser.token)
            parser.at += 1
        return "".join(parts)
    if parser.kind not in ("number", "word", "command"):
        parser.fail()
    parser.at += 1
    return parser.tokens[parser.at - 1][1]


def base(parser: Parser) -> int:
    """The base of a numeral: 2 of ``101_2``, ``101_{2}``, ``101_{(2)}``."""
    braces = 0
    while parser.take("{", "("):
        braces += 1
    if parser.kind != "number" or not parser.token.isdigit() or len(parser.token) > 2:
        parser.fail()
    value = int(parser.token)
    parser.at += 1
    for _ in range(braces):
        if not parser.take("}", ")"):
            parser.fail()
    return value


def inside(node: Node | None) -> Node | None:
    """A node without the brackets around it."""
    return node.nodes()[0] if node is not None and node.kind == "group" else node
