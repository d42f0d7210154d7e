r"""The commands of LaTeX that `expressions` reads: fractions, roots, functions, matrices, constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftkey.evaluation.rules.expression_names import subscript
from sftkey.evaluation.rules.expression_tokens import FUNCTIONS, Node

if TYPE_CHECKING:
    from sftkey.evaluation.rules.expressions import Parser

_NAMES = {r"\pi": "pi", r"\infty": "infinity", r"\emptyset": "empty", r"\varnothing": "empty"}
_DOTS = frozenset((r"\ldots", r"\dots", r"\cdots", r"\dotsc"))
_GREEK = frozenset(
    r"""\alpha \beta \gamma \delta \theta \lambda \mu \sigma \phi \varphi \omega \rho \tau \psi \epsilon \varepsilon \eta \xi
    \zeta \kappa \nu \Delta \Omega \Gamma \Sigma \Phi""".split()
)


def parse_command(parser: Parser) -> Node:
    """Parse what begins with a command."""
    start, token = parser.at, parser.token
    parser.at += 1
    if token == r"\frac":
        return parser.node("quotient", start, braced(parser), braced(parser))
    if token == r"\sqrt":
        degree = None
        if parser.take("["):
            degree = parser.sum()
            parser.need("]")
        return parser.node("root", start, braced(parser), degree)
    if token in (r"\binom", r"\dbinom", r"\tbinom"):
        return parser.node("choose", start, braced(parser), braced(parser))
    if token in _NAMES:
        return parser.node(_NAMES[token], start)
    if token in _DOTS:
        return parser.node("dots", start)
    if token in _GREEK:
        name = token
        if parser.take("_"):
            name += "_" + subscript(parser)
        return parser.node("symbol", start, name)
    if token in (r"\angle", r"\triangle"):
        name = token
        while parser.kind == "word":
            name += parser.token
            parser.at += 1
        return parser.node("symbol", start, name)
    if token.lstrip("\\") in FUNCTIONS:
        parser.at = start
        return parser.function(token.lstrip("\\"))
    if token in (r"\lfloor", r"\lceil"):
        inner = parser.sum()
        parser.need(r"\rfloor" if token == r"\lfloor" else r"\rceil")
        return parser.node(token[2:], start, inner)
    if token == r"\mathbb":
        letter = braced(parser)
        return parser.node("numbers", start, letter.args[0] if letter.kind == "symbol" else parser.fail())
    if token in (r"\sum", r"\prod"):
        return _repeated(parser, "sigma" if token == r"\sum" else "prod", start)
    if token == r"\begin":
        return _matrix(parser, start)
    if token in (r"\{", r"\langle"):
        parser.at = start
        return parser.bracket()
    if token == r"\|":
        parser.fail()
    parser.at = start
    parser.fail()


def braced(parser: Parser) -> Node:
    """What stands in braces, or the one token that LaTeX takes without them."""
    start = parser.at
    if parser.take("{"):
        inner = parser.sum()
        parser.need("}")
        return inner
    if parser.kind == "word" and len(parser.token) > 1:
        return parser.first_letter()
    if parser.kind not in ("number", "word", "command"):
        parser.fail()
    found = parser.atom()
    return found if found.span else parser.node("group", start, found)


def _repeated(parser: Parser, kind: str, start: int) -> Node:
    parser.need("_")
    parser.need("{")
    name = parser.token
    parser.at += 1
    parser.need("=")
    first = parser.sum()
    parser.need("}")
    parser.need("^")
    last = parser.exponent()
    return parser.node(kind, start, name, first, last, parser.product())


def _matrix(parser: Parser, start: int) -> Node:
    parser.need("{")
    name = parser.token
    parser.at += 1
    parser.need("}")
    if name not in ("matrix", "pmatrix", "bmatrix", "array"):
        parser.fail()
    rows: list[tuple[Node, ...]] = []
    row = [parser.sum()]
    while not parser.take(r"\end"):
        if parser.take("&"):
            row.append(parser.sum())
        elif parser.take("\\\\"):
            if parser.token == r"\end":
                break
            rows.append(tuple(row))
            row = [parser.sum()]
        else:
            parser.fail()
    parser.take(r"\end")
    rows.append(tuple(row))
    parser.need("{")
    parser.need(name)
    parser.need("}")
    if len({len(line) for line in rows}) != 1:
        parser.fail()
    return parser.node("matrix", start, *(parser.node("row", start, *line) for line in rows))
