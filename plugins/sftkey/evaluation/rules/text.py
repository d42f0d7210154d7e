"""Free text, compared by normalised match."""

from __future__ import annotations

import re
import unicodedata

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
    {"yes": True, "no": False},
    {"true": True, "false": False},
    {"positive": 1, "negative": -1, "neutral": 0},
    {"entailment": 1, "contradiction": -1, "neutral": 0},
)


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


def exclude_each_other(first: str, second: str) -> bool:
    """Whether two normalised texts are different words of one closed set of answers, such as yes and no."""
    return any(first in words and second in words and first != second for words in _CLOSED_SETS)
