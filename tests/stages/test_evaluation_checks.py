"""What an evaluation needs is looked at before anything is trained, and each refusal is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.fake_commands import install
from support.loopback_judge import Fault, LoopbackServer
from support.own_tasks import ROW, own_task

pytest.importorskip("lm_eval")

from sftkey.evaluation.lm_eval_tasks import task_manager
from sftkey.stages import evaluation_checks
from sftkey.stages.evaluate import EvaluationSettings
from sftkey.stages.evaluation_checks import check_evaluation
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError

RECIPE: dict[str, Any] = {
    "sftkey_method": "sft-tag",
    "output_dir": "out",
    "datasets": [{"path": "rows.jsonl", "type": "sftkey.datasets.columns"}],
    "sftkey_held_out": 0.5,
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with rows and stand-ins for the commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    install(tmp_path / "bin", tmp_path / "record.jsonl", monkeypatch)
    rows = [{**ROW, "question": f"{number} + 4?"} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def check(recipe: dict[str, Any] | None = None, **settings: Any) -> None:
    check_evaluation([Stage.of_recipe(Path("r.yml"), recipe or RECIPE)], EvaluationSettings(**settings), task_manager)


def refused(message: str, recipe: dict[str, Any] | None = None, **settings: Any) -> None:
    with pytest.raises(UserError, match=message) as error:
        check(recipe, **settings)
    assert "\n" not in str(error.value)


def test_what_is_there_is_enough() -> None:
    check()
    own_task(Path("tasks"), "mine")
    check(tasks=("mine", "sftkey_gsm8k"), include_path="tasks")


def test_a_mistyped_task_is_noticed() -> None:
    own_task(Path("tasks"), "mine")
    refused("there is no task 'mime'; did you mean 'mine'", tasks=("mime",), include_path="tasks")
    refused("there is no folder nowhere", tasks=("mine",), include_path="nowhere")


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        ([{"q": "3 + 4?", "a": "7"}], "", "no column 'question' in the data; it has: a, q"),
        ([{"q": "3 + 4?", "a": "7"}], "columns: {question: q, answer: A}", "no column 'A' in the data"),
        ([{"question": "?", "answer": ""}], "", "no row to evaluate among 1: 1 no answer"),
        ([ROW], "answers: essay", "'essay' is not a valid AnswerKind"),
        ([ROW], "columns: {reason: q}", "reason unknown; its keys are question"),
    ],
)
def test_a_task_of_ones_own_is_loaded_with_its_rows(rows: list[dict[str, Any]], keys: str, message: str) -> None:
    own_task(Path("tasks"), "mine", rows=rows, keys=keys)
    refused(message, tasks=("mine",), include_path="tasks")


def test_a_task_of_ones_own_can_name_its_columns() -> None:
    own_task(
        Path("tasks"),
        "mine",
        rows=[{"q": "3 + 4?", "a": "7"}],
        keys="columns: {question: q, answer: a}\nanswers: number",
    )
    check(tasks=("mine",), include_path="tasks")


def test_own_rows_are_read() -> None:
    refused("no column 'prompt' in the data; .*sftkey_columns", {**RECIPE, "sftkey_columns": {"question": "prompt"}})
    refused("none is held out", {**RECIPE, "sftkey_held_out": 1e-9})
    Path("empty.jsonl").write_text("")
    refused("empty.jsonl", {**RECIPE, "test_datasets": [{**RECIPE["datasets"][0], "path": "empty.jsonl"}]})


def test_lm_eval_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_checks, "needs_command", lambda name: (_ for _ in ()).throw(UserError(f"no {name}")))
    refused("no lm_eval")


def test_a_judge_that_answers_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer(lambda prompt: "Yes") as server:
        monkeypatch.setenv("SFTKEY_JUDGE_BASE_URL", server.base_url)
        check()
        assert ["1 + 1" in prompt for prompt in server.prompts()] == [True]


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.UNAUTHORIZED, Fault.HANG, Fault.CLOSE])
def test_a_judge_that_does_not_answer_is_noticed(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    monkeypatch.setattr(evaluation_checks, "JUDGE_SECONDS", 0.5)
    monkeypatch.setenv("SFTKEY_JUDGE_API_KEY", "very-secret")
    with LoopbackServer(lambda prompt: "Yes", faults=lambda prompt, attempt: fault) as server:
        monkeypatch.setenv("SFTKEY_JUDGE_BASE_URL", server.base_url)
        with pytest.raises(UserError, match=r"doesn't answer .*SFTKEY_JUDGE_MODE=off") as error:
            check()
    assert "very-secret" not in str(error.value)
    monkeypatch.setenv("SFTKEY_JUDGE_MODE", "off")
    check()


def test_a_wrong_setting_of_the_judge_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTKEY_JUDGE_BASE_URL", "localhost")
    refused("SFTKEY_JUDGE_BASE_URL")
