"""The judge's error rates, and Acc corrected for them, beside the raw one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from sftkey.report.write import write_report
from support.output_roots import Outputs

MEASURED = {
    "judged": 0.5, "judge_fitness_kappa": 0.9, "judge_sensitivity": 0.95, "judge_specificity": 0.85,
    "acc_corrected": 0.4567, "acc_corrected_low": 0.31, "acc_corrected_high": 0.61,
}  # fmt: skip


def report_with(tmp_path: Path, judge: dict[str, float]) -> Path:
    outputs = Outputs(tmp_path / "outputs")
    outputs.stage("tag", "sft-tag")
    path = outputs.evaluate("outputs/tag", "sftkey_gsm8k", [(1.0, 1.0), (0.0, 1.0)] * 5)
    content = json.loads(path.read_text())
    content["results"]["sftkey_gsm8k"] |= {f"{name},none": value for name, value in judge.items()}
    path.write_text(json.dumps(content))
    write_report([tmp_path / "outputs"], tmp_path / "report")
    return tmp_path / "report"


def test_the_corrected_accuracy_stands_beside_the_raw_one(tmp_path: Path) -> None:
    report = report_with(tmp_path, MEASURED)
    (line,) = csv.DictReader((report / "tables" / "judge.csv").read_text().splitlines())
    found = {
        name: float(line[name]) for name in ("judged", "kappa", "sensitivity", "specificity", "acc", "corrected acc")
    }
    assert found == pytest.approx(
        {"judged": 0.5, "kappa": 0.9, "sensitivity": 0.95, "specificity": 0.85, "acc": 0.5, "corrected acc": 0.4567}
    )
    assert (float(line["low"]), float(line["high"])) == (0.31, 0.61)
    page = (report / "index.html").read_text()
    assert "Corrected Acc" in page
    assert "0.4567" in page


def test_a_judge_no_better_than_chance_has_no_corrected_accuracy(tmp_path: Path) -> None:
    nan = float("nan")
    undefined = {**MEASURED, "acc_corrected": nan, "acc_corrected_low": nan, "acc_corrected_high": nan}
    report = report_with(tmp_path, {**undefined, "judge_fitness_kappa": -0.2})
    (line,) = csv.DictReader((report / "tables" / "judge.csv").read_text().splitlines())
    assert (line["kappa"], line["corrected acc"], line["low"], line["high"]) == ("-0.2", "", "", "")


def test_without_a_measured_judge_there_is_no_table(tmp_path: Path) -> None:
    report = report_with(tmp_path, {})
    assert not (report / "tables" / "judge.csv").exists()
    assert "Corrected Acc" not in (report / "index.html").read_text()
