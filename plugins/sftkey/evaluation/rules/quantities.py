r"""Numbers as people and models write them: read exactly, compared exactly, without sympy.

The rules, which `compare` applies:

- Signs, thousands separators, currency signs, LaTeX mark-up and a trailing full stop don't matter: 1,000 = 1000 =
  1000.0 = $1,000 = ``1{,}000``. Fractions and mixed numbers are exact: 1/2 = ``\frac{1}{2}`` = 0.5.
- A percentage p% against a plain number r: they are the same if p = r or p/100 = r, so 50% = 0.5 and 50% = 50.
  Between two percentages, and between two plain numbers, there is no such factor.
- A unit on one side only doesn't matter when the numbers are equal. When they aren't, and one side has a unit that
  converts into others (minutes, cents, cm), the rules can't tell; nor can they if equal numbers have different units.
- Nor can a number of dollars that is a hundred times the other number, or a hundredth: that may be cents.
- A number that is the other one rounded to its decimals (3.33 for 10/3, 33% for 1/3) can't be told either.
- What goes on in words, or is only part of a calculation (18 dollars and fifty cents, half of 36, 12², $2M), states
  no one number.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from sftkey.evaluation.rules.limits import OverLimit
from sftkey.evaluation.rules.question import SCALES
from sftkey.evaluation.rules.units import singular

MAX_DIGITS = 1_000
"""Numbers with more digits are not read."""

MAX_EXPONENT = 300
"""Powers of ten beyond this, either way, are not computed."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit.

    Attributes:
        value: The number as written; a percentage is not divided by 100.
        percent: Whether it is a percentage.
        unit: The words after it (or the currency before it), normalised; may be empty.
        decimals: Digits after the decimal point; ``None`` for a fraction, which is exact.
        scale: 1,000 for "5 thousand", whose value is 5,000; 1 where no such word follows.
    """

    value: Fraction
    percent: bool
    unit: str
    decimals: int | None
    scale: int = 1


_REPLACEMENTS = (
    (re.compile(r"^\s?(\$\$?)([^$]*)\1[\s.]?$"), r"\2"),
    (re.compile(r"[\u2212\u2012\u2013\ufe63\uff0d]"), "-"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\uff05"), "%"),
    (re.compile(r"\u2044"), "/"),
    (re.compile(r"\\[,;:! ]|[\u00a0\u2009\u202f]"), "\u2009"),
    (re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|rm|bf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dt]?frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}"), r" \1/\2 "),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)(?!\d)"), r" \1/\2 "),
    (re.compile(r"\^\{\s*(-?\d+)\s*\}"), r"^\1"),
    (re.compile(r"\^?\\circ\b"), "°"),
    (re.compile(r"\s?(?:\\times|\\cdot|[×*x·])\s?10\s?\^\s?"), "e"),
    (re.compile(r"\\left|\\right|\\[()\[\]]|\*\*|`"), " "),
    (re.compile(r"\\([%$#&])"), r"\1"),
)
SPACES = re.compile(r"(\s)\s+")
"""Texts are squeezed first, so that no pattern has to look through more than one blank."""

_SUPERSCRIPTS = re.compile(r"(?<=[\d)}])[⁺⁻]?[⁰¹²³⁴-⁹]+")
VULGAR_FRACTION = re.compile(r"[¼-¾⅐-⅞]")
_CURRENCY = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:\u2009\d{3})+|\d+)(?![\d])"
_PLAIN = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
NUMBER = re.compile(
    rf"""(?<![\w^.,/])                                     # not inside a word, an exponent or a longer number
    (?:(?P<sign>[-+])\s?)? (?P<currency>[$€£¥₹])? \s? (?P<late_sign>[-+])?
    (?: (?P<whole>\d+)\s+(?P<over>\d+)\s*/\s*(?P<under>\d+)
      | (?P<numerator>{_PLAIN})\s*/\s*(?P<denominator>{_PLAIN})
      | (?P<plain>{_PLAIN})(?:[eE]\{{?(?P<exponent>[-+]?\d+)\}}?(?![\w]))?
    )
    (?![\d/^])
    \s*(?P<percent>%|percents?\b|per\ cent\b)?
    \s*(?P<scale>hundreds?\b|thousands?\b|millions?\b|billions?\b|trillions?\b|dozens?\b)?""",
    re.VERBOSE | re.IGNORECASE,
)
_ANY_DIGIT = re.compile(r"(?<![A-Za-z^])\d|(?<=[^A-Za-z]e)\d")
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS}}}")
# A number after one of these is a bound, an alternative or a denial, not an answer.
HEDGES = re.compile(
    r"\b(?:not|no|never|least|most|over|under|above|below|less|fewer|more|than|between|or|nor|and|from"
    r"|(?<!add )(?<!adds )(?<!sum )(?<!sums )up to|(?:close|near|next) to)\b|n't"
    r"|[<>≤≥±~]|\\(?:le|ge|leq|geq|lt|gt|pm|neq?)\b",
    re.IGNORECASE,
)
# A number before one of these is the beginning of another one, and so is one after the words below.
_NUMBER_WORD = (
    r"(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundreds?|thousands?|millions?|billions?|trillions?|dozens?)\b"
)
_GOES_ON = re.compile(
    rf"^[\s-]*(?:{_NUMBER_WORD}|(?:squared|cubed|factorial|below\s+zero)\b)|^!\s*[a-z]"
    rf"|\band\s+(?:an?\s+|one[\s-]+)?(?:{_NUMBER_WORD}|(?:half|third|quarter|fourth|fifth|tenth)\b)"
)
_IN_A_CALCULATION = re.compile(
    r"\b(?:(?:half|third|quarter|double|twice|thrice|triple)(?:\s+(?:of|the|as\s+(?:many|much)\s+as))*"
    r"|times|plus|minus|negative|divided\s+by|multiplied\s+by|root\s+of)\s++[$€£¥₹]?\s*+$",
    re.IGNORECASE,
)
_ANOTHER = re.compile(r"\s*(?:or|and|to|-)\b", re.IGNORECASE)
# A constant that multiplies the number before it: "4e", "4 i", "4e^2".
_TIMES_A_CONSTANT = re.compile(r"(?:[eEi]|\s[ei])(?![^\W\d_]|\.e\b)")
# What makes another number of it, "4k", "4 lakh", or the multiple of a name, "4x", "4ab". A unit of two letters doesn't.
_LETTERS = re.compile(r"[A-Za-z]+")
_MAGNITUDES = frozenset("bn mn tn mil mio mln mrd tsd lakh lakhs crore crores".split())
_MAGNITUDE_OR_NAME = frozenset("k K M T x X y z".split())
_SHORT_UNITS = frozenset(
    """s m g h l L d t w N J W V A C F c p mm cm dm km mg kg ml mL dl cl ft in yd mi lb oz hr yr mo wk am pm AM PM
    st nd rd th B kB KB MB GB TB Hz kW mW kV mV mA kJ Pa ms ns eV dB Wh cc ha pt qt sq""".split()
)
_MONEY_SUFFIX = re.compile(r"^\s?(?:k|mm?|mn|bn?|tn?)\b", re.IGNORECASE)
_OPERATORS = re.compile(r"[+*/^√π|{}()\[\]]|\\[A-Za-z]")
# Units that a right answer may have in place of the expected ones, with another number.
_CONVERTIBLE = frozenset(
    """second sec minute min hour hr h day week month year decade century
    cent penny dime nickel quarter dozen score gross pair k
    mm cm dm m km meter metre centimeter centimetre millimeter millimetre kilometer kilometre
    inch in foot feet ft yard yd mile mi mph kmh degree radian rad
    mn bn mg g kg gram kilogram milligram ounce oz pound lb ton tonne
    ml l liter litre milliliter millilitre gallon quart pint cup""".split()
)


def parse(text: str, *, strict: bool = False) -> Quantity | None:
    """Read a text that states one number; ``None`` for none, several, or one that is hedged or part of a formula.

    Args:
        text: An extracted answer, with or without words around the number; of ``a = b = c`` the last part counts.
        strict: Accept nothing beside the number but a currency sign, a percent sign, a degree sign and ``x =``.

    Raises:
        OverLimit: A number is too long or its exponent too large.
    """
    text = SPACES.sub(r"\1", text)
    text = _SUPERSCRIPTS.sub(lambda match: f"^{unicodedata.normalize('NFKC', match.group())}", text)
    text = VULGAR_FRACTION.sub(lambda match: f" {unicodedata.normalize('NFKC', match.group())} ", text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    if _LONG_NUMBER.search(text):
        raise OverLimit(f"a number of more than {MAX_DIGITS} digits")
    name, equals, value = text.rpartition("=")
    if equals:
        if name.rstrip().endswith(("<", ">", "!", "~", "\u2260", "\u2264", "\u2265")):
            return None
        if strict and not re.fullmatch(r"\s*\$?\s*\\?[A-Za-z]{0,5}(?:_\{?\w\}?)?\s*", name):
            return None
        text = value
    matches = list(NUMBER.finditer(text))
    if len(matches) != 1:
        return None
    match = matches[0]
    before, after = text[: match.start()], text[match.end() :]
    if (
        _ANY_DIGIT.search(before)
        or HEDGES.search(before)
        or _IN_A_CALCULATION.search(before)
        or _ANY_DIGIT.search(after)
        or _ANOTHER.match(after)
        or _TIMES_A_CONSTANT.match(after)
        or _is_multiplied(after, spaced=text[: match.end()][-1:].isspace())
        or _GOES_ON.search(after)
        or (match["currency"] and _MONEY_SUFFIX.match(after))
    ):
        return None
    if strict:
        if re.sub(r"[$°.\s\u2009]", "", before + after):
            return None
    elif _OPERATORS.search(re.sub(r"(?<=[A-Za-z])(?:\s*\^-?\d|/(?=[A-Za-z]))", "", before + after)):
        return None
    return _quantity(match, _unit(match["currency"], before, after))


def _is_multiplied(after: str, *, spaced: bool) -> bool:
    """Whether the letters after a number stand for a factor."""
    letters = _LETTERS.match(after)
    if letters is None:
        return False
    word = letters.group()
    if word.casefold() in _MAGNITUDES:
        return True
    return word in _MAGNITUDE_OR_NAME if spaced else len(word) <= 2 and word not in _SHORT_UNITS


def _quantity(match: re.Match[str], unit: str) -> Quantity | None:
    decimals: int | None = None
    if over := match["over"] or match["numerator"]:
        denominator = _plain(match["under"] or match["denominator"])
        if not denominator:
            return None
        value = _plain(match["whole"] or "0") + _plain(over) / denominator
    else:
        value = _plain(match["plain"])
        decimals = len(match["plain"].partition(".")[2])
        if exponent := match["exponent"]:
            if len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT:
                raise OverLimit(f"a power of ten beyond 10^{MAX_EXPONENT}")
            value *= Fraction(10) ** int(exponent)
            decimals = max(0, decimals - int(exponent))
    scale = 1
    if match["scale"]:
        scale = SCALES[match["scale"].lower().rstrip("s")]
        value *= scale
        decimals = None
    if "-" in (match["sign"], match["late_sign"]):
        value = -value
    return Quantity(value, bool(match["percent"]), unit, decimals, scale)


def _plain(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace("\u2009", ""))


def _unit(currency: str | None, before: str, after: str) -> str:
    if currency is None and (sign := re.search(r"([$€£¥₹])\s*$", before)):
        currency = sign.group(1)
    if currency:
        return _CURRENCY[currency]
    if (sign := re.match(r"\s*([€£¥₹])", after)) is not None:
        return _CURRENCY[sign.group(1)]
    if after.lstrip().startswith("°"):
        return "degree"
    words = re.findall(r"[^\W\d_][\w/^²³'-]*", after)
    return " ".join(singular(word.casefold()) for word in words)


def equal(first: Quantity, second: Quantity) -> bool:
    """Whether two numbers are equal, by the rule for percentages above, whatever their units."""
    if first.percent == second.percent:
        return first.value == second.value
    percentage, plain = (first, second) if first.percent else (second, first)
    return plain.value in (percentage.value, percentage.value / 100)


def same_unit(first: Quantity, second: Quantity) -> bool:
    """Whether the units don't contradict each other: one is missing, or both begin with the same word."""
    if not first.unit or not second.unit:
        return True
    return first.unit.split()[0] == second.unit.split()[0]


