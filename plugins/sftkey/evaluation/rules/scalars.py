"""Whether two formulas have one value: by our own evaluation, and as math-verify reads them. Only in the bounded process."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from mpmath import mp, mpc, mpf

from sftkey.evaluation.rules.exact import Setting, Undetermined, Value, number_of, value_of
from sftkey.evaluation.rules.expression_tokens import Node
from sftkey.evaluation.rules.rendering import render
from sftkey.util.extras import extra

# Values of the symbols: positive, of both signs, and whole; not special for any usual function.
_REAL = (Fraction(7, 19), Fraction(23, 29), Fraction(31, 17), Fraction(5, 11), Fraction(41, 37), Fraction(13, 43))
_SIGNED = (Fraction(-7, 19), Fraction(23, 29), Fraction(-31, 17), Fraction(5, 11), Fraction(-41, 37), Fraction(-13, 43))
_WHOLE = (Fraction(5), Fraction(8), Fraction(3), Fraction(6), Fraction(4), Fraction(7))
_MAX_SYMBOLS = 6
_SAME = mpf(10) ** -40
_TINY = mpf(10) ** -50
_CLEARLY_DIFFERENT_DECIMALS = 0.02
_NOISE_DIGITS = 12
# Its parser and sympy take long for long products.
_MAX_FOR_MATH_VERIFY = 250
_PECULIAR = frozenset(
    """degree root based choose arrange function ambiguous percent mixed floor ceil sigma prod absolute factorial
    number""".split()
)


@dataclass(frozen=True)
class Text:
    """A formula and the text that it stands in."""

    node: Node
    source: str

    @property
    def written(self) -> str:
        """The formula as it is written."""
        return self.source[slice(*self.node.span)]


def walk(node: Node) -> list[Node]:
    """A node and all nodes in it."""
    found = [node]
    for part in found:
        found.extend(part.nodes())
    return found


def symbols_of(node: Node) -> frozenset[str]:
    """The names in a formula; e and i are numbers."""
    bound = {str(part.args[0]) for part in walk(node) if part.kind in ("sigma", "prod")}
    names = {str(part.args[0]) for part in walk(node) if part.kind == "symbol"}
    return frozenset(names - bound - {"e", "i"})


def equal(first: Text, second: Text) -> bool | None:
    """Whether two formulas are equal; ``None`` where the readings of them disagree, or none of them can tell."""
    if _plain(first.node) is not None and _plain(second.node) is not None:
        return _plain(first.node) == _plain(second.node)
    own = _by_value(first.node, second.node)
    if own is None:
        return None
    other = _by_math_verify(first.written, second.written)
    if other is own:
        return own
    if own and other is False and not any(_peculiar(text.node) for text in (first, second)):
        return None
    if own is False and other is True:
        return None
    # What math-verify is known to misread, it is given in a spelling that it reads.
    rendered = render(first.node), render(second.node)
    if rendered[0] is None or rendered[1] is None:
        return None
    return own if _by_math_verify(rendered[0], rendered[1]) is own else None


def _plain(node: Node) -> Fraction | None:
    """The value of a numeral or a fraction of two, with or without a sign."""
    if node.kind == "negative":
        inner = _plain(node.nodes()[0])
        return None if inner is None else -inner
    if node.kind == "group":
        return _plain(node.nodes()[0])
    if node.kind == "number":
        return node.args[0]  # type: ignore[return-value]
    if node.kind == "quotient":
        over, under = (_plain(part) for part in node.nodes())
        return over / under if over is not None and under else None
    return None


def _peculiar(node: Node) -> bool:
    return any((part.kind in _PECULIAR and not _whole_number(part)) or _like_a_call(part) for part in walk(node))


def _like_a_call(node: Node) -> bool:
    """``3(4)``, which may be taken for a function."""
    return node.kind == "product" and node.nodes()[0].kind == "number" and node.nodes()[1].kind == "group"


def _whole_number(node: Node) -> bool:
    return node.kind == "number" and node.args[1] == 0


def _by_value(first: Node, second: Node) -> bool | None:
    names = symbols_of(first) | symbols_of(second)
    if len(names) > _MAX_SYMBOLS:
        return None
    if symbols_of(first) != symbols_of(second):
        return None
    parts = [*walk(first), *walk(second)]
    logs = (10, None) if any(part.kind == "function" and part.args[:2] == ("log", None) for part in parts) else (None,)
    joined = (False, True) if any(part.kind == "ambiguous" for part in parts) else (False,)
    found = {_in_settings(first, second, names, log, join) for log, join in product(logs, joined)}
    return found.pop() if len(found) == 1 else None


def _in_settings(first: Node, second: Node, names: frozenset[str], log: int | None, join: bool) -> bool | None:
    degrees = [any(part.kind == "degree" for part in _outside_functions(node)) for node in (first, second)]
    units = (False, True) if degrees[0] != degrees[1] else (False,)
    found = [_at_points(first, second, names, Setting(log, unit, join)) for unit in units]
    if True in found:
        # 45 degrees are pi/4, and they are 45 where only the number is asked for.
        return True
    return None if None in found else False


def _outside_functions(node: Node) -> list[Node]:
    found = [node]
    for part in found:
        if part.kind != "function":
            found.extend(part.nodes())
    return found


def _at_points(first: Node, second: Node, names: frozenset[str], setting: Setting) -> bool | None:
    decimals = _decimals(first, second)
    if not names:
        return _values(first, second, setting, decimals)
    verdicts = []
    for point in (_REAL, _REAL[::-1], _SIGNED, _WHOLE):
        values = dict(zip(sorted(names), point, strict=False))
        at_point = Setting(setting.log_base, setting.degree_is_one, setting.joined_denominator, values)
        verdicts.append(_values(first, second, at_point, decimals))
    if verdicts.count(True) + verdicts.count(None) == len(verdicts) and verdicts.count(True) >= 3:
        return True
    # Equal for whole or for positive numbers only may be all that is meant.
    return False if True not in verdicts and verdicts.count(False) >= 2 else None


def _decimals(first: Node, second: Node) -> int | None:
    """The fewest decimals of a number that is written with some; ``None`` where there is none."""
    written = [
        part.args[1]
        for part in (*walk(first), *walk(second))
        if part.kind == "number" and isinstance(part.args[1], int)
    ]
    return min((count for count in written if count), default=None)


def _values(first: Node, second: Node, setting: Setting, decimals: int | None) -> bool | None:
    try:
        one, other = value_of(first, setting), value_of(second, setting)
    except Undetermined:
        return None
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    one, other = number_of(one), number_of(other)
    if mp.isinf(one) or mp.isinf(other):
        return bool(one == other)
    size = max(abs(one), abs(other))
    if mp.isnan(size) or size < _TINY:
        return None
    relative = abs(one - other) / size
    if relative < _SAME:
        return True
    if decimals is not None and relative < _CLEARLY_DIFFERENT_DECIMALS:
        return True if decimals >= _NOISE_DIGITS and relative < mpf(10) ** -_NOISE_DIGITS else None
    if _degrees_without_sign(one, other):
        return None
    return False if relative > mpf(10) ** -30 else None


def _degrees_without_sign(one: Value, other: Value) -> bool:
    if isinstance(one, mpc) or isinstance(other, mpc) or not (one and other):
        return False
    ratio = abs(one / other) * mp.pi / 180
    return any(abs(value - 1) < _SAME for value in (ratio, ratio * 180 * 180 / mp.pi**2))


def _by_math_verify(first: str, second: str) -> bool | None:
    """What math-verify's reading of two texts says, compared exactly; ``None`` where it reads none, or can't tell."""
    from sympy import Expr, Rational, nsimplify

    with extra("eval"):
        from math_verify import verify

    if max(len(first), len(second)) > _MAX_FOR_MATH_VERIFY:
        return None
    one, other = _parsed(first), _parsed(second)
    if one is None or other is None:
        return None
    try:
        if not (isinstance(one, Expr) and isinstance(other, Expr)):
            return True if verify(one, other, timeout_seconds=None, raise_on_error=True) else None
        if one.free_symbols != other.free_symbols:
            return None
        one, other = nsimplify(one, rational=True), nsimplify(other, rational=True)
        names = sorted(one.free_symbols, key=str)
        found = set()
        for point in (_REAL, _SIGNED):
            at = {name: Rational(value.numerator, value.denominator) for name, value in zip(names, point, strict=False)}
            values = [mp.mpmathify(side.subs(at).evalf(60)) for side in (one, other)]
            size = max(abs(value) for value in values)
            found.add(bool(size == 0 or abs(values[0] - values[1]) < size * _SAME))
        return found.pop() if len(found) == 1 else None
    except MemoryError:
        raise  # the worker reports the limit
    except Exception:  # SymPy raises errors of any class for what it can't compute
        return None


def _parsed(formula: str) -> Any:
    with extra("eval"):
        from math_verify import LatexExtractionConfig, parse

    found = parse(
        f"${formula}$",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found[0] if found else None
