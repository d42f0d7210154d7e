"""The value of a formula: an exact fraction wherever there is one, else 80 digits. Only in the bounded process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import comb, factorial, floor, gcd, lcm, perm
from typing import Any

from mpmath import mp, mpc, mpf

from sftkey.evaluation.rules.expression_tokens import Node

DIGITS = 80
mp.dps = DIGITS
_MAX_BITS = 100_000
_MAX_FACTORIAL = 3_000
_MAX_TERMS = 1_000
_MAX_EXPONENT = 10**6
_MAX_TIMES = 10**4

Value = Any
"""A `Fraction`, or a number of mpmath."""


class Undetermined(ValueError):
    """Raised where a formula has no value, or none that is worth its cost."""


@dataclass(frozen=True)
class Setting:
    r"""How a formula is read where it can be read in several ways.

    Attributes:
        log_base: The base of ``\log`` without one; ``None`` is e.
        degree: What one degree is, outside of trigonometric functions: 1, or pi/180.
        joined_denominator: Whether 1/2x is 1/(2x).
        symbols: The values of the symbols.
    """

    log_base: int | None = None
    degree_is_one: bool = False
    joined_denominator: bool = False
    symbols: Mapping[str, Value] = field(default_factory=dict)


def value_of(node: Node, setting: Setting) -> Value:
    """Evaluate a formula.

    Raises:
        Undetermined: It has no value, or none that can be had at a bounded cost.
    """
    compute = _COMPUTE.get(node.kind)
    if compute is None:
        raise Undetermined(node.kind)
    try:
        return compute(node, setting)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
        raise Undetermined(str(error)) from None


def number_of(value: Value) -> Value:
    """A value as a number of mpmath."""
    return mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _real(node: Node, setting: Setting) -> Value:
    value = value_of(node, setting)
    if isinstance(value, mpc):
        raise Undetermined("a complex number")
    return value


def _integer(node: Node, setting: Setting, most: int) -> int:
    value = value_of(node, setting)
    if not isinstance(value, Fraction) or value.denominator != 1 or abs(value) > most:
        raise Undetermined("no small integer")
    return int(value)


def _both(first: Value, second: Value, exact: Callable[[Any, Any], Any]) -> Value:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        found = exact(first, second)
        if max(found.numerator.bit_length(), found.denominator.bit_length()) > _MAX_BITS:
            raise Undetermined("a number of too many digits")
        return found
    return exact(number_of(first), number_of(second))


def _sum(node: Node, setting: Setting) -> Value:
    total: Value = Fraction(0)
    for part in node.nodes():
        total = _both(total, value_of(part, setting), lambda one, two: one + two)
    return total


def _times(first: Value, second: Value) -> Value:
    return _both(first, second, lambda one, two: one * two)


def _over(first: Value, second: Value) -> Value:
    if second == 0:
        raise Undetermined("a division by zero")
    return _both(first, second, lambda one, two: one / two)


def _product(node: Node, setting: Setting) -> Value:
    first, second = node.nodes()
    return _times(value_of(first, setting), value_of(second, setting))


def _ambiguous(node: Node, setting: Setting) -> Value:
    quotient, factor = node.nodes()
    if not setting.joined_denominator or quotient.kind != "quotient":
        return _product(node, setting)
    over, under = quotient.nodes()
    return _over(value_of(over, setting), _times(value_of(under, setting), value_of(factor, setting)))


def _power(node: Node, setting: Setting) -> Value:
    base, exponent = (value_of(part, setting) for part in node.nodes())
    return power(base, exponent)


def power(base: Value, exponent: Value) -> Value:
    """A power, exact where that is small enough."""
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        times = int(exponent)
        if base == 0:
            if times <= 0:
                raise Undetermined("a power of zero")
            return Fraction(0)
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if base in (1, -1) or bits * abs(times) <= _MAX_BITS:
                return base**times
            raise Undetermined("a number of too many digits")
        if abs(times) > _MAX_TIMES:
            raise Undetermined("an exponent of too many digits")
        return mp.power(base, times)
    base, exponent = number_of(base), number_of(exponent)
    if isinstance(exponent, mpc) or abs(exponent) > _MAX_EXPONENT:
        raise Undetermined("an exponent of too many digits")
    if isinstance(base, mpf) and base < 0:
        raise Undetermined("a broken power of a negative number")
    return mp.power(base, exponent)


def _root(node: Node, setting: Setting) -> Value:
    base = value_of(node.nodes()[0], setting)
    degree = _integer(node.args[1], setting, 100) if isinstance(node.args[1], Node) else 2
    if degree < 2:
        raise Undetermined("no root")
    if isinstance(base, Fraction):
        whole = _exact_root(abs(base.numerator), degree), _exact_root(base.denominator, degree)
        if whole[0] is not None and whole[1] is not None and (base >= 0 or degree % 2):
            return Fraction(whole[0] if base >= 0 else -whole[0], whole[1])
    base = number_of(base)
    if isinstance(base, mpf) and base < 0 and degree % 2:
        return -mp.root(-base, degree)
    return mp.sqrt(base) if degree == 2 else mp.root(base, degree)


def _exact_root(number: int, degree: int) -> int | None:
    if number.bit_length() > 200:
        return None
    root = int(mp.nint(mp.root(number, degree)))
    return root if root**degree == number else None


def _degree(node: Node, setting: Setting) -> Value:
    value = value_of(node.nodes()[0], setting)
    return value if setting.degree_is_one else number_of(value) * mp.pi / 180


def _log(argument: Value, base: Value | None) -> Value:
    argument = number_of(argument)
    if argument == 0:
        raise Undetermined("the logarithm of zero")
    if base is None:
        return mp.log(argument)
    found = mp.log(argument) / mp.log(number_of(base))
    if isinstance(found, mpf) and abs(found - mp.nint(found)) < mpf(10) ** (5 - DIGITS):
        return Fraction(int(mp.nint(found)))
    return found


_MP = {
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc, "arcsin": mp.asin,
    "arccos": mp.acos, "arctan": mp.atan, "arccot": mp.acot, "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh, "exp": mp.exp,
}  # fmt: skip


def _function(node: Node, setting: Setting) -> Value:
    name, base, *arguments = node.args
    parts = [part for part in arguments if isinstance(part, Node)]
    if name in ("max", "min", "gcd", "lcm"):
        if name in ("gcd", "lcm"):
            numbers = [_integer(part, setting, 10**12) for part in parts]
            return Fraction((gcd if name == "gcd" else lcm)(*numbers))
        values = [_real(part, setting) for part in parts]
        return (max if name == "max" else min)(values, key=number_of)
    if len(parts) != 1:
        raise Undetermined(f"{name} of several")
    if name in ("ln", "log", "lg"):
        argument = value_of(parts[0], setting)
        if isinstance(base, Node):
            return _log(argument, value_of(base, setting))
        return _log(argument, {"ln": None, "lg": 10, "log": setting.log_base}[name])
    if isinstance(base, Node):
        raise Undetermined("a base")
    # Degrees are degrees inside, whatever they are outside.
    inside = Setting(setting.log_base, False, setting.joined_denominator, setting.symbols)
    argument = number_of(value_of(parts[0], inside))
    if not abs(argument) < _MAX_EXPONENT:
        raise Undetermined("an argument of too many digits")
    return _MP[str(name)](argument)


def _repeated(node: Node, setting: Setting) -> Value:
    name, first, last, body = node.args
    if not (isinstance(first, Node) and isinstance(last, Node) and isinstance(body, Node)):
        raise Undetermined("no bounds")
    low, high = _integer(first, setting, 10**6), _integer(last, setting, 10**6)
    if high - low > _MAX_TERMS:
        raise Undetermined("too many terms")
    total: Value = Fraction(0 if node.kind == "sigma" else 1)
    for number in range(low, high + 1):
        inner = Setting(
            setting.log_base,
            setting.degree_is_one,
            setting.joined_denominator,
            {**setting.symbols, str(name): Fraction(number)},
        )
        term = value_of(body, inner)
        total = _both(total, term, lambda one, two: one + two) if node.kind == "sigma" else _times(total, term)
    return total


def _symbol(node: Node, setting: Setting) -> Value:
    name = str(node.args[0])
    if name in setting.symbols:
        return setting.symbols[name]
    if name == "e":
        return mp.e
    if name == "i":
        return mpc(0, 1)
    raise Undetermined(f"what {name} is")


def _counted(node: Node, setting: Setting) -> Value:
    first, second = (_integer(part, setting, 10_000) for part in node.nodes())
    of, chosen = max(first, second), min(first, second)
    if chosen < 0:
        raise Undetermined("a negative number of things")
    return Fraction(comb(of, chosen) if node.kind == "choose" else perm(of, chosen))


def _inner(node: Node, setting: Setting) -> Value:
    return value_of(node.nodes()[0], setting)


def _absolute(node: Node, setting: Setting) -> Value:
    return abs(_inner(node, setting))


_COMPUTE: dict[str, Callable[[Node, Setting], Value]] = {
    "number": lambda node, setting: node.args[0],
    "symbol": _symbol,
    "group": _inner,
    "sum": _sum,
    "negative": lambda node, setting: -_inner(node, setting),
    "product": _product,
    "ambiguous": _ambiguous,
    "mixed": lambda node, setting: _sum(node, setting),
    "quotient": lambda node, setting: _over(*(value_of(part, setting) for part in node.nodes())),
    "power": _power,
    "root": _root,
    "degree": _degree,
    "percent": lambda node, setting: _over(_inner(node, setting), Fraction(100)),
    "factorial": lambda node, setting: Fraction(factorial(_integer(node.nodes()[0], setting, _MAX_FACTORIAL))),
    "choose": _counted,
    "arrange": _counted,
    "absolute": _absolute,
    "floor": lambda node, setting: Fraction(floor(_real(node.nodes()[0], setting))),
    "ceil": lambda node, setting: Fraction(-floor(-_real(node.nodes()[0], setting))),
    "function": _function,
    "pi": lambda node, setting: +mp.pi,
    "infinity": lambda node, setting: mp.inf,
    "based": lambda node, setting: Fraction(int(str(node.args[0]), int(str(node.args[1])))),
}
_COMPUTE["sigma"] = _COMPUTE["prod"] = _repeated
