"""The names of data sets: titles of the shipped ones, and no import of a module that a marker names."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

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


def test_two_models_that_were_in_one_place_are_two_models(outputs: Outputs) -> None:
    for name, method, after, weights in (
        ("a1", "sft-tag", None, "a" * 64),
        ("a2", "key-tag", "a1", "c" * 64),
        ("b1", "sft-tag", None, "b" * 64),
        ("unknown", "sft-tag", None, None),
    ):
        marker = outputs.stage(name, method, base_model="models/base", after=after) / "sftkey_stage.json"
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"lineage": {"weights": weights}}))
    outputs.stage("other", "sft-tag", base_model="models/other")
    outputs.evaluate("models/base", "sftkey_gsm8k", [(1.0, 1.0)])
    outputs.evaluate("models/other", "sftkey_gsm8k", [(0.0, 0.0)])
    collection = collect([outputs.root])
    found = {(run.model, run.strategy) for run in runs_of(collection)}
    assert found == {
        *(("base (aaaaaaaa)", "SFT-Tag"), ("base (aaaaaaaa)", "SFTKey-Tag"), ("base (bbbbbbbb)", "SFT-Tag")),
        *(("base (unknown)", "SFT-Tag"), ("other", "SFT-Tag"), ("other", "Base")),
    }
    (note,) = [note for note in collection.ledger.notes if "models/base" in note]
    assert note.endswith("the runs started from 2 models in that place; it isn't in the tables.")


def test_the_same_model_in_one_place_stays_one(outputs: Outputs) -> None:
    for name, weights in (("one", "a" * 64), ("two", "a" * 64), ("three", None)):
        marker = outputs.stage(name, "sft-tag", base_model="models/base") / "sftkey_stage.json"
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"lineage": {"weights": weights}}))
    outputs.evaluate("models/base", "sftkey_gsm8k", [(1.0, 1.0)])
    assert {run.model for run in runs_of(collect([outputs.root]))} == {"base"}


@pytest.mark.parametrize("objective", ["dft", {"name": "anchor-kl", "strength": 0.5}])
def test_a_run_with_another_objective_is_named_after_it_though_it_is_alone(outputs: Outputs, objective: Any) -> None:
    outputs.stage("stage1", "sft-tag", sftkey_objective="ce")
    outputs.stage("stage2", "key-tag", after="stage1", sftkey_objective=objective)
    outputs.stage("key", "key-tag", sftkey_segment_weights={"thinking": 0.1})
    for name in ("stage1", "stage2", "key"):
        outputs.evaluate(f"outputs/{name}", "sftkey_gsm8k", [(1.0, 1.0), (0.0, 1.0)])
    scores = scores_of(runs_of(collect([outputs.root])))
    label = f"SFTKey-Tag, sftkey_objective {objective}"
    assert {row.label for row in scores.rows} == {
        "SFT-Tag", label, "Key-Tag, sftkey_segment_weights {'thinking': 0.1}"
    }  # fmt: skip
    # It is compared with the others all the same.
    pairs = {frozenset((one.first, one.second)) for one in scores.comparisons}
    assert len(pairs) == 3