def may_convert(quantity: Quantity) -> bool:
    """Whether its unit converts into others, as minutes do into hours."""
    return any(part in _CONVERTIBLE for part in re.split(r"[\s/^²³-]+", quantity.unit)[:2])


def is_unit(word: str) -> bool:
    """Whether a word is a unit of measure, of money or of time."""
    return singular(word.casefold()) in _CONVERTIBLE | set(_CURRENCY.values())


def may_be_cents(first: Quantity, second: Quantity) -> bool:
    """Whether one is an amount of money and the other, without a unit, a hundred times as much or a hundredth."""
    for money, plain in ((first, second), (second, first)):
        if money.unit and money.unit.split()[0] in _CURRENCY.values() and not plain.unit:
            return money.value * 100 == plain.value or money.value == plain.value * 100
    return False


def rounded(first: Quantity, second: Quantity) -> bool:
    """Whether one number is the other one rounded to the decimals it is written with, one at least.

    Where only one is a percentage, it is taken as it is and as a share, which has two decimals more.
    """
    if first.percent != second.percent:
        return any(rounded(one, other) for one in _without_percent(first) for other in _without_percent(second))
    for coarse, fine in ((first, second), (second, first)):
        finer = fine.decimals is None or (coarse.decimals is not None and fine.decimals > coarse.decimals)
        if coarse.decimals and finer and abs(coarse.value - fine.value) * 2 <= Fraction(1, 10**coarse.decimals):
            return True
    return False


def _without_percent(quantity: Quantity) -> tuple[Quantity, ...]:
    if not quantity.percent:
        return (quantity,)
    plain = replace(quantity, percent=False)
    decimals = None if quantity.decimals is None else quantity.decimals + 2
    return plain, replace(plain, value=quantity.value / 100, decimals=decimals)
