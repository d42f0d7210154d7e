"""Tables as values, and as Markdown, LaTeX and CSV. The page renders the same values."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from sftkey.evaluation.statistics import Interval
from sftkey.util.text import one_line

NOTHING = "\u2013"
"""Stands where there is no figure."""


@dataclass(frozen=True)
class TableCell:
    """One cell.

    Attributes:
        text: What stands in it first.
        bold: Whether that is emphasised.
        details: Lines below it: (kind, text); the kind is a class of the page's style sheet.
        footnotes: Numbers of the table's footnotes.
        numeric: Whether it is aligned as a number.
        values: The same in the CSV: column -> value.
    """

    text: str
    bold: bool = False
    details: tuple[tuple[str, str], ...] = ()
    footnotes: tuple[int, ...] = ()
    numeric: bool = False
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Table:
    """A table and its footnotes.

    Attributes:
        name: File name without ending, and anchor on the page.
        title: Heading.
        caption: What the figures are, in a sentence or two.
        reading: How to read the cells, where that has to be said.
        columns: Column headings.
        rows: Cells, one list per row.
        groups: Indices of the rows that start a group (a model, say).
        footnotes: Texts, the first has the number 1.
        labels: How many columns name the row, where every cell after them is a line of the CSV; ``None`` where a row is.
        csv_columns: The columns of the CSV, where it has them even without a line.
    """

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    reading: str = ""
    rows: list[list[TableCell]] = field(default_factory=list)
    groups: set[int] = field(default_factory=set)
    footnotes: list[str] = field(default_factory=list)
    labels: int | None = None
    csv_columns: tuple[str, ...] | None = None

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The figures in long form, for CSV."""
        lines: list[dict[str, object]] = []
        for row in self.rows:
            shared = {column: value for cell in row[: self.labels] for column, value in cell.values.items()}
            own = [cell.values for cell in row[self.labels :] if cell.values] if self.labels is not None else [{}]
            lines += [{**shared, **values} for values in own]
        return pd.DataFrame(lines, columns=self.csv_columns)

    def add(self, row: list[TableCell], grouped: bool = False) -> None:
        """Add a row; `grouped` begins a group where its first cell has other `values` than that of the row before."""
        if grouped and (not self.rows or self.rows[-1][0].values != row[0].values):
            self.groups.add(len(self.rows))
        self.rows.append(row)

    def footnote(self, texts: Iterable[str]) -> tuple[int, ...]:
        """The numbers of footnotes, which are added where the table doesn't have them yet."""
        numbers = []
        for text in texts:
            if text not in self.footnotes:
                self.footnotes.append(text)
            numbers.append(self.footnotes.index(text) + 1)
        return tuple(numbers)


def texts(values: Mapping[str, object]) -> list[TableCell]:
    """Cells that show their values, each a column of the CSV."""
    return [TableCell(str(value), values={column: value}) for column, value in values.items()]


def number(values: Mapping[str, Any], show: Callable[[Any], str] = str, **cell: Any) -> TableCell:
    """A cell that shows the first of its values, or `NOTHING` for ``None``.

    Args:
        values: As in `TableCell`.
        show: Writes the value.
        **cell: What else the cell has.
    """
    value = next(iter(values.values()))
    return TableCell(NOTHING if value is None else show(value), numeric=True, values=values, **cell)


def figure(value: float) -> str:
    """A metric with the paper's four digits."""
    return f"{value:.4f}"


def signed(value: float) -> str:
    """A difference, with its sign and a real minus."""
    return f"{value:+.4f}".replace("-", "\u2212")


def p_value(p: float) -> str:
    """A p-value with three digits, or that it is smaller."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval_line(interval: Interval, show: Callable[[float], str] = "{:.3f}".format) -> tuple[str, str]:
    """An interval as one of a cell's details."""
    return "interval", f"[{show(interval.low)}, {show(interval.high)}]"


def ends(interval: Interval | None, prefix: str = "") -> dict[str, float | None]:
    """An interval's ends as values of a cell, in the columns `prefix` + ``low`` and ``high``."""
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return {f"{prefix}low": low, f"{prefix}high": high}


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown."""
    lines = [f"### {_markdown(table.title)}", "", _markdown(f"{table.caption} {table.reading}"), ""]
    lines.append("| " + " | ".join(_markdown(name) for name in table.columns) + " |")
    numeric = [any(row[i].numeric for row in table.rows) for i in range(len(table.columns))]
    lines.append("|" + "|".join("---:" if right else "---" for right in numeric) + "|")
    lines += ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in table.rows]
    if table.footnotes:
        lines.append("")
        lines += [f"<sup>{i}</sup> {_markdown(text)}  " for i, text in enumerate(table.footnotes, 1)]
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: TableCell) -> str:
    text = _markdown(cell.text)
    text = f"**{text}**" if cell.bold and text else text
    text += "".join(f"<sup>{number}</sup>" for number in cell.footnotes)
    return "<br>".join([text, *(_markdown(detail) for _, detail in cell.details)])


def _markdown(text: str) -> str:
    """Escape a text: no markup, no HTML, no line break."""
    escaped = re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "\u2212": "$-$", "\u2013": "--", "\u2026": r"\ldots{}", "\u0394": r"$\Delta$", "\u00b1": r"$\pm$",
    "[": "{[}", "]": "{]}",
}  # fmt: skip


def to_latex(table: Table, of: str = "") -> str:
    """The table for LaTeX, with the booktabs package.

    Args:
        table: The table.
        of: What its label has behind the table's name, so that the tables of several reports go into one document.
    """
    numeric = [any(row[i].numeric for row in table.rows) for i in range(len(table.columns))]
    lines = [
        r"\begin{table}[t]",
        r"\centering\small",
        r"\begin{tabular}{" + "".join("r" if right else "l" for right in numeric) + "}",
        r"\toprule",
        " & ".join(_latex(name) for name in table.columns) + r" \\",
    ]
    for index, row in enumerate(table.rows):
        if index == 0 or index in table.groups:
            lines.append(r"\midrule")
        aligned = zip(row, numeric, strict=True)
        lines.append(" & ".join(_latex_cell(cell, "r" if right else "l") for cell, right in aligned) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = "".join(rf" $^{{{i}}}$~{_latex(text)}." for i, text in enumerate(table.footnotes, 1))
    lines += [
        rf"\caption{{{_latex(f'{table.caption} {table.reading}')}{notes}}}",
        rf"\label{{tab:{table.name}{of}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: TableCell, side: str) -> str:
    text = _latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    if cell.footnotes:
        text += "$^{" + ",".join(map(str, cell.footnotes)) + "}$"
    if not cell.details:
        return text
    below = r" \\ ".join(rf"\scriptsize {_latex(detail)}" for _, detail in cell.details)
    return rf"\shortstack[{side}]{{{text} \\ {below}}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character) or _in_latex(character) for character in one_line(text))


def _in_latex(character: str) -> str:
    """A character as every engine and font has it: a letter without its accent, another one by its number."""
    if character.isascii():
        return character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(one, one) for one in plain) if plain.strip() else f"U+{ord(character):04X}"


def to_csv(table: Table) -> str:
    """The table's figures in long form.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    frame = table.frame.copy()
    for column in frame.columns:
        # By what it isn't: texts are of type object in pandas 2 and of type str in pandas 3.
        if not pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = frame[column].map(_inert)
    return frame.to_csv(index=False)


def _inert(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    # Full-width signs, too: some spreadsheets take them for the plain ones.
    return f"'{text}" if unicodedata.normalize("NFKC", text[:1]) in ("=", "+", "-", "@") and text else text
