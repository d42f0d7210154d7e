r"""What a parsed answer is: a value, a list, a tuple, a set, a region, an equation; ``x = 5`` is 5, of name x."""

from __future__ import annotations

from dataclasses import dataclass, field

from sftkey.evaluation.rules.expression_tokens import Node, Unreadable
from sftkey.evaluation.rules.scalars import symbols_of, walk


@dataclass(frozen=True)
class Meaning:
    """What an answer, or a part of it, is.

    Attributes:
        kind: value, list, sequence, set, tuple, assignments, region, equation, matrix, ratio, modulo, based, empty.
        parts: What it consists of.
        names: The names of the parts; of a value its own; ``None`` where it has none.
        brackets: Of a tuple.
        node: The formula, of a value, an equation or a region.
    """

    kind: str
    parts: tuple[Meaning, ...] = ()
    names: tuple[str | None, ...] = ()
    brackets: str = ""
    node: Node | None = field(default=None)


_KINDS = {"ratio": "ratio", "matrix": "matrix", "row": "row", "modulo": "modulo", "empty": "empty", "based": "based"}
_REGIONS = frozenset("union intersection minus numbers builder".split())
_ALONE = frozenset(
    "relation bracket union intersection minus numbers builder ratio matrix modulo empty plusminus dots based".split()
)


def meaning(items: list[Node]) -> Meaning:
    """What a list of parsed items is.

    Raises:
        Unreadable: It is none of the kinds that can be compared.
    """
    found = [part for item in items for part in _expanded(item)]
    parts = [_one(item) for item in found]
    if len(parts) == 1:
        return parts[0]
    names = tuple(part.names[0] if part.names else None for part in parts)
    if any(part.kind in ("region", "equation") for part in parts):
        raise Unreadable("several relations")
    if any(part.kind == "dots" for part in parts):
        return Meaning("sequence", tuple(parts), names)
    if names[0] is None or not any(names[1:]):
        if any(names[1:]):
            raise Unreadable("a value, and other values with names")
        return Meaning("list", tuple(parts), names[:1] * len(parts))
    if None in names:
        raise Unreadable("some values with names")
    bases = [str(name).partition("_")[0] for name in names]
    if len(set(bases)) == 1:
        return Meaning("list", tuple(parts), tuple(bases))
    if len(set(names)) == len(names):
        return Meaning("assignments", tuple(parts), names)
    raise Unreadable("names that come twice")


def _expanded(node: Node) -> list[Node]:
    """One plus or minus a is two values."""
    if node.kind == "relation" and node.args[-1] == ("=",):
        left, right = node.nodes()
        return [Node("relation", (left, value, ("=",)), node.span) for value in _expanded(right)]
    signs = [part for part in walk(node) if part.kind == "plusminus"]
    if not signs:
        return [node]
    if len(signs) > 1 or node.kind not in ("plusminus", "sum"):
        raise Unreadable("several signs")
    return [_signed(node, negative) for negative in (False, True)]


def _signed(node: Node, negative: bool) -> Node:
    if node.kind == "plusminus":
        inner = node.nodes()[0]
        return Node("negative", (inner,), inner.span) if negative else inner
    return Node(node.kind, tuple(_signed(part, negative) for part in node.nodes()), node.span)


def _one(node: Node) -> Meaning:
    if node.kind == "relation":
        return _relation(node)
    if node.kind == "bracket":
        return _bracket(node)
    if node.kind in _REGIONS:
        return Meaning("region", node=node)
    if node.kind == "dots":
        return Meaning("dots")
    if node.kind in _KINDS:
        return Meaning(_KINDS[node.kind], tuple(_one(part) for part in node.nodes()), node=node)
    if node.kind == "group" and node.nodes()[0].kind in _ALONE:
        return _one(node.nodes()[0])
    if any(part.kind in _ALONE and part.kind != "based" for part in walk(node)):
        raise Unreadable("a formula of things that are no numbers")
    return Meaning("value", node=node)


def _bracket(node: Node) -> Meaning:
    opening, closing, *items = node.args
    nodes = [part for item in items if isinstance(item, Node) for part in _expanded(item)]
    parts = tuple(_one(part) for part in nodes)
    if not parts:
        return Meaning("empty")
    if opening in ("{", r"\{"):
        if any(part.kind == "dots" for part in parts):
            return Meaning("sequence", parts)
        return Meaning("set", parts, tuple(None for _ in parts))
    if opening == "[" == f"{closing}".replace("]", "[") and all(part.kind == "tuple" for part in parts):
        rows = tuple(Meaning("row", part.parts) for part in parts)
        return Meaning("matrix", rows)
    if all(part.names for part in parts):
        return meaning(nodes)
    return Meaning("tuple", parts, brackets=f"{opening}{closing}".replace(r"\langle", "(").replace(r"\rangle", ")"))


def _relation(node: Node) -> Meaning:
    operators = node.args[-1]
    parts = node.nodes()
    assert isinstance(operators, tuple)
    if set(operators) == {"="}:
        return _equality(node, parts)
    if operators == ("in",):
        inner = _one(parts[1])
        return Meaning(inner.kind, inner.parts, (_written(parts[0]),), inner.brackets, inner.node)
    return Meaning("region", node=node)


def _equality(node: Node, parts: list[Node]) -> Meaning:
    last = parts[-1]
    if name := _name(parts[0]):
        inner = _one(last)
        if inner.kind == "tuple" and parts[0].kind == "bracket":
            return inner
        return Meaning(inner.kind, inner.parts, (name,), inner.brackets, inner.node)
    if name := _name(last):
        inner = _one(parts[0])
        if inner.kind == "value" and not symbols_of(parts[0]):
            return Meaning(inner.kind, inner.parts, (name,), inner.brackets, inner.node)
    if last.kind in _ALONE:
        raise Unreadable("an equation of things that are no numbers")
    if not symbols_of(last) and (len(parts) > 2 or not symbols_of(parts[0]) or _sum_of_symbols(parts[0])):
        return Meaning("value", names=(None if not symbols_of(parts[0]) else _written(parts[0]),), node=last)
    if len(parts) > 2:
        raise Unreadable("a chain of equations")
    return Meaning("equation", node=node)


def _name(node: Node) -> str | None:
    """The name that an equation gives a value: a symbol, ``f(x)``, ``(x, y)``."""
    if node.kind == "symbol" and node.args[0] not in ("e", "i"):
        return str(node.args[0])
    if node.kind == "product":
        function, argument = node.nodes()
        inner = argument.nodes()
        if (
            function.kind == "symbol"
            and argument.kind in ("group", "bracket")
            and all(part.kind == "symbol" for part in inner)
        ):
            return _written(function) + "()"
    if node.kind == "bracket" and node.nodes() and all(part.kind == "symbol" for part in node.nodes()):
        return ",".join(_written(part) for part in node.nodes())
    return None


def _sum_of_symbols(node: Node) -> bool:
    return node.kind == "sum" and all(part.kind == "symbol" for part in node.nodes())


def _written(node: Node) -> str:
    return "".join(str(part.args[0]) for part in walk(node) if part.kind == "symbol")
