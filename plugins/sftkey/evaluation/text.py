"""Free text, compared by normalised match."""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}|[*_`$\\]+")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
_EDGES = " \t\n\r\"'.,;:!?()[]{}<>"
_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\S)")

_CLOSED_SETS = (
    {"yes": True, "no": False},
    {"true": True, "false": False},
    {"positive": 1, "negative": -1, "neutral": 0},
    {"entailment": 1, "contradiction": -1, "neutral": 0},
)


def normalise(text: str) -> str:
    """A text without case, mark-up, control characters, extra white space, leading article, punctuation at its ends."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)
    text = _MARKUP.sub(lambda match: match.group(1) or "", text)
    text = " ".join(text.casefold().split()).strip(_EDGES)
    return _ARTICLE.sub("", text)


def exclude_each_other(first: str, second: str) -> bool:
    """Whether two normalised texts are different words of one closed set of answers, such as yes and no."""
    return any(first in words and second in words and first != second for words in _CLOSED_SETS)
