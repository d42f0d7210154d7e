"""The names of data sets: titles of the shipped ones, and no import of a module that a marker names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sftkey.report.collect import collect
from sftkey.report.paper import AVERAGE
from sftkey.report.runs import data_set_title, runs_of
from sftkey.report.scores import scores_of
from support.output_roots import Outputs


def test_titles() -> None:
    found = [data_set_title(name) for name in ("gsm8k", "openr1_math", "openbookqa", "cot_collection")]
    assert found == ["GSM8K", "OpenR1-Math-220k", "OpenBookQA", "CoT-Collection"]
    assert (data_set_title(AVERAGE), data_set_title("my_task")) == ("Average", "my_task")


def test_a_module_that_a_marker_names_is_not_imported(
    outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strangers.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    directory = outputs.stage("own", "sft", data="rows.jsonl")
    marker = directory / "sftkey_stage.json"
    text = marker.read_text()
    assert "sftkey.datasets.columns" in text
    marker.write_text(text.replace("sftkey.datasets.columns", "strangers.svamp"))
    outputs.evaluate("outputs/own", "sftkey_svamp_plain", [(1.0, 1.0), (0.0, 1.0)])
    (row,) = scores_of(runs_of(collect([outputs.root]))).rows
    assert (row.label, list(row.evaluations)) == ("SFT", ["svamp"])
    assert "strangers" not in sys.modules
