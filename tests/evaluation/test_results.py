"""Figures from the results at once, items from the samples on demand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sftkey.evaluation.results import newest_evaluations, read_evaluations, read_results
from sftkey.util.sources import Ledger, UnreadableFile
from support.output_roots import Outputs

OUTCOMES = [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)]


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path)


def change(path: Path, task: str, **row: object) -> None:
    content = json.loads(path.read_text())
    content["results"][task] = {name.replace("__", ","): value for name, value in row.items()}
    path.write_text(json.dumps(content))


def test_figures_need_no_samples_and_no_pandas(outputs: Outputs) -> None:
    path = outputs.evaluate("model", "sftkey_gsm8k", OUTCOMES)
    code = f"""
import sys
from pathlib import Path
from sftkey.evaluation.results import newest_evaluations
from sftkey.util.sources import Ledger
ledger = Ledger()
(found,) = newest_evaluations(Path({str(outputs.root)!r}), ledger)
print(found.task, found.count, [file.kind for file in ledger.files], "pandas" in sys.modules, "numpy" in sys.modules)
print(len(found.items), [file.kind for file in ledger.files], "pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "sftkey_gsm8k 3 ['results'] False False",
        "3 ['results', 'samples'] True",
    ]
    assert path.is_file()


def test_items_are_read_once(outputs: Outputs) -> None:
    path = outputs.evaluate("model", "sftkey_gsm8k", OUTCOMES)
    (read_before,), (read_after,) = (read_evaluations(path, Ledger()) for _ in range(2))
    assert read_before.items is not None
    for samples in path.parent.glob("samples_*"):
        samples.unlink()
    assert read_before.items is not None
    assert read_before.items["acc"].tolist() == [1.0, 0.0, 1.0]
    assert read_after.items is None
    assert "no samples of sftkey_gsm8k beside it" in read_after.ledger.notes[0]


def test_everything_in_a_file_by_name(outputs: Outputs) -> None:
    path = outputs.evaluate("model", "sftkey_gsm8k", OUTCOMES)
    change(path, "mmlu", **{"alias": "mmlu", "acc__none": 0.25, "acc_stderr__none": 0.1})
    change(path, "all", **{"acc__none": 0.5, "fmt__none": "N/A"})
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"group_subtasks": {"all": ["sftkey_gsm8k", "mmlu"], "mmlu": []}}))
    found = read_results(path)
    assert {name: dict(one.reported) for name, one in found.items() if name != "sftkey_gsm8k"} == {
        "mmlu": {"acc": 0.25},
        "all": {"acc": 0.5},
    }
    assert [name for name, one in found.items() if one.group] == ["all"]
    ledger = Ledger()
    assert [one.task for one in read_evaluations(path, ledger)] == ["sftkey_gsm8k"]
    assert "no acc, fmt and score for mmlu;" in ledger.notes[0]


def test_a_file_without_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results_1.json"
    path.write_text("{}")
    with pytest.raises(UnreadableFile, match="no results in it"):
        read_results(path)


def test_the_newest_evaluation_of_each_task_counts(outputs: Outputs) -> None:
    task, other = "sftkey_gsm8k", "sftkey_openbookqa"
    old = outputs.evaluate("model", task, OUTCOMES, date="2026-01-09T00-00-00.000000")
    new = outputs.evaluate("model", task, OUTCOMES[:1], date="2026-01-01T00-00-00.000000")
    only = outputs.evaluate("model", other, OUTCOMES, date="2026-01-02T00-00-00.000000")
    checkpoint = outputs.evaluate("checkpoint-9/model", task, OUTCOMES, where="checkpoint-9")
    for path, date in ((old, 1.0), (new, 2.0), (only, 1.0), (checkpoint, 3.0)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"date": date}))
    assert [(one.task, one.path) for one in newest_evaluations(outputs.root, Ledger())] == [(task, new), (other, only)]


@pytest.mark.parametrize(
    ("metrics", "mode"),
    [
        (("acc", "judged", "judge_cached", "judge_unresolved", "judge_agreement", "judge_kappa"), "always"),
        (("acc", "judged", "judge_cached", "judge_unresolved"), "fallback"),
        (("acc", "judged"), "off"),
        (("acc",), None),
    ],
)
def test_the_judges_mode_follows_from_the_metrics(outputs: Outputs, metrics: tuple[str, ...], mode: str | None) -> None:
    path = outputs.evaluate("model", "sftkey_gsm8k", OUTCOMES)
    change(path, "sftkey_gsm8k", **{f"{metric}__none": 0.5 for metric in metrics})
    assert read_results(path)["sftkey_gsm8k"].settings.get("judge") == mode


def test_who_judged(outputs: Outputs) -> None:
    path = outputs.evaluate("model", "sftkey_gsm8k", OUTCOMES)
    assert "judge model" not in read_results(path)["sftkey_gsm8k"].settings
    judge: Any = {"judge": "judge-a", "mode": "always"}
    content = json.loads(path.read_text()) | {"configs": {"sftkey_gsm8k": {"metadata": {"version": 1, "judge": judge}}}}
    path.write_text(json.dumps(content))
    assert read_results(path)["sftkey_gsm8k"].settings["judge model"] == "judge-a"
    path.write_text(json.dumps(content | {"sftkey_judged_later": {"judge": "judge-b"}}))
    assert read_results(path)["sftkey_gsm8k"].settings["judge model"] == "judge-b"
    for broken in ([], {"sftkey_gsm8k": 1}, {"sftkey_gsm8k": {"metadata": {"judge": "x"}}}):
        path.write_text(json.dumps(content | {"configs": broken}))
        assert "judge model" not in read_results(path)["sftkey_gsm8k"].settings
