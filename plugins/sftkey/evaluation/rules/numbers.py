"""Compare an answer with a reference that is one number, in the light of the question.

Two readings of the answer: the number that it claims (`claims`), and all the numbers that stand in it. "Same" needs the
claim to be the reference and nothing near that would make it another number; "different" needs that neither the claim, in any
unit or scale that may be meant, nor any other number of the text is the reference.
"""

from __future__ import annotations

import re
from fractions import Fraction

from sftkey.evaluation.rules import claims, quantities, units
from sftkey.evaluation.rules.number_words import ordinal
from sftkey.evaluation.rules.quantities import Quantity
from sftkey.evaluation.rules.question import Asked
from sftkey.evaluation.verdicts import RuleVerdict

SAME, DIFFERENT, CANT_TELL = RuleVerdict.SAME, RuleVerdict.DIFFERENT, RuleVerdict.CANT_TELL
Verdict = tuple[RuleVerdict, str]

_PLAIN = re.compile(
    r"(?:\*\*|=\s?|(?:the\s)?(?:(?:final|total|correct)\s)?(?:answer|total|result|amount)\sis:?\s)?"
    r"(?P<currency>\$)?(?P<sign>-)?(?P<late>\$)?(?P<digits>\d{1,3}(?:,\d{3})+|\d+)(?:\.0{1,2})?(?:\*\*)?(?P<dollars>\sdollars)?\.?",
    re.IGNORECASE,
)
_LONE_ORDINAL = re.compile(r"\W*(?:the\s)?\d+(?:st|nd|rd|th)\W*", re.I)
_ORDINAL = re.compile(r"\d(?:st|nd|rd|th)\b", re.I)
_WORDS_AND_BRACKETS = re.compile(r"[^\d()]{1,80}\(([^()]{1,40})\)\W*")
_DECADE = re.compile(r"\d0['’]?s\b")
_COUNT = re.compile(r"\s?[-+]?\d[\d.,]*\s[a-z]+\W?\s?", re.I)
_HALF_DAY = re.compile(r"^[ap]\.?m\b\.?", re.I)
_FILLER = re.compile(
    r"(?:\W|\b(?:the|a|an|answer|is|are|it|its|it's|was|about|final|result|equals|value|number|total|of|there|that|they|she|he"
    r"|has|have|had|so|exactly|only|just|approximately|would|be|will|in|all)\b)*",
    re.I,
)
_SHORT = 60
_NOISE_DIGITS = 12
"""Digits from which on a difference in the last ones is floating-point noise."""


def compare(prediction: str, reference: str, asked: Asked, *, bare: bool = False) -> Verdict:
    """Compare an answer with a number.

    Args:
        prediction: The answer.
        reference: The reference.
        asked: What the question asks for.
        bare: Whether words before the number may make it another answer (``March 5``), as in free text.

    Raises:
        OverLimit: A number is too long or its exponent too large.
    """
    plain = _plain(prediction, reference, asked)
    if plain is not None:
        return plain
    prediction = ordinal(prediction)
    times = claims.time_of_day(prediction), claims.time_of_day(reference)
    if times[1] is not None:
        return _times(times[0], times[1])
    wanted = quantities.parse(reference) or claims.read(reference, asked).quantity
    if wanted is None:
        return CANT_TELL, "the reference doesn't state one number"
    if times[0] is not None:
        return _time_as_number(times[0], wanted)
    claim = claims.read(prediction, asked)
    if claim.quantity is None:
        return CANT_TELL, "the answer doesn't state one number"
    verdict, detail = _decide(claim.quantity, wanted, asked, claim)
    in_brackets = _WORDS_AND_BRACKETS.fullmatch(prediction)
    if in_brackets is not None:
        other = quantities.parse(in_brackets[1])
        if other is not None and quantities.equal(other, wanted) is not (verdict is SAME):
            return CANT_TELL, "a number in words and another one in brackets"
    if verdict is SAME and _something_else(prediction, bare):
        return CANT_TELL, "an ordinal, a date or a decade"
    if verdict is DIFFERENT and abs(wanted.value) in claim.mentioned and abs(wanted.value) != abs(claim.quantity.value):
        return CANT_TELL, "the answer names the reference, but claims another number"
    return verdict, detail


