"""A fixed held-out set for data without a test split, chosen by a hash of the problem's text.

Training and evaluation apply the same rule to the same text, so no evaluated problem can have been trained
on, whatever the order, the configuration or the version of the data; duplicates of a problem always agree.
"""

from __future__ import annotations

import hashlib
import unicodedata

_BUCKETS = 1 << 64


def problem_key(problem: str) -> str:
    """The text that is the same for all spellings of a problem.

    Only letters and digits are kept, in Unicode's compatibility form and without case: copies of a problem differ in
    white space, in punctuation and in LaTeX delimiters. Problems that differ in nothing else are held out together. A
    text without any letter or digit stands for itself.

    Args:
        problem: The problem as published.

    Returns:
        The text that is hashed.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", problem).casefold())
    return "".join(character for character in folded if character.isalnum()) or problem


def is_held_out(problem: str, share: float) -> bool:
    """Whether a problem belongs to the evaluated part.

    Args:
        problem: The problem as published.
        share: The expected share of distinct problems that are held out, from 0 to 1. What is held out at a share is
            held out at every larger one.

    Raises:
        ValueError: `share` is outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be between 0 and 1, found {share!r}")
    digest = hashlib.sha256(problem_key(problem).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * _BUCKETS
