"""What lm-eval sees of us: documents, verdicts, metrics."""

from __future__ import annotations

import logging
import pickle

import pytest

pytest.importorskip("lm_eval")

from datasets import Dataset
from sftkey.datasets.holdout import is_held_out, problem_key
from sftkey.datasets.openr1_math import HELD_OUT_SHARE
from sftkey.datasets.registry import dataset
from sftkey.evaluation import lm_eval_tasks as harness
from sftkey.evaluation.judge import decide as judging
from sftkey.evaluation.judge.client import JudgeVerdict
from sftkey.evaluation.judge.settings import JudgeMode, JudgeSettings
from sftkey.evaluation.verdicts import scores


@pytest.fixture(autouse=True)
def logs_reach_caplog(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lm_eval"), "propagate", True)


def openr1_rows(count: int) -> list[dict]:
    return [
        {
            "problem": f"Compute ${number} + {number}$.",
            "answer": str(2 * number),
            "generations": ["long"],
            "uuid": str(number),
        }
        for number in range(count)
    ]


def test_held_out_rows_are_the_documents_each_problem_once(caplog):
    rows = openr1_rows(2_000)
    respelled = [{**row, "problem": row["problem"].replace("$", " ").upper()} for row in rows]
    with caplog.at_level(logging.INFO, logger="lm_eval"):
        documents = harness.documents(Dataset.from_list(rows + respelled), "openr1_math")
    expected = [row["problem"] for row in rows if is_held_out(row["problem"], HELD_OUT_SHARE)]
    assert expected
    assert documents["problem"][:] == expected
    # The traces are the bulk of a row, and would be logged with every item.
    assert set(documents.column_names) == {"problem", "answer", "uuid"}
    assert f"{len(expected)} rows are evaluated, left out: {len(expected)} duplicate" in caplog.text


def test_no_document_can_have_been_trained_on():
    rows = openr1_rows(2_000)
    documents = {
        problem_key(problem) for problem in harness.documents(Dataset.from_list(rows), "openr1_math")["problem"]
    }
    held_out = dataset("openr1_math").held_out
    assert documents.isdisjoint(problem_key(row["problem"]) for row in rows if not held_out(row))


def test_rows_without_a_reference_are_left_out_and_counted(caplog):
    rows = [
        {"question": "2+2?", "answer": "#### 4"},
        {"question": "3+3?", "answer": "six"},
        {"question": None, "answer": "#### 1"},
    ]
    with caplog.at_level(logging.INFO, logger="lm_eval"):
        documents = harness.documents(Dataset.from_list(rows), "gsm8k")
    assert documents["question"][:] == ["2+2?"]
    assert "left out: 1 missing field: question, 1 no answer" in caplog.text


def test_nothing_to_evaluate_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="gsm8k: no row to evaluate among 1: 1 no answer"):
        harness.documents(Dataset.from_list([{"question": "2+2?", "answer": "four"}]), "gsm8k")
    row = next(row for row in openr1_rows(50) if not is_held_out(row["problem"], HELD_OUT_SHARE))
    with pytest.raises(ValueError, match="openr1_math: no row to evaluate among 1: none is held out"):
        harness.documents(Dataset.from_list([row]), "openr1_math")


DOCS = [{"question": f"{number}+1?", "answer": f"#### {number + 1}"} for number in range(4)]
RESPONSES = [
    ["<Thinking>a</Thinking><Answer>1</Answer>"],
    ["<Thinking>a</Thinking><Answer>two</Answer>"],
    ["<Thinking>a"],
    ["5"],
]


def settings(mode: JudgeMode, tmp_path) -> JudgeSettings:
    return JudgeSettings(base_url="http://127.0.0.1:9/v1", model="judge", mode=mode, cache_dir=tmp_path)


def test_without_a_judge_the_rules_decide(monkeypatch, caplog):
    monkeypatch.delenv("SFTKEY_JUDGE_BASE_URL", raising=False)
    with caplog.at_level(logging.INFO, logger="lm_eval"):
        answers = harness.Verdicts(dataset="gsm8k").apply(RESPONSES, DOCS)
    assert answers == ["1", "two", "", "5"]
    logged = [harness.metrics({}, [answer]) for answer in answers]
    assert [metrics["acc"] for metrics in logged] == [1, 0, 0, 0]
    assert [metrics["undecided"] for metrics in logged] == [0, 1, 0, 0]
    assert [metrics["fmt"] for metrics in logged] == [1, 1, 0, 0]
    assert "rules only, no judge" in caplog.text
    assert "in 1 of 4 outputs the thinking is opened and never closed" in caplog.text
    assert "1 of 4 outputs have no thinking" in caplog.text


@pytest.mark.parametrize(("mode", "asked"), [(JudgeMode.FALLBACK, ["two"]), (JudgeMode.ALWAYS, ["1", "two", "5"])])
def test_all_that_a_judge_decides_is_asked_at_once(monkeypatch, tmp_path, mode, asked):
    calls = []

    def judge(items, settings, **kwargs):
        calls.append([item.prediction for item in items])
        return [JudgeVerdict(item.prediction == "two" and item.reference == "2", "judge", "said so") for item in items]

    monkeypatch.setattr(judging, "judge", judge)
    monkeypatch.setattr(harness.JudgeSettings, "from_environment", lambda: settings(mode, tmp_path))
    answers = harness.Verdicts(dataset="gsm8k").apply(RESPONSES, DOCS)
    assert calls == [asked]
    judged = [answer.record for answer in answers if answer.record["decided_by"] == "judge"]
    assert [record["extracted"] for record in judged] == asked
    assert answers[1].record["verdict"] == "same"
    assert answers[2].record["decided_by"] == "rule"


def test_the_log_gets_everything_and_the_aggregation_the_metrics():
    answer = harness.Verdicts(dataset="gsm8k").apply(RESPONSES[:1], DOCS[:1])[0]
    metrics = harness.metrics({}, [answer])
    # What lm-eval does with it.
    logged: dict = {"metrics": list(metrics.keys())}
    logged.update(metrics)
    aggregated = dict(metrics.items())
    assert aggregated == scores(answer.record)
    assert logged["metrics"] == list(aggregated)
    assert logged.keys() == {"metrics"} | answer.record.keys() | aggregated.keys()
    assert logged["extracted"] == "1"
    assert logged["decided_by"] == "rule"


def test_answers_travel_between_processes():
    answer = harness.Verdicts(dataset="gsm8k").apply(RESPONSES[:1], DOCS[:1])[0]
    there = pickle.loads(pickle.dumps(answer))
    assert there == answer
    assert there.record == answer.record
