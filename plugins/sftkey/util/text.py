"""Text for a terminal or a file: tables, long texts, unprintable characters."""

from __future__ import annotations

import re
from collections.abc import Sequence

Cell = str | int | float | None
"""A value in a table: ``None`` is shown as ``-``, an integer with thousands separators, a float with four decimals."""

_FIGURE = re.compile(r"$|-$|nan\b|[+-]?\d")


def table(rows: Sequence[Sequence[Cell]]) -> str:
    """Align rows in columns, figures to the right.

    Args:
        rows: At least one, all of one length. The first is the header; it doesn't decide how a column is aligned.
    """
    texts = [[_shown(cell) for cell in row] for row in rows]
    columns = list(zip(*texts, strict=True))
    widths = [max(map(len, column)) for column in columns]
    sides = [">" if all(map(_FIGURE.match, column[1:])) else "<" for column in columns]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in texts
    )


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return f"{cell:,}" if isinstance(cell, int) else one_line(cell)


def shorten(text: str, limit: int, gap: str = "left out") -> str:
    """Keep `limit` characters of a longer text, two thirds from its start; `gap` says what became of the rest."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail]}\n[... {len(text) - limit:,} characters {gap} ...]\n{text[len(text) - tail :]}"


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can escape and UTF-8 can't encode, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def visible(text: str) -> str:
    r"""Make a text safe to print: all but printable characters, tabs and line breaks become escapes (``\x1b``).

    Data can hold anything, a terminal's escape sequences included.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def one_line(text: str) -> str:
    """A text on one line, printable: every control character, bidirectional override and line break is a space."""
    text = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def is_plain_name(name: str, longest: int = 200) -> bool:
    """Whether a name that a stranger chose may be a file's and be shown: one printable part of a path, not too long."""
    return 0 < len(name) <= longest and name.isprintable() and not set(name) & set("/\\") and name not in (".", "..")
