"""The one number that a sentence claims, and every number that stands in it.

A claim alone decides nothing: "different" also needs that none of the other numbers of the text is the reference.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from sftkey.evaluation.rules import quantities, units
from sftkey.evaluation.rules.number_words import to_numerals
from sftkey.evaluation.rules.quantities import Quantity
from sftkey.evaluation.rules.question import SCALES, Asked
from sftkey.evaluation.rules.statements import asserted, leaves_a_denial

_ORNAMENTS = re.compile(r"[\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f300-\U0001faff]|</?(?:b|i|s|strong|em)>")
_EXPLANATION = re.compile(
    r"\n\s?\n?\s?\W{0,4}(?:explanation|explained|check|because|reason\w*|verif\w*|note|proof|since|steps?|solution|work\w*)\b",
    re.I,
)
_ASIDE = re.compile(r"(?<=[\w.,%$!])\s?\((?!\s?(?:or|and|not|nor|to|than|in|per|s)\b)([^()]*)\)", re.I)
_BRACKETED = re.compile(r"[\s.]?([(\[{])\s?([^()\[\]{},]*?)\s?[)\]}][.!\s]?")
_CONDITION = re.compile(
    r",?\s(?:when|where|since|because|given|provided|assuming|equality|attained|as|if|iff|at|for|with)\b"
    r"(?:[^=]{0,40}[a-z]\s?=|\s(?:[a-z]+\s){0,4}\S*\d\S*\s?[-+*/x×]\s?\d)",
    re.I,
)
_CONCLUSION = re.compile(r"(?:\b(?:so|therefore|thus|hence)\b|[∴⇒]|=>)[\s,:]", re.I)
_OUT_OF = re.compile(
    r"(?<=\d)(\s(?:[a-z]+\s)?)(?:out\sof|of)\s(?:(?:the|a total of)\s)?(?:\d[\d,]*|\w+\s\d[\d,]*)(?![\d%./])", re.I
)
_APPROXIMATELY = re.compile(
    r"(?:[~≈≃]|\\approx\b|\\sim\b|\b(?:approximately|approx\.?|roughly|around|circa)\s)\s?", re.I
)
_BELOW_ZERO = re.compile(r"^\W{0,3}(\d[\d,.]*)(\s?°?\s?[a-z°]*)\sbelow\s(?:zero|0)\b", re.I)
_MINUS = re.compile(r"^\s?(?:minus|negative)\s(?=[$€£]?\d)", re.I)
_DASH = re.compile(r"^\s?[\u2014\u2015]\s?(?=[$€£]?\d)")
_LOOSE_SIGN = re.compile(r"^\s?(?:[\u2014\u2015]|[-\u2013\u2212]\s)\s?[$€£]?\d")
_ENUMERATOR = re.compile(r"^\s?(?:step\s)?\d{1,2}(?:\)|\.(?=\s)|:(?=\s))\s?(?=\S*\d)", re.I)
_MONEY_SUFFIX = re.compile(r"(?<=\d)\s?(k|m|bn|b|million|billion)(?![\w/^])", re.I)
_SUFFIXES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion"}
_CURRENCY_NAME = re.compile(r"\b(?:US|C|CA|A|AU|NZ|HK|S)\$|\b(?:Rs\.?|INR|USD|EUR|GBP)\s?(?=\d)")
_HYPHEN = re.compile(r"(?<=\d)-(?=(?:year|day|week|hour|minute|mile|foot|inch|page|dollar|cent)s?\b)")
_STEP = re.compile(r"step\s\d{1,2}\s?:", re.I)
_TOTAL = re.compile(r"\b(?:in\s(?:total|all)|total|altogether)\b", re.I)
_FIRST_SENTENCE = re.compile(r"\$?\d[\d,.]*(?:\s[a-z]+){1,3}\.(?=\s[A-Z\d])")
_CENT_SIGN = re.compile(r"(?<=\d)\s?¢")
_GROUPS = re.compile(
    r"(?<![\w.,'])(\d{1,3})(?:([ '\u2019\u00a0\u202f\u2009~])\d{3}(?:\2\d{3})*|(?:\.\d{3}){2,})(?:,\d+)?(?![\w.,]*\d)"
)
_GERMAN = re.compile(r"(?<![\w.,])\d{1,3}(?:\.\d{3})+,\d+(?![\d.,])")
_DECIMAL_COMMA = re.compile(r"(?<![\w.,])(\d+),(\d{1,2}|(?<=\b0,)\d+)(?![\d,]|\.\d)")
_TIME = re.compile(r"(?<![\d:.])(\d{1,2})\s?:\s?([0-5]\d)(?::[0-5]\d)?\s?([ap])?\.?\s?m?\b\.?(?![\d:])", re.I)
_PAIR = re.compile(r"(\d[\d,.]*)\s([a-z]+),?\s(?:and\s)?(\d[\d.]*)\s([a-z]+)", re.I)
_MENTION = re.compile(r"(\d+(?:\s\d+)?/\d+)|(\d+(?:[,.\u2009']\d+)*|\.\d+)")
_SCIENTIFIC = re.compile(
    r"(?<![\d.,])\d[\d.,]*\s?(?:×|\\times|\\cdot|[*x·])\s?10\s?(?:\^\s?\{?[-\u2212]?\d+\}?|[⁺⁻]?[⁰¹²³⁴-⁹]+)"
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{([^{}]*)\}")
_COMMAS = re.compile(r"[,\u2009']")
_DOT_GROUPS = re.compile(r"\d{1,3}(?:[.,]\d{3})+(?:[.,]\d+)?")
_DIGIT = re.compile(r"\d")
_HANGING = re.compile(r"(?<=\d)\s?[-\u2013\u2014×^=]\s?$")  # "5/-" is a price
_DECIMAL = re.compile(r"\d+(?:\.\d+)?|\.\d+")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a text says.

    Attributes:
        quantity: The number that it claims; ``None`` where that isn't clear.
        mentioned: Every number in the text, however it may be read.
        loose_sign: Whether a dash before the number may be punctuation.
        loss: Whether words call it a loss.
    """

    quantity: Quantity | None
    mentioned: frozenset[Fraction]
    loose_sign: bool = False
    loss: bool = False


