"""Free text, compared by normalised match."""

from __future__ import annotations

import re
import unicodedata

from sftkey.evaluation.verdicts import RuleVerdict

# An asterisk between two factors, and an underscore before a base, are no mark-up: 2*3 isn't 23, 101_2 isn't 1012.
_MARKUP = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}|[`$\\]+|(?<!\d)_+|_+(?!\w)"
    r"|(?<![\w)\]}*])\*+(?=[^\s*])|(?<=[^\s*])\*+(?![\w(\[{*])"
)
_SUPERSCRIPTS = re.compile(r"[⁺⁻]?[⁰¹²³⁴-⁹]+")
_VULGAR_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
_EDGES = " \t\n\r\"'.,;:!?"
_LEADING = re.compile(r"^(?:[\s\"',;:!?]|\.(?!\d))+")
_BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}
_MAX_LAYERS = 4
_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\S)")

_CLOSED_SETS = (
    {"+": 1, "-": -1},
    {"yes": True, "no": False},
    {"true": True, "false": False},
    {"positive": 1, "negative": -1, "neutral": 0},
    {"entailment": 1, "contradiction": -1, "neutral": 0},
)

_TAGS = re.compile(r"</?(?:b|i|u|s|em|strong|p|br|span|code|mark)\s?/?>|<\|?(?:im_end|eot_id|endoftext|end)\|?>", re.I)
_LEAD_IN = re.compile(
    r"(?:so\W|therefore\W|thus\W|hence\W)?\s?(?:(?:the|my)\s)?(?:(?:final|correct|right)\s)?(?:answer\sis|answer:|it\sis|it's"
    r"|this\sis|that\sis)[\s:]+",
    re.I,
)
_FIRST_WORD = re.compile(r"(\w+)\b(?:$|[,.;:!\n]|\s(?:because|since|as)\b)")
_ACRONYM = re.compile(r"\b(?:[A-Za-z]\.){2,}(?!\w)")
_COMMA_SPACE = re.compile(r"\s?,\s?")
_SOFT = re.compile(r"(?<=[^\W\d])[,;:]?\s(?=[^\W\d])|(?<=[^\W\d])-(?=[^\W\d])")


def normalise(text: str) -> str:
    """A text without case, mark-up, control characters, extra white space, leading article, punctuation at its ends.

    What changes a number stays: 0.5 may be written .5, 5² isn't 52, and [0, 5) isn't (0, 5).
    """
    text = _VULGAR_FRACTION.sub(" ", _SUPERSCRIPTS.sub(lambda match: f"^{match.group()}", text))
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").translate(_QUOTES)
    text = "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)
    text = _MARKUP.sub(lambda match: match.group(1) or "", text)
    text = _without_edges(" ".join(text.casefold().split()))
    return _ARTICLE.sub("", text)


def _without_edges(text: str) -> str:
    for _ in range(_MAX_LAYERS):
        text = _LEADING.sub("", text).rstrip(_EDGES)
        inner = _without_brackets(text)
        if inner == text:
            break
        text = inner
    return text


def _without_brackets(text: str) -> str:
    """Without the brackets around all of it, or a lone one at an end; those of intervals and of sets say something."""
    if text[:1] in _BRACKETS:
        closing = _BRACKETS[text[0]]
        if text.endswith(closing) and "," not in text and text[1:-1].count(text[0]) == text[1:-1].count(closing) == 0:
            return text[1:-1]
        if text[0] != "<" and not any(bracket in text for bracket in _BRACKETS.values()):
            return text[1:]
    elif text[-1:] in (")", "]", "}") and not any(bracket in text for bracket in _BRACKETS):
        return text[:-1]
    return text


def as_words(prediction: str, reference: str) -> tuple[RuleVerdict, str] | None:
    """The verdict on two texts as words: the same, or of one closed set; ``None`` where that says nothing."""
    found, wanted = normalise(prediction), normalise(reference)
    if (
        not found
        and unicodedata.normalize("NFKC", prediction).strip() == unicodedata.normalize("NFKC", reference).strip()
    ):
        return RuleVerdict.SAME, "same text"
    if found and found == wanted:
        if may_be_an_acronym(prediction, reference):
            return RuleVerdict.CANT_TELL, "a word or an acronym"
        return RuleVerdict.SAME, "same text, normalised"
    found, wanted = choice_of(prediction) or found, choice_of(reference) or wanted
    if exclude_each_other(found, wanted):
        return RuleVerdict.DIFFERENT, "answers that exclude each other"
    return None


def exclude_each_other(first: str, second: str) -> bool:
    """Whether two normalised texts are different words of one closed set of answers, such as yes and no."""
    return any(first in words and second in words and first != second for words in _CLOSED_SETS)


def choice_of(text: str) -> str | None:
    """The word of a closed set that a text begins with, or says that "the answer is"; ``None`` where it names none or two."""
    text = _LEAD_IN.sub("", without_tags(text).strip(" \t\n*_\"'`"), count=1)
    first = _FIRST_WORD.match(text.strip(" \t\n*_\"'`").casefold())
    if first is None:
        return None
    for words in _CLOSED_SETS:
        if first.group(1) in words:
            named = {word for word in re.findall(r"\w+", text.casefold()) if word in words}
            return first.group(1) if named == {first.group(1)} else None
    return None


def without_tags(text: str) -> str:
    """A text without the mark-up of web pages and the end markers of chat templates."""
    return _TAGS.sub(" ", text)


def loosely(text: str) -> str:
    """A text, normalised, without what two spellings of the same words differ in: ``e-mail list``, ``U.S.``, ``[1, 2]``."""
    text = _ACRONYM.sub(lambda match: match.group().replace(".", ""), without_tags(text))
    text = _SOFT.sub(" ", _COMMA_SPACE.sub(",", normalise(text)).replace(",", ", "))
    text = _COMMA_SPACE.sub(",", text)
    letters = unicodedata.normalize("NFD", text)
    plain = "".join(character for character in letters if not unicodedata.combining(character))
    return plain if len(plain) > 3 and plain.isascii() else text


def may_be_an_acronym(first: str, second: str) -> bool:
    """Whether two texts differ in case only, and one is in capitals: US isn't us."""
    first, second = (text.strip(" \t\n.*_\"'`") for text in (first, second))
    if not 2 <= len(first) <= 4 or not (first.isalpha() and second.isalpha()):
        return False
    known = any(first.casefold() in words for words in _CLOSED_SETS)
    return not known and first != second and any(text.isupper() for text in (first, second)) and not first.istitle()
