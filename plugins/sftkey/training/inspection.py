"""What a model will be trained on: rows with their trained tokens marked, and statistics over a whole data set.

Works on tokenized examples alone, so it shows exactly what training sees, whatever made them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from sftkey.format.segments import Segment
from sftkey.training.tokenization import IGNORE_INDEX, TokenizedExample
from sftkey.util.text import shorten, visible
from sftkey.util.text import table as text_table

Decode = Callable[[list[int]], str]

TRAINED_STYLE = "\x1b[1;32m"
CONTEXT_STYLE = "\x1b[2m"
_RESET = "\x1b[0m"

SHOWN_CHARACTERS = 1_600
"""How much of a segment is shown: its beginning and its end, when it is longer."""

COMPARED_ROWS = 1_000
"""So many rows at most are compared with what the model's own chat template writes."""

MEASURED = {
    "prompt": frozenset({Segment.PROMPT}),
    "thinking": frozenset({Segment.THINKING}),
    "answer": frozenset({Segment.ANSWER}),
    "whole row": frozenset(Segment),
}
"""What is measured in tokens, and which segments it has."""


class Lengths:
    """The distribution of a length, exactly, in memory that grows with the number of *different* lengths only."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()

    def add(self, length: int) -> None:
        """Count one row of `length` tokens."""
        self._rows[length] += 1

    @property
    def count(self) -> int:
        """How many rows were counted."""
        return self._rows.total()

    @property
    def total(self) -> int:
        """The sum of all lengths."""
        return sum(length * rows for length, rows in self._rows.items())

    def quantile(self, share: float) -> int | None:
        """The smallest length that at least `share` of the rows don't exceed; ``None`` without rows.

        Args:
            share: From 0 (the shortest) to 1 (the longest); 0.5 is the median.
        """
        if not self._rows:
            return None
        lengths = sorted(self._rows)
        rows = np.cumsum([self._rows[length] for length in lengths])
        return lengths[int(np.searchsorted(rows / rows[-1], share))]


class DatasetStatistics:
    """Counts over a data set, fed row by row.

    Args:
        sequence_len: The recipe's limit in tokens; a longer row is dropped.

    Attributes:
        rows: Rows seen.
        kept: Rows that are trained on.
        too_long: Rows that are dropped because they are longer than `sequence_len`.
        skipped: Reason -> rows skipped for any other reason.
        first: Reason -> index of the first row skipped for it, too long ones included.
        lengths: Of the names in `MEASURED`: tokens per row, of every row that can be tokenized, dropped ones included.
        tokens: Tokens in the rows kept.
        trained: Of these, the tokens that carry a label.
        compared: Rows that were compared with what the model's own chat template writes.
        as_rendered: Of these, those that are the same, token by token.
        first_other: The index of the first that isn't.
    """

    def __init__(self, sequence_len: int) -> None:
        self.sequence_len = sequence_len
        self.rows = 0
        self.kept = 0
        self.too_long = 0
        self.skipped: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        self.lengths = {name: Lengths() for name in MEASURED}
        self.tokens = 0
        self.trained = 0
        self.compared = 0
        self.as_rendered = 0
        self.first_other: int | None = None

    @property
    def too_long_reason(self) -> str:
        """How a row longer than `sequence_len` is listed."""
        return f"longer than sequence_len {self.sequence_len}"

    def add(self, result: TokenizedExample | str) -> None:
        """Count the next row.

        Args:
            result: Its tokens, of any length, or the reason why it is skipped.
        """
        index, self.rows = self.rows, self.rows + 1
        if isinstance(result, str):
            self.skipped[result] += 1
            self.first.setdefault(result, index)
            return
        counts = Counter(result.segments)
        for name, segments in MEASURED.items():
            self.lengths[name].add(sum(counts[segment] for segment in segments))
        length = len(result.input_ids)
        if length > self.sequence_len:
            self.too_long += 1
            self.first.setdefault(self.too_long_reason, index)
            return
        self.kept += 1
        self.tokens += length
        self.trained += length - result.labels.count(IGNORE_INDEX)

    def compare(self, same: bool) -> None:
        """Count whether the last row is what the model's own chat template writes."""
        self.compared += 1
        self.as_rendered += same
        if not same and self.first_other is None:
            self.first_other = self.rows - 1

    def as_dict(self) -> dict[str, Any]:
        """The counts as plain JSON types; lengths in tokens, ``None`` without rows."""
        too_long = {self.too_long_reason: self.too_long} if self.too_long else {}
        shares = {"median": 0.5, "95%": 0.95, "max": 1.0}
        return {
            "rows": self.rows,
            "used": self.kept,
            "skipped": {**self.skipped, **too_long},
            "first_skipped": dict(self.first),
            "sequence_len": self.sequence_len,
            "lengths": {
                name: {key: of.quantile(share) for key, share in shares.items()} for name, of in self.lengths.items()
            },
            "tokens": self.tokens,
            "trained_tokens": self.trained,
            **(
                {
                    "as_template": {
                        "compared": self.compared,
                        "same": self.as_rendered,
                        "first_other": self.first_other,
                    }
                }
                if self.compared
                else {}
            ),
        }


