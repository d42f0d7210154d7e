"""Results, samples and folders may be a stranger's: one bad name is noted, the rest of the report is written as text."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sftkey.cli.main import sftkey
from sftkey.report.tables import Table, TableCell, to_csv, to_latex, to_markdown
from support.output_roots import Outputs

GOOD = [(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)]
BAD_NAMES = [
    "sftkey_a/b",
    "../evil",
    "..",
    "sftkey_\x1b[2J",
    "sftkey_a\nb",
    "sftkey_" + "x" * 5000,
    "sftkey_\u202eb",
    "a\\b",
    "\x00",
    "",
]
TEXTS = [
    "evil\x1b[2Jevil",
    "evil\r=1+1",
    "evil\nevil",
    "\u202eevil",
    "\x9b31mevil",
    "<script>evil</script>",
    "evil\x00\x08\x7f",
    "\\input{evil}%$&",
]


def written(root: Path, output: Path) -> str:
    result = CliRunner().invoke(sftkey, ["report", str(root), "-o", str(output)])
    assert result.exit_code == 0, (result.output, result.exception)
    files = [path for path in output.rglob("*") if path.suffix in (".md", ".csv", ".tex", ".html")]
    assert len(files) > 10
    for text in (result.output, *(path.read_bytes().decode() for path in files if path.suffix != ".html")):
        assert not [c for c in text if not (c.isprintable() or c == "\n")]
    assert "0.6667" in (output / "tables" / "acc.md").read_text()
    return (output / "index.html").read_text()


def change(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1]))


def test_a_bad_task_name_is_named_and_the_rest_is_written(outputs: Outputs, tmp_path: Path) -> None:
    outputs.stage("stage1", "sft-tag")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD)
    results = outputs.evaluate("outputs/stage1", "sftkey_openbookqa", GOOD, samples=False)
    content = json.loads(results.read_text())
    for key in ("results", "n-samples", "versions"):
        content[key] |= dict.fromkeys(BAD_NAMES, content[key]["sftkey_openbookqa"])
    results.write_text(json.dumps(content))
    page = written(outputs.root, tmp_path / "report")
    assert f"{len(BAD_NAMES)} tasks with a name that no task can have are left out" in page
    assert "sftkey_a/b" in page


def test_folders_that_cannot_be_shown_are_named_and_the_rest_is_written(outputs: Outputs, tmp_path: Path) -> None:
    outputs.stage("good", "sft-tag")
    outputs.evaluate("outputs/good", "sftkey_gsm8k", GOOD)
    names = ["a\x1b[2Jb", "a\nb", "a\rb", "\u202eb", "a\x7f", "\udcff"]
    for name in names:
        outputs.stage(f"more/{name}", "key-tag", after="good")
    page = written(outputs.root, tmp_path / "report")
    assert page.count("has a character in its name that can&#39;t be shown") == len(names)


@pytest.mark.parametrize(
    "text", ["".join(TEXTS), *(pytest.param(text, marks=pytest.mark.slow) for text in TEXTS)], ids=ascii
)
def test_whatever_the_files_say_stays_text(outputs: Outputs, tmp_path: Path, text: str) -> None:
    """Every text of markers, results and samples at once."""
    outputs.stage("stage1", "sft-tag", base_model="FIELD/model", optimizer="FIELD")
    outputs.stage("stage2", "key-tag", after="stage1", data="FIELD.rows")
    outputs.evaluate("outputs/stage1", "sftkey_gsm8k", GOOD, version="FIELD", texts={1: "FIELD"})
    outputs.evaluate("outputs/stage2", "sftkey_gsm8k", [(0.0, 0.0), (1.0, 1.0), (1.0, 1.0)], version="FIELD")
    outputs.evaluate("FIELD", "sftkey_openbookqa", GOOD)
    for path in outputs.root.rglob("*.json*"):
        for old in ("FIELD", "answer block", "numbers", "<|im_end|>", "0.19.0"):
            change(path, old, text)
    page = written(outputs.root, tmp_path / "report")
    assert "<script>evil" not in page
    tex = "".join(path.read_text() for path in (tmp_path / "report/tables").glob("*.tex"))
    assert not re.search(r"\\input\{", tex)


FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "a\r=1+1",
    "a\r\n=1",
    " =1",
    "\x00=1",
    "\uff1d1+1",
    "\u2028=1",
    "a\x0b=1",
]


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_no_text_of_a_csv_is_a_formula(text: str) -> None:
    table = Table("x", "x", "x", ("name", "figure"))
    table.add([TableCell(text, values={"name": text}), TableCell("1", numeric=True, values={"figure": -0.5})])
    written = to_csv(table)
    assert not re.search(r"[^\x20-\x7e\n\uff1d]", written)
    for line in written.split("\n"):
        assert not line.lstrip('" ').startswith(("=", "+", "-", "@", "\uff1d"))
    _, row = csv.reader(io.StringIO(written))
    assert row[1] == "-0.5"
    for render in (to_latex, to_markdown):
        assert all(c.isprintable() or c == "\n" for c in render(table))
