"""Units that convert into one another, exactly."""

from __future__ import annotations

import re
from fractions import Fraction

_IRREGULAR = {
    "feet": "foot",
    "inches": "inch",
    "pennies": "penny",
    "centuries": "century",
    "people": "person",
    "dozens": "dozen",
    "gross": "gross",
}

# Dimension -> unit names -> how many of the dimension's base unit one of them is.
_TABLE: dict[str, dict[str, str]] = {
    "time": {
        "second sec s": "1",
        "minute min": "60",
        "hour hr h": "3600",
        "day": "86400",
        "week": "604800",
        "fortnight": "1209600",
    },
    "calendar": {"month": "1", "year yr": "12", "decade": "120", "century": "1200"},
    "money": {"cent penny ¢": "1", "nickel": "5", "dime": "10", "dollar buck usd us$": "100"},
    "count": {"piece item unit": "1", "pair couple": "2", "dozen": "12", "score": "20", "gross": "144"},
    "length": {
        "mm millimeter millimetre": "1",
        "cm centimeter centimetre": "10",
        "dm": "100",
        "m meter metre": "1000",
        "km kilometer kilometre": "1000000",
        "inch in": "25.4",
        "foot ft": "304.8",
        "yard yd": "914.4",
        "mile mi": "1609344",
    },
    "mass": {
        "mg milligram": "0.001",
        "g gram": "1",
        "kg kilogram kilo": "1000",
        "ton tonne": "1000000",
    },
    "weight": {"ounce oz": "1", "pound lb": "16"},
    "volume": {"ml milliliter millilitre": "1", "cl": "10", "l liter litre": "1000"},
    "capacity": {"tablespoon tbsp": "1/16", "cup": "1", "pint": "2", "quart": "4", "gallon": "16"},
    "speed": {"km/h kmh kph": "1", "m/s": "3.6"},
    "angle": {"degree deg": "1"},
}
_UNITS = {
    name: (dimension, Fraction(factor))
    for dimension, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}
_SPEEDS = frozenset(name for name, (dimension, _) in _UNITS.items() if dimension == "speed")
_PARTS = re.compile(r"(?<=[a-z])\^?([23²³])$")
_SUPERSCRIPT = {"²": 2, "³": 3, "2": 2, "3": 3}
_SHORT = frozenset("in s h m g l".split())


def singular(word: str) -> str:
    """The singular of a noun, casefolded by the caller."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "/s")) else word


def known(unit: str) -> tuple[str, Fraction, int] | None:
    """The dimension of a unit, its size in the dimension's base unit, and its power; ``None`` for any other word.

    The unit is the first word that is one (``cubic inches``, ``cm^2``); of a quotient (``km/h``) nothing is known.
    """
    words = unit.casefold().split()
    if words and words[0] in _SPEEDS:
        return "speed", _UNITS[words[0]][1], 1
    if not words or any("/" in word or word == "per" for word in words[:3]):
        return None
    power = 1
    if words[0] in ("square", "cubic", "sq", "cu") and len(words) > 1:
        power = 2 if words[0].startswith("sq") else 3
        words = words[1:]
    word = words[0]
    if match := _PARTS.search(word):
        word, power = word[: match.start()], _SUPERSCRIPT[match.group(1)]
    found = _UNITS.get(singular(word))
    if found is None or (word in ("in",) and len(words) > 1):
        return None
    return found[0], found[1] ** power, power


def factor(unit: str, other: str) -> Fraction | None:
    """How many of `other` one of `unit` is; ``None`` where that isn't known."""
    one, two = known(unit), known(other)
    if one is None or two is None or one[0] != two[0] or one[2] != two[2]:
        return None
    return one[1] / two[1]
