"""A formula in the LaTeX that every parser reads: real roots, radians, whole numbers and fractions, bases of logarithms."""

from __future__ import annotations

from fractions import Fraction

from sftkey.evaluation.rules.expression_tokens import Node


def render(node: Node) -> str | None:
    """Write a formula; ``None`` where it has a part that has no such spelling."""
    try:
        return _render(node)
    except KeyError:
        return None


def _render(node: Node) -> str:
    if node.kind == "number":
        value = node.args[0]
        assert isinstance(value, Fraction)
        if value.denominator == 1:
            return str(value.numerator)
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    if node.kind == "symbol":
        return str(node.args[0])
    if node.kind == "based":
        return str(int(str(node.args[0]), int(str(node.args[1]))))
    if node.kind == "root":
        return _root(node)
    if node.kind == "function":
        return _function(node)
    if node.kind == "sum":
        return "(" + "+".join(_render(part) for part in node.nodes()) + ")"
    return _FORMS[node.kind].format(*(_render(part) for part in node.nodes()))


_FORMS = {
    "group": "({})",
    "negative": "(-{})",
    "product": r"({}\cdot {})",
    "mixed": "({}+{})",
    "quotient": r"\frac{{{}}}{{{}}}",
    "power": "({})^{{{}}}",
    "degree": r"({}\cdot \frac{{\pi}}{{180}})",
    "percent": r"\frac{{{}}}{{100}}",
    "factorial": "({})!",
    "choose": r"\binom{{{}}}{{{}}}",
    "arrange": r"\frac{{({0})!}}{{(({0})-({1}))!}}",
    "absolute": "|{}|",
    "floor": r"\lfloor {} \rfloor",
    "ceil": r"\lceil {} \rceil",
    "pi": r"\pi",
    "infinity": r"\infty",
}


def _root(node: Node) -> str:
    base, degree = node.nodes()[0], node.args[1]
    if not isinstance(degree, Node):
        return rf"\sqrt{{{_render(base)}}}"
    odd = degree.kind == "number" and isinstance(degree.args[0], Fraction) and degree.args[0] % 2 == 1
    if odd and base.kind == "negative":
        return rf"(-\sqrt[{_render(degree)}]{{{_render(base.nodes()[0])}}})"
    return rf"\sqrt[{_render(degree)}]{{{_render(base)}}}"


def _function(node: Node) -> str:
    name, base, *arguments = node.args
    inner = ",".join(_render(part) for part in arguments if isinstance(part, Node))
    if name == "lg":
        return rf"\log_{{10}}({inner})"
    if isinstance(base, Node):
        return rf"\{name}_{{{_render(base)}}}({inner})"
    if name == "exp":
        return rf"e^{{{inner}}}"
    return rf"\{name}({inner})"
