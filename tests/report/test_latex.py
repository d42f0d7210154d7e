"""The tables compile: two reports in one document, whatever their names hold."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sftkey.report.write import write_report
from support.availability import skip_or_fail
from support.output_roots import Outputs

HOSTILE = "50% of_a $x$ #1 ~^ {b} \\input{x} & \u00e9\u4e2d\u03b1\U0001f600 \u2264 <\u201cz\u201d>"
PREAMBLE = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"


def report(folder: Path, model: str, output: str) -> Path:
    """A report with each of the tables."""
    outputs = Outputs(folder / "outputs")
    outputs.stage("sft", "sft", base_model=model, optimizer=model)
    outputs.stage("stage1", "sft-tag", base_model=model)
    outputs.stage("stage2", "key-tag", after="stage1", base_model=model, data=f"{model}.jsonl")
    for name in ("sft", "stage1", "stage2"):
        task = "sftkey_gsm8k_plain" if name == "sft" else "sftkey_gsm8k"
        outputs.evaluate(f"outputs/{name}", task, [(1.0, 1.0), (float(name == "sft"), 0.0), (1.0, 0.0)] * 4)
    for seed in (1, 2):
        outputs.stage(f"seed{seed}", "key-tag", seed=seed, base_model="org/other")
        outputs.evaluate(f"outputs/seed{seed}", "sftkey_gsm8k", [(1.0, 1.0)] * seed + [(0.0, 1.0)] * 4)
    write_report([outputs.root], folder / output, against=outputs.root)
    return folder / output / "tables"


def labels(tables: Path) -> list[str]:
    texts = [path.read_text() for path in sorted(tables.glob("*.tex"))]
    return [label for text in texts for label in re.findall(r"\\label\{([^}]*)\}", text)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two reports, in folders of one name."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "other")]
    return report(folders[0], HOSTILE, "report"), report(folders[1], "org/plain", "report")


def test_no_label_is_in_two_reports_and_each_stays_what_it_is(two: tuple[Path, Path]) -> None:
    one, other = map(labels, two)
    assert len({*one, *other}) == len(one) + len(other) > 20
    assert all(re.fullmatch(r"tab:[a-z_]+-[0-9a-f]{6}", label) for label in (*one, *other))
    outputs = two[1].parent.parent / "outputs"
    write_report([outputs], two[1].parent, against=outputs)
    assert labels(two[1]) == other


def test_every_table_is_ascii(two: tuple[Path, Path]) -> None:
    assert all(path.read_text().isascii() for tables in two for path in tables.glob("*.tex"))


@pytest.mark.tools
def test_two_reports_compile_in_one_document(two: tuple[Path, Path], tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        skip_or_fail("needs pdflatex (Debian packages texlive-latex-base and texlive-latex-recommended)")
    inputs = [f"\\input{{{path}}}\n\\clearpage\n" for tables in two for path in sorted(tables.glob("*.tex"))]
    (tmp_path / "all.tex").write_text(PREAMBLE + "".join(inputs) + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-3000:]
    log = (tmp_path / "all.log").read_text(errors="replace")
    assert "multiply defined" not in log
    assert "undefined" not in log
    pages = re.search(r"Output written on all\.pdf \((\d+) pages?", log.replace("\n", ""))
    assert pages is not None
    assert int(pages.group(1)) >= len(inputs)
