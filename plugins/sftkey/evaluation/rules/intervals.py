"""Regions of the real line from inequalities, intervals and unions; equations. Only in the bounded process."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mpmath import mp, mpc, mpf

from sftkey.evaluation.rules.exact import Setting, Undetermined, number_of, value_of
from sftkey.evaluation.rules.expression_tokens import Node
from sftkey.evaluation.rules.meanings import Meaning
from sftkey.evaluation.rules.scalars import symbols_of

_SAME = mpf(10) ** -40
_FAR = mpf(10) ** -20


@dataclass(frozen=True)
class Interval:
    """From low to high; whether the ends belong to it."""

    low: Any
    low_in: bool
    high: Any
    high_in: bool


Region = list[Interval]
_EVERYTHING = [Interval(-mp.inf, False, mp.inf, False)]


def region(meaning: Meaning, text: str) -> Region | None:
    """The region that an answer means; ``None`` where it is none of the real line."""
    try:
        if meaning.kind == "empty":
            return []
        if meaning.kind == "tuple":
            nodes = [part.node for part in meaning.parts]
            if len(nodes) != 2 or None in nodes:
                return None
            low, high = (_value(node) for node in nodes if node is not None)
            return _ordered([Interval(low, meaning.brackets[0] == "[", high, meaning.brackets[1] == "]")])
        return None if meaning.node is None else _ordered(_of(meaning.node))
    except Undetermined:
        return None


def _value(node: Node) -> Any:
    if node.kind == "negative" and node.nodes()[0].kind == "infinity":
        return -mp.inf
    value = number_of(value_of(node, Setting()))
    if isinstance(value, mpc):
        raise Undetermined("a complex number")
    return value


def _of(node: Node) -> Region:
    if node.kind == "group":
        return _of(node.nodes()[0])
    if node.kind == "numbers" and node.args[0] == "R":
        return _EVERYTHING
    if node.kind == "empty":
        return []
    if node.kind == "bracket":
        opening, closing, *items = node.args
        values = [_value(item) for item in items if isinstance(item, Node)]
        if opening in ("{", r"\{"):
            return [Interval(value, True, value, True) for value in values]
        if len(values) != 2:
            raise Undetermined("no interval")
        return [Interval(values[0], opening == "[", values[1], closing == "]")]
    if node.kind == "union":
        first, second = node.nodes()
        return [*_of(first), *_of(second)]
    if node.kind == "minus":
        first, second = node.nodes()
        return _without(_ordered(_of(first)), _ordered(_of(second)))
    if node.kind == "builder":
        symbol, *conditions = node.nodes()
        if symbol.kind == "relation" and symbol.args[-1] == ("in",):
            symbol = symbol.nodes()[0]
        if symbol.kind != "symbol" or len(conditions) != 1:
            raise Undetermined("no region of one symbol")
        return _of(conditions[0])
    if node.kind == "relation":
        return _inequality(node)
    raise Undetermined("no region")


def _inequality(node: Node) -> Region:
    """``1 <= x < 2``, ``2 < x``, ``x != 1``, ``x in [1, 2)``."""
    parts, operators = node.nodes(), node.args[-1]
    assert isinstance(operators, tuple)
    at = [number for number, part in enumerate(parts) if part.kind == "symbol" and symbols_of(part)]
    if len(at) != 1 or any(symbols_of(part) for number, part in enumerate(parts) if number != at[0]):
        raise Undetermined("no bounds of one symbol")
    found = _EVERYTHING
    for number, operator in enumerate(operators):
        other = number + 1 if at[0] == number else number
        if at[0] not in (number, number + 1):
            raise Undetermined("a relation of two numbers")
        if operator == "in":
            bound = _ordered(_of(parts[other]))
        else:
            value = _value(parts[other])
            symbol_first = at[0] == number
            bound = _bounded(operator if symbol_first else _MIRRORED[operator], value)
        found = _intersection(found, bound)
    return found


_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}


def _bounded(operator: str, value: Any) -> Region:
    if operator in ("<", "<="):
        return [Interval(-mp.inf, False, value, operator == "<=")]
    if operator in (">", ">="):
        return [Interval(value, operator == ">=", mp.inf, False)]
    if operator == "=":
        return [Interval(value, True, value, True)]
    return [Interval(-mp.inf, False, value, False), Interval(value, False, mp.inf, False)]


def _intersection(first: Region, second: Region) -> Region:
    found = []
    for one in first:
        for other in second:
            low, low_in = max((one.low, not one.low_in), (other.low, not other.low_in))
            high, high_in = min((one.high, one.high_in), (other.high, other.high_in))
            if low < high or (low == high and not low_in and high_in):
                found.append(Interval(low, not low_in, high, high_in))
    return found


def _without(first: Region, second: Region) -> Region:
    for hole in second:
        outside = [
            Interval(-mp.inf, False, hole.low, not hole.low_in),
            Interval(hole.high, not hole.high_in, mp.inf, False),
        ]
        first = _intersection(first, outside)
    return first


def _ordered(region: Region) -> Region:
    """Sorted, intervals that touch made one."""
    for interval in region:
        if interval.low > interval.high:
            raise Undetermined("an interval from above to below")
    found: Region = []
    for interval in sorted(region, key=lambda one: (one.low, not one.low_in)):
        last = found[-1] if found else None
        if last is not None and (
            interval.low < last.high or (interval.low == last.high and (interval.low_in or last.high_in))
        ):
            high, high_in = max((last.high, last.high_in), (interval.high, interval.high_in))
            found[-1] = Interval(last.low, last.low_in, high, high_in)
        else:
            found.append(interval)
    return found


def same(first: Region, second: Region) -> bool | None:
    """Whether two regions are the same."""
    if len(first) != len(second):
        return False
    for one, other in zip(first, second, strict=True):
        if (one.low_in, one.high_in) != (other.low_in, other.high_in):
            return False
        for end, other_end in ((one.low, other.low), (one.high, other.high)):
            if mp.isinf(end) or mp.isinf(other_end):
                if end != other_end:
                    return False
                continue
            gap, size = abs(end - other_end), max(abs(end), abs(other_end), 1)
            if gap > size * _FAR:
                return False
            if gap > size * _SAME:
                return None
    return True


_POINTS = ((7, 19), (23, 29), (31, 17), (5, 11), (41, 37), (13, 43), (-3, 7), (11, 5), (-17, 9), (2, 13))


def same_equation(first: Node, second: Node) -> bool | None:
    """Whether two equations are multiples of each other; "no" only for those of straight lines and planes."""
    names = sorted(symbols_of(first) | symbols_of(second))
    if not names or len(names) > 4 or symbols_of(first) != symbols_of(second):
        return None
    try:
        ratios = []
        for shift in range(4):
            point = {name: Fraction(*_POINTS[(shift * 3 + place) % len(_POINTS)]) for place, name in enumerate(names)}
            one, other = _difference(first, point), _difference(second, point)
            if other == 0 or one == 0:
                return None
            ratios.append(one / other)
        if all(abs(ratio - ratios[0]) <= abs(ratios[0]) * _SAME for ratio in ratios):
            return True
        return False if _straight(first, names) and _straight(second, names) else None
    except Undetermined:
        return None


def _difference(equation: Node, point: dict[str, Fraction]) -> Any:
    left, right = (value_of(part, Setting(symbols=point)) for part in equation.nodes())
    return number_of(left) - number_of(right)


def _straight(equation: Node, names: list[str]) -> bool:
    """Whether an equation is linear: f(p) + f(q) = f(p + q) + f(0), at two pairs of points."""
    for shift in (0, 4):
        one = {name: Fraction(*_POINTS[(shift + place) % len(_POINTS)]) for place, name in enumerate(names)}
        other = {name: Fraction(*_POINTS[(shift + 3 + place) % len(_POINTS)]) for place, name in enumerate(names)}
        both = {name: one[name] + other[name] for name in names}
        nothing = dict.fromkeys(names, Fraction(0))
        gap = (
            _difference(equation, one)
            + _difference(equation, other)
            - _difference(equation, both)
            - _difference(equation, nothing)
        )
        if abs(gap) > _SAME:
            return False
    return True
