"""The entries of a vocabulary, most of a tokenizer's file, hold no secret: short strings, perhaps with a number."""

from __future__ import annotations

import re

BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Where `str.splitlines` ends a line."""

_KEPT = 120
"""Characters of a run that stay at each end: what surrounds it may give them a meaning, as in ``api_key = "...",``."""

# No string in which a form of a secret fits: too short for a token or `name=value`; or small letters alone; without what
# joins a name and a value, tags, URLs, escapes and `Basic ...`.
_CHARACTER = r'(?:[^"\\:=<&%\s]|\\u(?!00[0-7])[0-9a-fA-F]{4})'
# Atomic groups and no possessive ones, such as `(?:...)?+`, which Python 3.11.2 reads wrongly.
_STRING = rf"""(?x: " (?: (?>(?:[^"\\\r\n]|\\.){{0,6}}") | (?>[^"\\:=<&%/_\sA-Z0-9-]{{0,60}}")
    | (?>{_CHARACTER}{{0,14}}) (?>(?<![sS][iI][cC])[ ](?>{_CHARACTER}{{0,14}})|) " ) )"""
# A number is that of a token or, in a list, its score; one of eight digits may be a password.
_NUMBER = r"(?::\s{0,4}+[0-9]{1,7}+|,\s{0,40}+-?[0-9]{1,4}+\.[0-9]{1,20}+)"
_ENTRIES = re.compile(rf"(?>(?:{_STRING}\s{{0,40}}+(?>{_NUMBER}|)[\s\]}}]{{0,40}}+,[\s\[\]{{]{{0,40}}+){{6,}})")


def without_entries(text: str) -> str:
    """Leave the inner part of each run of entries out, but for its line ends."""
    return _ENTRIES.sub(_shortened, text)


def _shortened(run: re.Match[str]) -> str:
    text = run[0]
    if len(text) <= 3 * _KEPT:
        return text
    lines = "\n" * len(BREAK.findall(text, _KEPT, len(text) - _KEPT))
    return f"{text[:_KEPT]};{lines};{text[-_KEPT:]}"
