"""Tables as Markdown, LaTeX and CSV: whatever a name holds, it stays text."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest
from sftkey.report.tables import Table, TableCell, p_value, signed, to_csv, to_latex, to_markdown


def make_table(name: str = "SFT") -> Table:
    table = Table("acc", "Acc", "Share of right answers.", ("Method", "GSM8K"))
    table.groups.add(0)
    note = table.footnote(["other items: 6, others 10"])
    table.rows.append([TableCell(name), TableCell("0.8816", True, (("interval", "[0.864, 0.899]"),), note, True)])
    table.frame = pd.DataFrame([{"method": name, "value": 0.8816}])
    return table


def test_markdown() -> None:
    assert to_markdown(make_table()).splitlines() == [
        "### Acc",
        "",
        "Share of right answers.",
        "",
        "| Method | GSM8K |",
        "|---|---:|",
        "| SFT | **0.8816**<sup>1</sup><br>\\[0.864, 0.899\\] |",
        "",
        "<sup>1</sup> other items: 6, others 10  ",
    ]


def test_latex() -> None:
    text = to_latex(make_table())
    assert r"SFT & \shortstack[r]{\textbf{0.8816}$^{1}$ \\ \scriptsize {[}0.864, 0.899{]}} \\" in text
    assert text.count("{") == text.count("}")
    assert r"\begin{tabular}{lr}" in text


def test_csv_has_the_figures_in_full() -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv(make_table())))
    assert row == {"method": "SFT", "value": "0.8816"}


@pytest.mark.parametrize("name", ["a|b\nc <script>alert(1)</script> `x` $y$ *z* [l](http://x)"])
def test_names_stay_text(name: str) -> None:
    markdown = to_markdown(make_table(name))
    (line,) = [line for line in markdown.splitlines() if "script" in line]
    assert "<script" not in line
    assert line.replace("\\|", "").count("|") == 3
    assert "\\[l\\](http" in line
    latex = to_latex(make_table(r"\input{/etc/passwd} 100% #1 ~^_&"))
    assert r"\textbackslash{}input\{/etc/passwd\} 100\% \#1 \textasciitilde{}\textasciicircum{}\_\&" in latex


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@x"])
def test_a_spreadsheet_runs_nothing(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv(make_table(name))))
    assert row["method"] == f"'{name}"


def test_numbers() -> None:
    assert (signed(0.05), signed(-0.05)) == ("+0.0500", "\u22120.0500")
    assert (p_value(0.0004), p_value(0.0312)) == ("< 0.001", "0.031")
