"""Compare an extracted answer with the reference by rules: same, different, can't tell.

Only "can't tell" goes to the judge. "Different" means certainly different, not merely without a match.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules import numbers, quantities
from sftkey.evaluation.rules import options as multiple_choice
from sftkey.evaluation.rules.answers import last_boxed
from sftkey.evaluation.rules.claims import time_of_day
from sftkey.evaluation.rules.formula_process import FORMULAS
from sftkey.evaluation.rules.limits import MAX_ANSWER, OverLimit
from sftkey.evaluation.rules.number_words import ordinal, to_numerals
from sftkey.evaluation.rules.question import Asked, asked
from sftkey.evaluation.rules.text import (
    choice_of,
    exclude_each_other,
    loosely,
    may_be_an_acronym,
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
            return _number(prediction, reference, asked(question))
        if kind is AnswerKind.MATHS:
            return _maths(prediction, reference, asked(question))
        return _text(prediction, reference, asked(question))
    except OverLimit as limit:
        return Comparison(RuleVerdict.CANT_TELL, str(limit), over_limit=True)


def _number(prediction: str, reference: str, asked: Asked, *, bare: bool = False) -> Comparison:
    return Comparison(*numbers.compare(prediction, reference, asked, bare=bare))


def _option(prediction: str, reference: str, options: Mapping[str, str]) -> Comparison:
    found, wanted = multiple_choice.named(prediction, options), multiple_choice.named(reference, options)
    if not wanted:
        return Comparison(RuleVerdict.CANT_TELL, "the reference names no option")
    if found is None:
        return Comparison(RuleVerdict.CANT_TELL, "the answer doesn't name one option")
    if found & wanted:
        return Comparison(RuleVerdict.SAME, "same option")
    return Comparison(RuleVerdict.DIFFERENT, "different options" if found else "a letter that is none of the options")


_WRAPPED = re.compile(
    r"^\s*(?:\$\$?(?P<dollars>[^$]*)\$\$?|\\\((?P<round>.*)\\\)|\\\[(?P<square>.*)\\\])[\s.]*$", re.DOTALL
)
_LETTER = re.compile(r"^\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*\(?\s*([A-H])\s*\)?\s*[.)]?\s*\}?\s*$")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_DEGREE = re.compile(r"°|\\circ\b")
_BOLD = re.compile(r"^\*\*([^*]*)\*\*$")
_SUPERSCRIPTS = re.compile(r"[⁺⁻]?[⁰¹²³⁴-⁹]+")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{2,}|(?<=\d)(?:\s|~)+[mglshk]$")
_WORDS_IN_FORMULAS = frozenset("sin cos tan cot sec csc log ln exp gcd lcm max min mod or and if pi sqrt".split())


def _maths(prediction: str, reference: str, question: Asked) -> Comparison:
    as_text = _normalised(prediction, reference)
    prediction, reference = _unwrapped(prediction), _unwrapped(reference)
    if prediction == reference:
        return Comparison(RuleVerdict.SAME, "same text")
    letter = _LETTER.match(reference)
    if letter is not None:
        chosen = _LETTER.match(prediction)
        if chosen is None:
            return Comparison(RuleVerdict.CANT_TELL, "the reference is a lone letter, the answer isn't")
        same = chosen.group(1) == letter.group(1)
        return Comparison(RuleVerdict.SAME if same else RuleVerdict.DIFFERENT, "lone letters")
    plain = _strict(prediction, reference)
    if plain.verdict is not RuleVerdict.CANT_TELL:
        return plain
    words = _words(prediction), _words(reference)
    convertible = any(words) or bool(_DEGREE.search(prediction)) != bool(_DEGREE.search(reference))
    if any(words):
        # A formula parser reads words as products of letters and drops units, so words are compared as such.
        if as_text is not None:
            return as_text
        number = _number(prediction, reference, question)
        if number.verdict is not RuleVerdict.CANT_TELL or all(words):
            return number
        if any(not quantities.is_unit(word) for side in words for word in side):
            return Comparison(RuleVerdict.CANT_TELL, "words in a formula")
        prediction, reference = (_without_words(side) for side in (prediction, reference))
    verdict, detail = FORMULAS.compare(prediction, reference)
    if verdict is RuleVerdict.DIFFERENT and convertible:
        # The parser drops a degree sign, as the units are dropped above.
        return Comparison(RuleVerdict.CANT_TELL, "different values whose units may convert")
    return Comparison(verdict, detail)


def _strict(prediction: str, reference: str) -> Comparison:
    found, wanted = quantities.parse(prediction, strict=True), quantities.parse(reference, strict=True)
    if found is None or wanted is None:
        return Comparison(RuleVerdict.CANT_TELL, "no plain numbers")
    return _number(prediction, reference, Asked())


def _unwrapped(formula: str) -> str:
    formula = "".join(character if character.isprintable() else " " for character in formula).strip()
    boxed = last_boxed(formula)
    if boxed is not None:
        formula = boxed.strip()
    formula = _BOLD.sub(r"\1", formula).strip()
    # The formula parser reads 12² as 12 and drops ½.
    formula = _SUPERSCRIPTS.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match.group())}}}", formula)
    formula = quantities.VULGAR_FRACTION.sub(_as_fraction, formula)
    match = _WRAPPED.match(formula)
    if match is not None:
        formula = next(group for group in match.groups() if group is not None)
    return formula.strip().rstrip(".").strip()


def _as_fraction(sign: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", sign.group()).partition("\u2044")
    return rf" \frac{{{numerator}}}{{{denominator}}}"


def _words(formula: str) -> list[str]:
    spread = _COMMAND.sub(" ", _TEXT_COMMAND.sub(r" \1 ", formula))
    return [word.strip() for word in _WORD.findall(spread.rstrip()) if word.strip() not in _WORDS_IN_FORMULAS]


def _without_words(formula: str) -> str:
    def drop(match: re.Match[str]) -> str:
        return match.group() if match.group() in _WORDS_IN_FORMULAS else " "

    plain = _TEXT_COMMAND.sub(r" \1 ", formula)
    return re.sub(r"(?<![\\A-Za-z])[^\W\d_]{2,}", drop, plain).strip()


def _normalised(prediction: str, reference: str) -> Comparison | None:
    found, wanted = normalise(prediction), normalise(reference)
    if found and found == wanted:
        if may_be_an_acronym(prediction, reference):
            return Comparison(RuleVerdict.CANT_TELL, "a word or an acronym")
        return Comparison(RuleVerdict.SAME, "same text, normalised")
    found, wanted = choice_of(prediction) or found, choice_of(reference) or wanted
    if exclude_each_other(found, wanted):
        return Comparison(RuleVerdict.DIFFERENT, "answers that exclude each other")
    return None


def _text(prediction: str, reference: str, question: Asked) -> Comparison:
    as_text = _normalised(prediction, reference)
    if as_text is not None:
        return as_text
    if _LETTER.match(prediction) is None and choice_of(prediction) == choice_of(reference) is not None:
        return Comparison(RuleVerdict.SAME, "same choice")
    prediction = without_tags(prediction)
    if not reference.casefold().startswith("no "):
        reference = ordinal(to_numerals(reference))
    if quantities.parse(reference, strict=True) is not None or time_of_day(reference) is not None:
        return _number(prediction, reference, question, bare=True)
    if ordinal(prediction) == reference or (loosely(prediction) and loosely(prediction) == loosely(reference)):
        return Comparison(RuleVerdict.SAME, "same words")
    letters = _LETTER.match(prediction), _LETTER.match(reference)
    if letters[0] and letters[1] and letters[0].group(1) != letters[1].group(1):
        return Comparison(RuleVerdict.DIFFERENT, "lone letters")
    counts = numbers.count_of(prediction), numbers.count_of(reference)
    if counts[0] is not None and counts[1] is not None and counts[0].unit == counts[1].unit:
        return _number(prediction, reference, question)
    return Comparison(RuleVerdict.CANT_TELL, "texts that don't match")
