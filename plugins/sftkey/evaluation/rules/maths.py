"""Compare answers in mathematics: words by words, plain numbers at once, formulas in the bounded process."""

from __future__ import annotations

import re

from sftkey.evaluation.rules import numbers, quantities, units
from sftkey.evaluation.rules.formula_process import FORMULAS
from sftkey.evaluation.rules.notation import canonical, comma_readings
from sftkey.evaluation.rules.question import Asked
from sftkey.evaluation.rules.statements import denies
from sftkey.evaluation.rules.text import as_words
from sftkey.evaluation.verdicts import RuleVerdict

SAME, DIFFERENT, CANT_TELL = RuleVerdict.SAME, RuleVerdict.DIFFERENT, RuleVerdict.CANT_TELL
Verdict = tuple[RuleVerdict, str]

LETTER = re.compile(r"\s?(?:(?:option|choice|answer:?)\s)?\(?\s?([A-H])\s?\)?\s?[.):]?\s?", re.I)
_LABELLED = re.compile(r"(?:\(([A-H])\)|([A-H])[).:])\s(?=\S)")
_LETTERS = re.compile(r"[A-H](?:(?:,\s?|\s|\sand\s)?[A-H]){1,7}")
_PHRASES = (
    (re.compile(r"\b(?:the\sset\sof\s)?all\s(?:real\snumbers|reals)\b", re.I), r"\\mathbb{R}"),
    (re.compile(r"\bno\s(?:real\s)?solutions?(?:\sexists?)?\b|\bno\sreal\sroots?\b", re.I), "no solution"),
    (re.compile(r"\b(?:it\s)?does\snot\sexist\b|\bDNE\b", re.I), "does not exist"),
)
_CONDITION = re.compile(
    r",?\s\(?\s?(?:when|where|since|because|given|provided|assuming|with\sequality|equality|attained|achieved|reached|at|if|iff|for"
    r"|as)\s[^,;]{0,80}(?:=|\\[gl]eq?\b|[<>]|\\in\b)[^,;]*\)?$",
    re.I,
)
_ASIDE = re.compile(r"(?<=[\w}.!])\s\((?:[^()]*(?<![\\A-Za-z])[a-z]{3,}[^()]*|\s?[a-z]\s?=[^()]*)\)$")
_LEAD = re.compile(
    r"^(?:so|thus|hence|therefore)?,?\s?(?:the|its|our|a)?\s?(?:[a-z]+\s){1,4}(?:is|are|equals|equal\sto)\s(?:equal\sto\s|exactly\s)?(?=\S)",
    re.I,
)
_DENIAL = re.compile(r"\b(?:not|no|never|least|most|more|less|than|over|under|between|except|either|neither)\b", re.I)
_CONCLUSION = re.compile(
    r"(?:,\s?|\s)(?:so|therefore|thus|hence|\\therefore|\\Rightarrow|\\implies)\s(?:that\s)?", re.I
)
_LABEL = re.compile(r"^(?:final\s)?answer\s?:\s", re.I)
_ABOUT = re.compile(r"^(?:\\(?:approx|sim|simeq)\b|~)\s?")
_BETWEEN = re.compile(r"(\\(?:approx|simeq|doteq)\b|≈)")
_COMMAND = re.compile(r"\\[A-Za-z]+|\{[pbv]?matrix\}")
_WORD = re.compile(r"[^\W\d_]{2,}|(?<=[\d}])\s(?:[mglshk]|k?m/[sh])(?=(?:\s?\^\s?\{?[23]\}?)?$)")
_ITEMS = re.compile(r"(?:\(\d\)\s?){2,}")
_FORMULA_WORDS = frozenset("sin cos tan cot sec csc log ln lg exp gcd lcm max min mod or and if pi sqrt".split())
_PER = frozenset("square cubic per sq cu and unit units way ways".split())
_SEPARATOR = re.compile(r"[,;]|\b(?:and|or)\b")
_DEGREE = re.compile(r"\\circ\b")


def compare(prediction: str, reference: str, asked: Asked) -> Verdict:
    """Compare two answers.

    Args:
        prediction: The answer.
        reference: The reference.
        asked: What the question asks for.

    Raises:
        OverLimit: Comparing them would exceed a bound.
    """
    as_text = as_words(prediction, reference)
    exact, approximate = _approximated(prediction)
    if approximate:
        verdicts = [compare(side, reference, asked) for side in (exact, approximate)]
        return next((one for one in verdicts if one[0] is SAME), (CANT_TELL, "an exact value and an approximation"))
    found, wanted = _simplified(prediction), _simplified(reference)
    if found and found == wanted:
        return SAME, "same formula"
    letter = LETTER.fullmatch(wanted)
    if letter is not None and letter.group(1).isupper():
        return _letters(found, letter.group(1))
    if _LETTERS.fullmatch(found) and _LETTERS.fullmatch(wanted):
        letters = [set(re.findall(r"[A-H]", side)) for side in (found, wanted)]
        return (SAME if letters[0] == letters[1] else DIFFERENT), "several letters"
    found, wanted = _statement(_LABELLED.sub("", found, count=1)), _statement(wanted)
    if found and found == wanted:
        return SAME, "same formula"
    if _ITEMS.fullmatch(found) or _ITEMS.fullmatch(wanted):
        return CANT_TELL, "a product or a choice of statements"
    plain = _plain(found, wanted, asked)
    if plain is not None:
        return plain
    words = _words(found, wanted), _words(wanted, found)
    if any(words):
        if as_text is not None:
            return as_text
        return _with_words(found, wanted, words, asked)
    return FORMULAS.compare(found, wanted, asked)