_LOSS = re.compile(
    r"\b(?:los(?:e|es|t|ing|s)|ow(?:e|es|ed|ing)|debts?|deficit|decreas\w*|down|dropp?\w*|fewer|less)\b", re.I
)


def read(text: str, asked: Asked) -> Claim:
    """Read what an answer claims, in the light of what was asked.

    Raises:
        OverLimit: A number is too long or its exponent too large.
    """
    text = quantities.SPACES.sub(r"\1", text).strip()
    mentioned = mentions(text)
    loose = bool(_LOOSE_SIGN.match(text))
    plain = _written_out(text)
    mentioned |= mentions(plain)
    denied = _HANGING.search(plain) or leaves_a_denial(plain) or not _DIGIT.search(asserted(plain))
    found = None if denied else _claimed(plain, asked)
    return Claim(found, mentioned, loose, bool(_LOSS.search(plain)))


def mentions(text: str) -> frozenset[Fraction]:
    """All numbers in a text, with every reading of commas and dots."""
    text = quantities.VULGAR_FRACTION.sub(lambda match: f" {unicodedata.normalize('NFKC', match.group())}", text)
    text = _SCIENTIFIC.sub(" ", text)
    found: set[Fraction] = set()
    for match in _MENTION.finditer(text.replace("\u2044", "/").replace("  ", " ")):
        if len(match.group()) > quantities.MAX_DIGITS:
            continue
        if match.group(1):
            found |= _fraction_readings(match.group(1))
            continue
        number = match.group(2)
        readings = {number.replace(",", ""), *_COMMAS.split(number), number.replace(",", ".")}
        if _DOT_GROUPS.fullmatch(number):
            readings.add(re.sub(r"\D", "", number))
        found |= {Fraction(reading) for reading in readings if _DECIMAL.fullmatch(reading)}
    return frozenset(found)


def _fraction_readings(text: str) -> set[Fraction]:
    """Of ``2 1/2`` its value; of ``12/20`` 12, too: 12 of 20."""
    whole, space, fraction = text.partition(" ")
    over, _, under = (fraction if space else whole).partition("/")
    if not int(under):
        return set()
    value = Fraction(int(over), int(under))
    if space:
        return {int(whole) + value}
    is_share = int(over) < int(under) and (value.denominator != int(under) or int(under) % 10 == 0)
    return {value, Fraction(int(over))} if is_share else {value}


def _written_out(text: str) -> str:
    """The text with number words, separators, currencies and signs in one spelling, without ornaments."""
    text = _BOX.sub(r"\1", _ORNAMENTS.sub(" ", text))
    text = _HYPHEN.sub(" ", _CURRENCY_NAME.sub("$", text))
    text = _CENT_SIGN.sub(" cents", text)
    text = _GERMAN.sub(lambda match: match.group().replace(".", "").replace(",", "."), text)
    text = _GROUPS.sub(_joined, text)
    text = _DECIMAL_COMMA.sub(_decimal, text)
    text = to_numerals(text)
    if "$" in text or "€" in text or "£" in text:
        text = _MONEY_SUFFIX.sub(lambda match: f" {_SUFFIXES.get(match.group(1).lower(), match.group(1))}", text)
    text = _BELOW_ZERO.sub(r"-\1\2", text)
    text = _MINUS.sub("-", _DASH.sub("-", text))
    return _APPROXIMATELY.sub("", text).strip()


