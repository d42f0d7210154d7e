"""Files that lm-eval itself writes, on real GSM8K rows: the report finds them, reads them and computes what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sftkey.report.changes import changes_of
from sftkey.report.collect import collect
from sftkey.report.runs import runs_of
from support.output_roots import Outputs

ROWS = 6
CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/rows.jsonl}
  - {split: test, path: main/rows.jsonl}
---
"""


def evaluate(checkpoint: str, answers: list[str], output_path: Path, tasks: Path) -> None:
    """What `lm_eval --model_args pretrained=CHECKPOINT --log_samples` does, with a model that gives `answers`."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class Canned(LM):
        tokenizer_name = "canned"

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

        def generate_until(self, requests: Any) -> list[str]:
            return answers[: len(requests)]

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return chat_history[-1]["content"]

        def chat_template(self, chat_template: Any = False) -> str:
            return "{{ messages }}"

    tracker = EvaluationTracker(output_path=str(output_path))
    arguments = f"pretrained={checkpoint},dtype=float32"
    tracker.general_config_tracker.log_experiment_args("hf", arguments, None, "{{ messages }}", False)
    results = simple_evaluate(
        model=Canned(),
        model_args=arguments,
        tasks=["sftkey_gsm8k"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        evaluation_tracker=tracker,
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
    )
    assert results is not None
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples("sftkey_gsm8k", samples["sftkey_gsm8k"])


def test_real_files(
    outputs: Outputs,
    gsm8k_rows: dict[str, list[dict[str, Any]]],
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    rows = gsm8k_rows["test"][:ROWS]
    data = tmp_path / "openai" / "gsm8k"
    (data / "main").mkdir(parents=True)
    (data / "README.md").write_text(CARD)
    (data / "main" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SFTKEY_JUDGE_BASE_URL", raising=False)

    right = [
        f"<Thinking>{row['answer'].split('####')[0]}</Thinking><Answer>{row['answer'].split('####')[1].strip()}</Answer>"
        for row in rows
    ]
    before = [right[0], right[1].replace("</Answer>", "1</Answer>"), *right[2:]]
    after = [right[0].replace("<Thinking>", ""), *right[1:]]
    outputs.stage("stage1", "sft-tag")
    outputs.stage("stage2", "key-tag", after="stage1")
    evaluate("outputs/stage1", before, tmp_path / "outputs" / "lm_eval", repository / "tasks")
    evaluate("outputs/stage2", after, tmp_path / "outputs" / "lm_eval", repository / "tasks")

    collection = collect([tmp_path / "outputs"])
    runs = runs_of(collection)
    assert collection.ledger.skipped == []
    assert collection.ledger.notes == []
    first, second = (run.evaluations["gsm8k"] for run in runs)
    assert [run.strategy for run in runs] == ["SFT-Tag", "SFTKey-Tag"]
    assert first.items is not None
    assert second.items is not None
    assert first.items["acc"].tolist() == [1, 0, 1, 1, 1, 1]
    assert second.items["fmt"].tolist() == [0, 1, 1, 1, 1, 1]
    assert first.items["question"].tolist() == [row["question"] for row in rows]
    assert second.items["output"].tolist() == after
    assert second.items["failure"][0] == "no thinking"
    assert first.settings["judge"] == "off"
    assert first.settings["chat template"] == "applied"
    (change,) = changes_of(runs)
    assert change.counts == {"fixed": 1, "broken": 0, "format lost": 1, "format gained": 0}
