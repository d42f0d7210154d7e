"""Compare formulas by math-verify, unbounded: only `sftkey.evaluation.rules.formula_process` may run it on model output."""

from __future__ import annotations

import re
from typing import Any

from sftkey.evaluation.verdicts import RuleVerdict

_DECIMAL = re.compile(r"\d\.\d")
# Where two expressions in the same symbols are evaluated to show that they differ; not special for any usual function.
_POINTS = ((7, 19), (23, 29), (31, 17))
_CLEARLY_DIFFERENT = 1e-6
# Relative; a decimal fraction may be a rounded value.
_CLEARLY_DIFFERENT_DECIMALS = 0.02


def compare(prediction: str, reference: str) -> tuple[RuleVerdict, str]:
    """Compare two LaTeX formulas.

    "Different" only where that is certain: both are free of symbols, or have the same symbols and different values at
    fixed points. Anything else that math-verify can't show to be the same can't be told.

    Args:
        prediction: The extracted answer, without ``$``.
        reference: The reference answer, without ``$``.

    Returns:
        The verdict and the reason.
    """
    from math_verify import verify

    gold, target = _parsed(reference), _parsed(prediction)
    if gold is None or target is None:
        side = "reference" if gold is None else "answer"
        return RuleVerdict.CANT_TELL, f"the {side} can't be read as a formula"
    try:
        if verify(gold, target, timeout_seconds=None, raise_on_error=True):
            return RuleVerdict.SAME, "math-verify"
    except Exception as error:
        return RuleVerdict.CANT_TELL, f"math-verify: {type(error).__name__}"
    decimals = any(_DECIMAL.search(formula) for formula in (prediction, reference))
    if _certainly_different(gold, target, decimals):
        return RuleVerdict.DIFFERENT, "math-verify, by value"
    return RuleVerdict.CANT_TELL, "math-verify can't show that the formulas are the same"


def _parsed(formula: str) -> Any:
    from math_verify import LatexExtractionConfig, parse

    found = parse(
        f"${formula}$",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found[0] if found else None


def _certainly_different(gold: Any, target: Any, decimals: bool) -> bool:
    from sympy import Expr, Rational

    try:
        symbols = gold.free_symbols
        if symbols != target.free_symbols:
            return False
        if not (isinstance(gold, Expr) and isinstance(target, Expr)):
            # Two sets, intervals or tuples of numbers; a set against a number may be a matter of notation.
            return not symbols and type(gold) is type(target) and not decimals
        difference = gold - target
        for numerator, denominator in _POINTS:
            ordered = enumerate(sorted(symbols, key=str))
            point = {symbol: Rational(numerator + position, denominator) for position, symbol in ordered}
            least = _CLEARLY_DIFFERENT
            if decimals:
                least = _CLEARLY_DIFFERENT_DECIMALS * abs(complex(gold.subs(point).evalf(15)))
            if not abs(complex(difference.subs(point).evalf(15))) > least:
                return False
    except Exception:
        return False
    return True