def _approximated(text: str) -> tuple[str, str]:
    """Both sides of ``1/3 ≈ 0.33``; two empty texts where there is no such sign between two values."""
    exact, sign, approximate = [*_BETWEEN.split(text, maxsplit=1), "", ""][:3]
    both = sign and re.search(r"\d|\\[A-Za-z]", exact) and re.search(r"\d|\\[A-Za-z]", approximate)
    return (exact, approximate) if both else ("", "")


def _simplified(text: str) -> str:
    text = _ABOUT.sub("", _LABEL.sub("", canonical(text)))
    for phrase, replacement in _PHRASES:
        text = phrase.sub(replacement, text)
    return text.strip()


def _letters(found: str, wanted: str) -> Verdict:
    labelled = _LABELLED.match(found)
    chosen = LETTER.fullmatch(found if labelled is None else labelled[1] or labelled[2])
    if chosen is None:
        return CANT_TELL, "the reference is a lone letter, the answer isn't"
    if chosen.group(1) != wanted:
        same = chosen.group(1).upper() == wanted
        return (SAME, "lone letters of other case") if same else (DIFFERENT, "lone letters")
    return SAME, "lone letters"


def _statement(text: str) -> str:
    """What a sentence states: without "the minimum is", "when x = 2", "(since 70 + 3 = 73)", "x = 3, so"."""
    concluded = list(_CONCLUSION.finditer(text))
    if concluded and text[concluded[-1].end() :].strip():
        text = text[concluded[-1].end() :]
    for pattern in (_ASIDE, _CONDITION):
        cut = pattern.search(text)
        if cut is not None and re.search(r"[\d\\]", text[: cut.start()]) and not _DENIAL.search(text[: cut.start()]):
            text = text[: cut.start()].strip(" ,;")
    lead = _LEAD.match(text)
    denied = lead is not None and (_DENIAL.search(lead.group()) or denies(lead.group()))
    if lead is not None and not denied and not _FORMULA_WORDS & set(lead.group().split()):
        text = text[lead.end() :]
    return text.rstrip(" ,.").lstrip(" ,")


def _plain(found: str, wanted: str, asked: Asked) -> Verdict | None:
    """The verdict on two plain numbers; ``None`` where one isn't, or has a comma of several meanings."""
    sides = []
    for text, other in ((found, wanted), (wanted, found)):
        readings = comma_readings(text, other, asked)
        if (
            len(readings) != 1
            or re.search(r"\d,\d", readings[0])
            or "_" in text.rpartition("=")[2]
            or "overline" in text
        ):
            return None
        sides.append(readings[0])
    if any(quantities.parse(side, strict=True) is None for side in sides):
        return None
    if any(_DEGREE.search(side) for side in sides) and not all(_DEGREE.search(side) for side in sides):
        return None
    names = [side.rpartition("=")[0].strip() for side in sides]
    verdict, detail = numbers.compare(sides[0], sides[1], asked)
    if verdict is SAME and all(names) and names[0].partition("_")[0] != names[1].partition("_")[0]:
        return CANT_TELL, "equal numbers of different names"
    return verdict, detail


def _words(text: str, other: str) -> list[str]:
    """The words of a text; two or three letters that the other formula has, too, are a product."""
    letters = set(_COMMAND.sub(" ", other))
    found = []
    for word in _WORD.findall(_COMMAND.sub(" ", text)):
        word = word.strip()
        product = len(word) <= 3 and set(word) <= letters and not quantities.is_unit(word) and word.isascii()
        if word.lower() not in _FORMULA_WORDS and not product:
            found.append(word)
    return found


def _with_words(found: str, wanted: str, words: tuple[list[str], list[str]], asked: Asked) -> Verdict:
    """A formula parser reads words as products of letters, so only a number or a unit beside them is compared."""
    sides = [comma_readings(text, other, asked) for text, other in ((found, wanted), (wanted, found))]
    if len(sides[0]) == len(sides[1]) == 1 and not any(_several(side) for side in (found, wanted)):
        number = numbers.compare(sides[0][0], sides[1][0], asked)
        if number[0] is not CANT_TELL or all(words):
            return number
    if any(not _is_unit(word) for side in words for word in side):
        return CANT_TELL, "words in a formula"
    if len(words[0]) and len(words[1]) and words[0] != words[1]:
        return CANT_TELL, "different units"
    bare = _without_words(found), _without_words(wanted)
    if all(quantities.parse(side, strict=True) is not None for side in bare):
        return CANT_TELL, "different values whose units may convert"
    return FORMULAS.compare(*bare, asked, convertible=words[0] != words[1])


def _several(text: str) -> bool:
    """Whether it gives several things a value: ``width = 3, length = 4``."""
    return bool(_SEPARATOR.search(text, text.find("=") + 1, max(text.rfind("="), 0)))


def _is_unit(word: str) -> bool:
    return quantities.is_unit(word) or units.known(word) is not None or word.lower() in _PER


def _without_words(text: str) -> str:
    def drop(match: re.Match[str]) -> str:
        return match.group() if match.group() in _FORMULA_WORDS else " "

    text = re.sub(r"(?<![\\A-Za-z])[^\W\d_]{2,}(?:\s?\^\s?\{?[23]\}?)?", drop, text)
    return re.sub(r"(?<=[\d}])\s(?:[mglshk]|k?m/[sh])(?:\s?\^\s?\{?[23]\}?)?$", "", text).strip()
