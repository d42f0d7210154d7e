"""An evaluation of the base model holds for the weights that were there when it was made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sftkey.stages.base_evaluation import base_evaluations, record_base
from sftkey.stages.evaluate import EvaluationSettings
from sftkey.stages.stage import Stage
from support.output_roots import Outputs

SETTINGS = EvaluationSettings(tasks=("sftkey_gsm8k",))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    outputs = Outputs(tmp_path / "outputs")
    outputs.stage("stage1", "sft-tag", base_model="base")
    outputs.evaluate("base", "sftkey_gsm8k", [(1.0, 1.0), (0.0, 1.0)], where="base/eval")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"first")
    record_base("base", Stage.read("outputs/stage1"), SETTINGS, tmp_path / "outputs/base/eval", frozenset())
    return tmp_path


def found(place: Path) -> list[str]:
    stage, folder = Stage.read("outputs/stage1"), place / "outputs/base/eval"
    return [one.task for one in base_evaluations("base", stage, SETTINGS, folder)]


def test_other_weights_in_the_same_place_are_evaluated_anew(place: Path) -> None:
    assert found(place) == ["sftkey_gsm8k"]
    weights = place / "base" / "model.safetensors"
    before = weights.stat()
    weights.write_bytes(b"other")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert found(place) == []


def test_what_an_earlier_version_noted_is_kept(place: Path) -> None:
    note = place / "outputs/base/eval/sftkey_base.json"
    content = json.loads(note.read_text())
    del content["weights"]
    note.write_text(json.dumps(content))
    assert found(place) == ["sftkey_gsm8k"]
