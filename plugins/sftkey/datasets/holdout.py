"""A fixed held-out set for data without a test split, chosen by a hash of the problem's text.

Training and evaluation apply the same rule to the same text, so no evaluated problem can have been trained
on, whatever the order, the configuration or the version of the data; duplicates of a problem always agree.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable

from sftkey.datasets.base import Row
from sftkey.format.example import SkippedRow

_BUCKETS = 1 << 64


def problem_key(problem: str) -> str:
    """The text of a problem that is hashed: its letters and digits, in compatibility form and without case.

    Copies of a problem differ in white space, punctuation and LaTeX delimiters; those that differ in nothing else are held
    out together. A text without any letter or digit stands for itself.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", problem).casefold())
    return "".join(character for character in folded if character.isalnum()) or problem


def is_held_out(problem: str, share: float) -> bool:
    """Whether a problem belongs to the evaluated part.

    Args:
        problem: The problem as published.
        share: The expected share of distinct problems that are held out, from 0 to 1. A larger share holds out the
            same problems and more.

    Raises:
        ValueError: `share` is outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be between 0 and 1, found {share!r}")
    digest = hashlib.sha256(problem_key(problem).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * _BUCKETS


def row_is_held_out(row: Row, question: Callable[[Row], str], share: float) -> bool:
    """Whether a row's question is held out; ``False`` where it has none. A data set's ``held_out`` is a partial of this."""
    try:
        return is_held_out(question(row), share)
    except SkippedRow:
        return False