def _plain(prediction: str, reference: str, asked: Asked) -> Verdict | None:
    """The verdict on two whole numbers that nothing can be read into; ``None`` for any other texts."""
    if len(prediction) > _SHORT or len(reference) > _SHORT:
        return None
    found, wanted = _PLAIN.fullmatch(prediction.strip()), _PLAIN.fullmatch(reference.strip())
    if found is None or wanted is None or asked.scale != 1 or asked.unit not in ("", "dollar"):
        return None
    values = [int((match["sign"] or "") + match["digits"].replace(",", "")) for match in (found, wanted)]
    if values[0] == values[1]:
        return SAME, "equal numbers"
    money = any(match["currency"] or match["late"] or match["dollars"] for match in (found, wanted))
    if values[0] == -values[1] or (money and max(values) == 100 * min(values)):
        return None
    return DIFFERENT, "different numbers"


def count_of(text: str) -> Quantity | None:
    """The number and the noun of a text that is nothing else: ``5 stars``."""
    if not _COUNT.fullmatch(text) or _something_else(text, bare=True):
        return None
    return quantities.parse(text)


def _something_else(prediction: str, bare: bool) -> bool:
    if _DECADE.search(prediction):
        return True
    if _ORDINAL.search(prediction):
        return bare or not _LONE_ORDINAL.fullmatch(prediction)
    if not bare:
        return False
    digit = re.search(r"\d", prediction)
    return digit is not None and not _FILLER.fullmatch(prediction[: digit.start()].rstrip("$€£.-+ "))


def _times(found: tuple[int, int, str] | None, wanted: tuple[int, int, str]) -> Verdict:
    if found is None:
        return CANT_TELL, "the reference is a time of day, the answer isn't"
    if found[:2] == wanted[:2] and (found[2] == wanted[2] or not (found[2] and wanted[2])):
        return SAME, "equal times"
    if found[1] != wanted[1] or (found[0] - wanted[0]) % 12:
        return DIFFERENT, "different times"
    return CANT_TELL, "times that may be half a day apart"


def _time_as_number(time: tuple[int, int, str], wanted: Quantity) -> Verdict:
    hours, minutes, _ = time
    readings = {hours + Fraction(minutes, 60), Fraction(hours * 60 + minutes), Fraction(hours), Fraction(hours + 12)}
    if minutes:
        readings.add(Fraction(hours, minutes))
    if wanted.value in readings:
        return CANT_TELL, "a time or a ratio against a number"
    return DIFFERENT, "a time or a ratio, in no reading the number"


def _decide(found: Quantity, wanted: Quantity, asked: Asked, claim: claims.Claim) -> Verdict:
    converted = _converted(found, wanted, asked)
    if converted is not None:
        return converted
    found, others = _scaled(found, wanted, asked)
    found = _signed(found, wanted, asked, claim)
    if quantities.equal(found, wanted) or _noise(found, wanted):
        return _if_equal(found, wanted, asked, others)
    if _rounded_reference(found, wanted):
        return SAME, "the reference is the answer, rounded"
    if wanted.value in others:
        return CANT_TELL, "equal in another scale"
    if found.value == -wanted.value and (claim.loose_sign or claim.loss or (asked.loss and not asked.signed)):
        return CANT_TELL, "numbers that differ in a sign that words may set"
    if found.unit != wanted.unit and (quantities.may_convert(found) or quantities.may_convert(wanted)):
        return CANT_TELL, "different numbers whose units may convert"
    if _HALF_DAY.match(found.unit) and wanted.value == found.value + 12:
        return CANT_TELL, "a time of day in another notation"
    if quantities.may_be_cents(found, wanted):
        return CANT_TELL, "different numbers, which may be dollars and cents"
    if quantities.rounded(found, wanted):
        return CANT_TELL, "equal after rounding"
    if found.decimals is None and not found.percent and _numerator_of(found, wanted, claim):
        return CANT_TELL, "the reference is a part of the answer's fraction"
    if (found.percent != wanted.percent or asked.percent) and 100 in (
        found.value / (wanted.value or 1),
        wanted.value / (found.value or 1),
    ):
        return CANT_TELL, "numbers that are a hundred times each other, and a percentage"
    return DIFFERENT, "different numbers"


