"""The note of what has been evaluated, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sftkey.stages.evaluate import (
    EVALUATION_FILE,
    EVALUATION_FOLDER,
    SCHEMA,
    EvaluationSettings,
    evaluation_results,
    is_evaluated,
)
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError


def stage_with(folder: Path, content: Any) -> Stage:
    (folder / EVALUATION_FOLDER).mkdir()
    (folder / EVALUATION_FOLDER / EVALUATION_FILE).write_text(json.dumps(content))
    return Stage.read(folder)


@pytest.mark.parametrize(
    "evaluations",
    [
        *(None, 3, "x", {}, ["x"], [{}], [{"key": {}}], [{"file": "x"}], [{"key": {}, "file": 3}]),
        *([{"key": key, "file": "x"}] for key in (7, None, [], {}, {"tasks": 3}, {"tasks": [3]})),
        [{"key": {"tasks": ["x"]}, "file": "\0"}],
    ],
)
def test_a_note_of_another_shape_is_one_line(tmp_path: Path, evaluations: Any) -> None:
    stage = stage_with(tmp_path, {"schema": SCHEMA, "evaluations": evaluations})
    with pytest.raises(UserError, match=f"{EVALUATION_FILE} holds no list of evaluations.*delete it") as caught:
        evaluation_results(stage)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[" * 200_000, b"\xff\xfe", b"[]", b"null", b'{"schema": 2', None], ids=str)
def test_a_note_that_can_not_be_read_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    stage = stage_with(tmp_path, {})
    note = tmp_path / EVALUATION_FOLDER / EVALUATION_FILE
    note.unlink()
    note.mkdir() if content is None else note.write_bytes(content)
    with pytest.raises(UserError, match=f"{EVALUATION_FILE} can't be read .*; delete it to evaluate again") as caught:
        evaluation_results(stage)
    assert "\n" not in str(caught.value)


def test_a_note_without_evaluations_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no list of evaluations"):
        evaluation_results(stage_with(tmp_path, {"schema": SCHEMA}))


def test_an_empty_note_has_no_results(tmp_path: Path) -> None:
    assert evaluation_results(stage_with(tmp_path, {"schema": SCHEMA, "evaluations": []})) == []


@pytest.mark.parametrize(("noted", "known"), [({"stage_id": "1"}, True), ({"stage_id": "2"}, False), ({}, True)])
def test_an_evaluation_is_of_the_stage_with_its_id(tmp_path: Path, noted: dict[str, str], known: bool) -> None:
    """Two trainings can finish in the same second; notes of before say no more than when."""
    marker = {"schema": 1, "id": "1", "finished_at": "2026", "method": "sft-tag", "base_model": "x"}
    (tmp_path / "sftkey_stage.json").write_text(json.dumps(marker))
    settings = EvaluationSettings(tasks=("t",))
    key = {"backend": "hf", "model_arguments": "", "tasks": ["t"], "limit": None, "stage_finished_at": "2026", **noted}
    stage = stage_with(tmp_path, {"schema": SCHEMA, "evaluations": [{"key": key, "file": "results_1.json"}]})
    (tmp_path / EVALUATION_FOLDER / "results_1.json").write_text("{}")
    assert is_evaluated(stage, settings) is known
