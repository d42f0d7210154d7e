"""Compare formulas, unbounded: only `sftkey.evaluation.rules.formula_process` may run it on model output.

Two readings must agree: our own parser and exact arithmetic, and math-verify's. Where a comma can be read in several ways,
all of them must lead to the same verdict.
"""

from __future__ import annotations

from itertools import product

from sftkey.evaluation.rules.expression_tokens import Unreadable
from sftkey.evaluation.rules.expressions import parse
from sftkey.evaluation.rules.meanings import Meaning, meaning
from sftkey.evaluation.rules.notation import canonical, comma_readings
from sftkey.evaluation.rules.question import Asked
from sftkey.evaluation.rules.structures import Comparer, irrational_ratio
from sftkey.evaluation.verdicts import RuleVerdict


def compare(
    prediction: str, reference: str, asked: Asked | None = None, *, convertible: bool = False
) -> tuple[RuleVerdict, str]:
    """Compare two LaTeX formulas.

    Args:
        prediction: The extracted answer.
        reference: The reference answer.
        asked: What the question asks for.
        convertible: Whether one of them had a unit that the other hadn't.

    Returns:
        The verdict and the reason.
    """
    asked = asked or Asked()
    found, wanted = canonical(prediction), canonical(reference)
    if found == wanted:
        return RuleVerdict.SAME, "same formula"
    verdicts = set()
    for one, other in product(comma_readings(found, wanted, asked), comma_readings(wanted, found, asked)):
        sides: list[Meaning] = []
        for text, side in ((one, "answer"), (other, "reference")):
            try:
                sides.append(meaning(parse(text)))
            except Unreadable:
                return RuleVerdict.CANT_TELL, f"the {side} can't be read as a formula"
        verdicts.add(Comparer(one, other, asked.ordered).same(*sides))
    if verdicts == {True}:
        return RuleVerdict.SAME, "two readings agree"
    if verdicts == {False}:
        if convertible and not irrational_ratio(*sides):
            return RuleVerdict.CANT_TELL, "different values whose units may convert"
        return RuleVerdict.DIFFERENT, "two readings agree"
    return RuleVerdict.CANT_TELL, "two readings don't agree, or can't tell" if len(verdicts) == 1 else "a comma"