def _joined(match: re.Match[str]) -> str:
    whole, comma, decimals = match.group().partition(",")
    return re.sub(r"\D", "", whole) + (f".{decimals}" if comma else "")


def _decimal(match: re.Match[str]) -> str:
    """``0,5`` and ``12,5``; not a list such as ``5,12`` and not ``1,00``."""
    whole, decimals = match.groups()
    if whole.lstrip("0") == "" and whole == "0":
        return f"{whole}.{decimals}"
    return match.group()


def _claimed(text: str, asked: Asked) -> Quantity | None:
    for part in _parts(text):
        found = quantities.parse(part) or _compound(part) or _asked_for(part, asked)
        if found is not None:
            return found
    return None


def _parts(text: str) -> list[str]:
    """The text, and what is left of it without explanation, aside, condition; most careful first."""
    lines = text.split("\n")
    if len(lines) > 1 and all(_STEP.match(line.strip()) for line in lines):
        text = lines[-1].partition(":")[2].strip()
    explained = _EXPLANATION.search(text)
    if explained is not None and any(character.isdigit() for character in text[: explained.start()]):
        text = text[: explained.start()].strip()
    text = _OUT_OF.sub(r"\1", text)
    parts = []
    if (bracketed := _BRACKETED.fullmatch(text)) is not None:
        text = bracketed.group(2)
    if (enumerator := _ENUMERATOR.match(text)) is not None and "\n" not in text:
        text = text[enumerator.end() :]
    condition = _CONDITION.search(text)
    if condition is not None and any(character.isdigit() for character in text[: condition.start()]):
        text = text[: condition.start()]
    without = _ASIDE.sub("", text)
    if any(character.isdigit() for character in without):
        text = without
    text = _main_part(text)
    concluded = list(_CONCLUSION.finditer(text))
    if concluded and any(character.isdigit() for character in text[concluded[-1].end() :]):
        text = text[concluded[-1].end() :]
    parts.append(text)
    return parts


def _main_part(text: str) -> str:
    """The part with the total, the first of several sentences if it is a bare number."""
    totals = [part for part in re.split(r",\s|;\s", text) if _TOTAL.search(part) and any(map(str.isdigit, part))]
    if len(totals) == 1 and "=" not in text:
        return totals[0]
    sentence = _FIRST_SENTENCE.match(text)
    return text if sentence is None else sentence.group()


def _compound(text: str) -> Quantity | None:
    """``3 hours and 30 minutes``, ``50 dollars and 0 cents``: in the larger unit."""
    match = _PAIR.fullmatch(text.rstrip(".! "))
    if match is None:
        return None
    whole, unit, part, smaller = match.groups()
    one, other = quantities.parse(whole), quantities.parse(part)
    per = units.factor(units.singular(smaller.lower()), units.singular(unit.lower()))
    if one is None or other is None or per is None or not 0 < per < 1 or other.value * per >= 1:
        return None
    return replace(one, value=one.value + other.value * per, unit=units.singular(unit.lower()))


def _asked_for(text: str, asked: Asked) -> Quantity | None:
    """Of several numbers the one with the noun or the scale that is asked for."""
    names = {name for name in (*asked.nouns, asked.unit) if name}
    if not names:
        return None
    found = []
    for match in quantities.NUMBER.finditer(text):
        following = re.findall(r"[^\W\d_]+", text[match.end() : match.end() + 40])[:2]
        spoken = {units.singular(word.casefold()) for word in following[:1]}
        if match["scale"]:
            spoken.add(units.singular(match["scale"].casefold()))
        if spoken & names:
            before = text[max(0, match.start() - 60) : match.start()]
            if quantities.HEDGES.search(before):
                return None
            found.append(quantities.parse(match.group() + " " + " ".join(following[:1])))
    return found[0] if len(found) == 1 else None


def time_of_day(text: str) -> tuple[int, int, str] | None:
    """Hours, minutes, and "a", "p" or nothing, of a text that is a time of day and nothing else."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    return int(match.group(1)), int(match.group(2)), (match.group(3) or "").lower()


__all__ = ["SCALES", "Claim", "mentions", "read", "time_of_day"]
