"""Compare an extracted answer with the reference by rules: same, different, can't tell.

Only "can't tell" goes to the judge. "Different" means certainly different, not merely without a match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules import maths, numbers, quantities
from sftkey.evaluation.rules import options as multiple_choice
from sftkey.evaluation.rules.claims import time_of_day
from sftkey.evaluation.rules.formula_process import FORMULAS
from sftkey.evaluation.rules.limits import MAX_ANSWER, OverLimit
from sftkey.evaluation.rules.notation import canonical
from sftkey.evaluation.rules.number_words import ordinal, to_numerals
from sftkey.evaluation.rules.question import Asked, asked
from sftkey.evaluation.rules.text import (
    as_words,
    choice_of,
    loosely,
    normalise,
    without_tags,
)
from sftkey.evaluation.verdicts import RuleVerdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict of the rules.

    Attributes:
        verdict: Same, different or can't tell.
        detail: The rule that decided, or why none could.
        over_limit: Whether the comparison exceeded a bound on size, time or memory.
    """

    verdict: RuleVerdict
    detail: str
    over_limit: bool = False


_SPACES = re.compile(r"(\s)\s+")


def compare(
    prediction: str,
    reference: str,
    kind: AnswerKind,
    options: Mapping[str, str] | None = None,
    question: str = "",
) -> Comparison:
    """Compare one candidate of a `Reading` with the reference. Bounded in time and memory, in any thread.

    Args:
        prediction: The candidate.
        reference: The reference answer.
        kind: The kind of the answers.
        options: For multiple choice, the options of this question, letter -> text.
        question: The question, which may set the unit, the scale or the sign.
    """
    try:
        if len(prediction) > MAX_ANSWER:
            raise OverLimit(f"an answer of more than {MAX_ANSWER} characters")
        prediction, reference = _SPACES.sub(r"\1", prediction), _SPACES.sub(r"\1", reference)
        if kind is AnswerKind.OPTION:
            return _option(prediction, reference, options or {})
        if prediction.strip() == reference.strip():
            return Comparison(RuleVerdict.SAME, "same text")
        if kind is AnswerKind.NUMBER:
            return _number_or_sum(prediction, reference, asked(question))
        if kind is AnswerKind.MATHS:
            return Comparison(*maths.compare(prediction, reference, asked(question)))
        return _text(prediction, reference, asked(question))
    except OverLimit as limit:
        return Comparison(RuleVerdict.CANT_TELL, str(limit), over_limit=True)


def _number(prediction: str, reference: str, asked: Asked, *, bare: bool = False) -> Comparison:
    return Comparison(*numbers.compare(prediction, reference, asked, bare=bare))


_COMMAND = re.compile(r"\\[A-Za-z]+")
_CALCULATION = re.compile(r"[-+*/^√|×·÷⁰¹²³⁴-⁹]|\\sqrt|\\frac")


def _number_or_sum(prediction: str, reference: str, question: Asked) -> Comparison:
    """A number, or a calculation without words that gives one; another result may be a part of it, or a note's number."""
    found = _number(prediction, reference, question)
    if found.verdict is not RuleVerdict.CANT_TELL or not _CALCULATION.search(prediction):
        return found
    formula = canonical(prediction)
    if re.search(r"[A-Za-z]{2}|,", _COMMAND.sub(" ", formula)) or formula.lstrip(" (").startswith("-"):
        return found
    verdict, detail = FORMULAS.compare(formula, reference)
    return Comparison(verdict, detail) if verdict is RuleVerdict.SAME else found


def _option(prediction: str, reference: str, options: Mapping[str, str]) -> Comparison:
    found, wanted = multiple_choice.named(prediction, options), multiple_choice.named(reference, options)
    if not wanted:
        return Comparison(RuleVerdict.CANT_TELL, "the reference names no option")
    if found is None:
        return Comparison(RuleVerdict.CANT_TELL, "the answer doesn't name one option")
    if found & wanted:
        return Comparison(RuleVerdict.SAME, "same option")
    return Comparison(RuleVerdict.DIFFERENT, "different options" if found else "a letter that is none of the options")


_LETTER = re.compile(r"\s?\(?\s?([A-H])\s?\)?\s?[.)]?\s?")


def _text(prediction: str, reference: str, question: Asked) -> Comparison:
    as_text = as_words(prediction, reference)
    if as_text is not None:
        return Comparison(*as_text)
    if _LETTER.fullmatch(prediction) is None and choice_of(prediction) == choice_of(reference) is not None:
        return Comparison(RuleVerdict.SAME, "same choice")
    prediction = without_tags(prediction)
    if not reference.casefold().startswith("no "):
        reference = ordinal(to_numerals(reference))
    if quantities.parse(reference, strict=True) is not None or time_of_day(reference) is not None:
        return _number(prediction, reference, question, bare=True)
    joined = [normalise(text).replace("-", "") for text in (prediction, reference)]
    if joined[0] == joined[1] and joined[0].isalpha():
        return Comparison(RuleVerdict.SAME, "same words")
    if ordinal(prediction) == reference or (loosely(prediction) and loosely(prediction) == loosely(reference)):
        return Comparison(RuleVerdict.SAME, "same words")
    letters = _LETTER.fullmatch(prediction), _LETTER.fullmatch(reference)
    if letters[0] and letters[1] and letters[0].group(1) != letters[1].group(1):
        return Comparison(RuleVerdict.DIFFERENT, "lone letters")
    counts = numbers.count_of(prediction), numbers.count_of(reference)
    if counts[0] is not None and counts[1] is not None and counts[0].unit == counts[1].unit:
        return _number(prediction, reference, question)
    return Comparison(RuleVerdict.CANT_TELL, "texts that don't match")