def table(statistics: DatasetStatistics) -> str:
    """The statistics as text: rows by reason, lengths in tokens, trained tokens."""
    skipped = Counter(statistics.skipped)
    if statistics.too_long:
        skipped[statistics.too_long_reason] = statistics.too_long
    rows = [
        ("rows", f"{statistics.rows:,}", "", ""),
        ("used", f"{statistics.kept:,}", _share(statistics.kept, statistics.rows), ""),
    ]
    for reason, count in skipped.most_common():
        first = f"first: row {statistics.first[reason]}"
        rows.append((f"skipped: {visible(reason)}", f"{count:,}", _share(count, statistics.rows), first))
    lengths = [("tokens in a row", "median", "95%", "max")]
    for name, of in statistics.lengths.items():
        median, most, longest = (_number(of.quantile(share)) for share in (0.5, 0.95, 1.0))
        lengths.append((name, median, most, longest))
    trained = [
        ("tokens per epoch", f"{statistics.tokens:,}", ""),
        ("trained tokens", f"{statistics.trained:,}", _share(statistics.trained, statistics.tokens)),
    ]
    sections = [text_table(rows), text_table(lengths), text_table(trained)]
    if statistics.compared:
        others = statistics.compared - statistics.as_rendered
        text = (
            f"the chat template writes {statistics.as_rendered:,} of {statistics.compared:,} rows as they are trained"
        )
        first = (
            f"; {others:,} otherwise (first: row {statistics.first_other}): changed, or cut where a token spans two parts"
            if others
            else ""
        )
        sections.append(text + first)
    if statistics.too_long:
        longest = _number(statistics.lengths["whole row"].quantile(1.0))
        sections.append(
            f"sequence_len {statistics.sequence_len:,} drops {statistics.too_long:,} rows; {longest} would drop none"
        )
    return "\n\n".join(sections)


class Span(NamedTuple):
    """Consecutive tokens of one segment that are all trained or all not."""

    segment: Segment
    trained: bool
    tokens: list[int]


def spans(example: TokenizedExample) -> Iterator[Span]:
    """Split a row where the segment changes or training starts or stops."""
    keys = [(segment, label != IGNORE_INDEX) for segment, label in zip(example.segments, example.labels, strict=True)]
    tokens = iter(example.input_ids)
    for (segment, trained), group in groupby(keys):
        yield Span(Segment(segment), trained, [next(tokens) for _ in group])


def render_plain(example: TokenizedExample, decode: Decode, shown: int = SHOWN_CHARACTERS) -> str:
    """A row as text without colour: one block for each span, the trained ones marked in the margin.

    Args:
        example: The row.
        decode: Token ids -> text, special tokens included.
        shown: Longest text of a span in characters; of a longer one the beginning and the end are shown.
    """
    blocks = []
    for span in spans(example):
        mark = "T" if span.trained else " "
        name = span.segment.name.lower().replace("_", " ")
        count = f"{len(span.tokens):,} token{'s' if len(span.tokens) != 1 else ''}"
        state = "trained" if span.trained else "not trained"
        text = visible(shorten(decode(span.tokens), shown, "not shown"))
        blocks.append(
            "\n".join([f"{mark} [{name}: {count}, {state}]", *(f"{mark} | {line}" for line in text.split("\n"))])
        )
    return "\n".join(blocks)


def render_colour(example: TokenizedExample, decode: Decode, shown: int = SHOWN_CHARACTERS) -> str:
    """A row as the text that the model reads, in ANSI colours: what is trained green, the rest dim.

    Args:
        example: The row.
        decode: Token ids -> text, special tokens included.
        shown: As for `render_plain`.
    """
    return "".join(
        _styled(
            visible(shorten(decode(span.tokens), shown, "not shown")), TRAINED_STYLE if span.trained else CONTEXT_STYLE
        )
        for span in spans(example)
    )


def _styled(text: str, style: str) -> str:
    # Line by line: pagers and log viewers forget a style at the end of the line.
    return "\n".join(f"{style}{line}{_RESET}" if line else "" for line in text.split("\n"))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