def _if_equal(found: Quantity, wanted: Quantity, asked: Asked, others: frozenset[Fraction]) -> Verdict:
    if found.percent != wanted.percent and found.value != wanted.value:
        share = wanted if found.percent else found
        if share.value.denominator == 1:
            return CANT_TELL, "a percentage against a whole number that is its share"
    if not quantities.same_unit(found, wanted):
        return CANT_TELL, "equal numbers with different units"
    if found.unit and not wanted.unit and asked.unit and units.factor(_first(found), asked.unit) not in (None, 1):
        return CANT_TELL, "equal numbers, in another unit than the one asked for"
    if others and not asked.given and found.value in others:
        return CANT_TELL, "equal, but in which scale isn't said"
    return SAME, "equal numbers"


def _first(quantity: Quantity) -> str:
    return " ".join(quantity.unit.split()[:2])


def _converted(found: Quantity, wanted: Quantity, asked: Asked) -> Verdict | None:
    """The verdict where both units are known, and aren't the same; ``None`` otherwise."""
    unit = wanted.unit or asked.unit
    per = units.factor(_first(found), unit)
    if per is None:
        if found.unit == "" and asked.unit and wanted.unit and found.value != wanted.value:
            per = units.factor(asked.unit, wanted.unit)
        if per is None:
            return None
    if per == 1:
        return None
    value = found.value * per
    if value == wanted.value:
        return SAME, "equal after conversion"
    if found.value == wanted.value or not wanted.unit:
        if abs(value - wanted.value) * 20 > abs(wanted.value) and found.value != wanted.value:
            return DIFFERENT, "different after conversion"
        return CANT_TELL, "the unit isn't the one asked for"
    if abs(value - wanted.value) * 20 <= abs(wanted.value):
        return CANT_TELL, "nearly equal after conversion"
    return DIFFERENT, "different after conversion"


def _scaled(found: Quantity, wanted: Quantity, asked: Asked) -> tuple[Quantity, frozenset[Fraction]]:
    """The number in the scale that is asked for, and what it is in other scales."""
    as_said = found.value / found.scale
    others = {found.value, as_said}
    if asked.scale != 1:
        others |= {found.value / asked.scale, found.value * asked.scale}
        if found.scale != 1:
            value = found.value / asked.scale
            found = _with_value(found, value)
    return found, frozenset(others - {found.value})


def _with_value(quantity: Quantity, value: Fraction) -> Quantity:
    return Quantity(value, quantity.percent, quantity.unit, quantity.decimals, quantity.scale)


def _signed(found: Quantity, wanted: Quantity, asked: Asked, claim: claims.Claim) -> Quantity:
    """A loss in words, where the sign says so, is negative; where a loss is asked for, its amount counts."""
    if found.value != -wanted.value or found.value == 0:
        return found
    if asked.signed and claim.loss and wanted.value < 0:
        return _with_value(found, -found.value)
    if asked.loss and not asked.signed and wanted.value > 0:
        return _with_value(found, -found.value)
    return found


def _noise(found: Quantity, wanted: Quantity) -> bool:
    """Whether the two differ only by what floating-point arithmetic adds."""
    if found.percent != wanted.percent:
        return False
    for one, other in ((found, wanted), (wanted, found)):
        if (
            one.decimals is not None
            and one.decimals >= _NOISE_DIGITS
            and (other.decimals is None or other.decimals < 9)
        ):
            size = max(abs(other.value), Fraction(1))
            if abs(one.value - other.value) * 10**_NOISE_DIGITS <= size * 5:
                return True
    return False


def _rounded_reference(found: Quantity, wanted: Quantity) -> bool:
    """Whether the reference, of two decimals or more, is the answer rounded to them, and the answer far more exact."""
    if found.percent != wanted.percent or not wanted.decimals or wanted.decimals < 2:
        return False
    exact = found.decimals is None or found.decimals >= max(_NOISE_DIGITS, wanted.decimals + 6)
    return exact and found.scale == 1 and abs(found.value - wanted.value) * 2 * 10**wanted.decimals <= 1


def _numerator_of(found: Quantity, wanted: Quantity, claim: claims.Claim) -> bool:
    return wanted.value.denominator == 1 and abs(wanted.value) in claim.mentioned
