"""Numbers in words, written as numerals: twenty-one hundred, two and a half, a dozen, none."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = {
    word: value
    for value, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen""".split()
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}

_WORD = rf"(?:{'|'.join(sorted((*_ONES, *_TENS, *_SCALES), key=len, reverse=True))})"
_RUN = re.compile(
    rf"\b(?:(?:an?\s)(?=hundred|thousand|million|billion|dozen))?{_WORD}(?:(?:\s|-|\sand\s){_WORD})*\b", re.I
)
_HALF_OF_A_SCALE = re.compile(r"\bhalf\s(?:of\s)?an?\s(dozen|hundred|thousand|million|billion)\b", re.I)
_AND_A_PART = re.compile(
    r"(?<![\d.,/])(\d+)(?:\sand\s|\s)(?:(?:an?|one)[\s-](half|third|quarter|fourth|fifth)|(1/2|1/3|2/3|1/4|3/4))(?![\w/])",
    re.I,
)
_PART = re.compile(
    r"\b(?:(an?|one|two|three|four|five|seven)[\s-])?(half|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?"
    r"|tenths?)\b",
    re.I,
)
_NOT_COUNTED = (
    "(?:solutions?|answers?|ideas?|clue|way|such|information|results?|numbers?|values?|limits?|real|relation)"
)
_NONE = re.compile(
    rf"(?:none|nothing|nobody|no\sone|nil|no\s(?!{_NOT_COUNTED}\b)[a-z]+(?:\s(?:left|remain|remaining|at\sall))?)[.!]?",
    re.I,
)
_PRONOUN = re.compile(r"(?:of|by|another|or|can|could|is|has)\b", re.I)
_ORDINALS = dict(
    zip(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split(),
        "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th 11th 12th".split(),
        strict=True,
    )
)
_SPLIT = re.compile(r"[\s-]")


def to_numerals(text: str) -> str:
    """Write the number words of a text as numerals; a final scale stays a word: ``five million`` is ``5 million``.

    "One" stays where it may be a pronoun, and what is no well-formed number ("two three") stays as it is.
    """
    bare = text.strip()
    if _NONE.fullmatch(bare):
        return "0"
    whole = _PART.fullmatch(bare.rstrip("."))
    if whole is not None:
        return _part(whole)
    text = _HALF_OF_A_SCALE.sub(lambda match: str(_SCALES[match.group(1).lower()] // 2), text)
    text = _RUN.sub(lambda match: _numeral(match, text), text)
    return _AND_A_PART.sub(_with_part, text)


def _numeral(match: re.Match[str], text: str) -> str:
    words = [word for word in _SPLIT.split(match.group().lower()) if word not in ("and", "a", "an", "")]
    if words == ["one"] and (text[: match.start()].strip() or _PRONOUN.match(text[match.end() :].lstrip())):
        return match.group()
    scale = words[-1] if words[-1] in _SCALES else None
    if scale and any(_SCALES.get(word, 0) >= _SCALES[scale] for word in words[:-1]):
        scale = None  # one thousand four hundred
    value = _value(words[:-1] if scale else words) if words[:-1] or not scale else _bare_scale(match, text)
    if value is None:
        return match.group()
    return f"{value} {scale}" if scale else str(value)


def _bare_scale(match: re.Match[str], text: str) -> int | None:
    """A scale without a number before it: one of them after "a", none where a numeral precedes ("5 million")."""
    if match.group()[:1].lower() == "a" and " " in match.group().strip():
        return 1
    return 1 if not text[: match.start()].strip() and match.group().lower() != "dozen" else None


def _value(words: list[str]) -> int | None:
    total = current = 0
    last = "start"
    for word in words:
        if word in _ONES:
            value = _ONES[word]
            if last == "one" or (last == "ten" and not 0 < value < 10) or (value == 0 and len(words) > 1):
                return None
            current, last = current + value, "one"
        elif word in _TENS:
            if last in ("one", "ten"):
                return None
            current, last = current + _TENS[word], "ten"
        elif word in ("hundred", "dozen"):
            current, last = max(current, 1) * _SCALES[word], "scale"
        else:
            if total and total < current * _SCALES[word]:
                return None
            total, current, last = total + max(current, 1) * _SCALES[word], 0, "scale"
    return total + current


def _with_part(match: re.Match[str]) -> str:
    part = Fraction(1, _PARTS[match.group(2).lower()]) if match.group(2) else Fraction(match.group(3))
    value = int(match.group(1)) + part
    return f"{value.numerator}/{value.denominator}"


def _part(match: re.Match[str]) -> str:
    count = (match.group(1) or "one").lower()
    number = 1 if count in ("a", "an") else _ONES[count]
    under = _PARTS[match.group(2).lower().rstrip("s")]
    return f"{number}/{under}" if number < under else match.group()


def ordinal(text: str) -> str:
    """A text that is an ordinal and nothing else, as ``2nd``; any other text as it is."""
    return _ORDINALS.get(text.strip().casefold(), text)
