"""Synthetic output roots in the formats of the real files: markers, training logs, lm-eval results with samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sftkey.format.response_format import FormatFailure

Outcome = tuple[float, float]
"""acc and fmt of one item."""


class Outputs:
    """Writes output directories under a root, file by file as training and lm-eval write them.

    Attributes:
        root: The output root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._clock = 0

    def stage(
        self,
        name: str,
        method: str,
        *,
        base_model: str = "Qwen/Qwen3-8B-Base",
        after: str | None = None,
        data: str = "gsm8k",
        seed: int = 42,
        losses: Sequence[float] = (2.0, 1.0, 0.5),
        finished: bool = True,
        **config: Any,
    ) -> Path:
        """A stage: its log and, if it finished, its marker. One log entry per loss, 32 examples apart."""
        directory = self.root / name
        directory.mkdir(parents=True)
        self._clock += 1
        finished_at = f"2026-01-01T00:00:{self._clock:02d}+00:00"
        data_type = f"sftkey.datasets.{data}" if "." not in data else "sftkey.datasets.columns"
        entry = {"path": data if "." in data else f"hub/{data}", "type": data_type, "split": "train"}
        before = None
        if after is not None:
            marker = json.loads((self.root / after / "sftkey_stage.json").read_text())
            before = {
                "output_dir": f"outputs/{after}",
                "method": marker["method"],
                "finished_at": marker["finished_at"],
            }
            base_model = f"outputs/{after}"
        recipe = {"sftkey_method": method, "seed": seed, "output_dir": f"outputs/{name}", "datasets": [entry], **config}
        history = [
            {
                "step": step,
                "epoch": step / len(losses),
                "loss": loss,
                "loss_answer": loss,
                "loss_thinking": loss / 2,
                "loss_format": loss / 4,
                "acc_answer": 1 / (1 + loss),
                "tokens_answer": 40,
                "examples_seen": 32 * step,
            }
            for step, loss in enumerate(losses, 1)
        ]
        history.append({"step": len(losses), "epoch": 1.0, "eval_loss": 0.4, "eval_loss_answer": 0.4})
        state = {"global_step": len(losses), "log_history": history}
        if finished:
            write_json(directory / "trainer_state.json", state)
            write_json(
                directory / "sftkey_stage.json",
                {
                    "schema": 1,
                    "finished_at": finished_at,
                    "method": method,
                    "recipe": {"name": f"{Path(name).name}.yml", "config": recipe},
                    "base_model": base_model,
                    "after": before,
                    "tags": "text",
                    "chat_template": {"name": "thinking_answer", "sha256": "0" * 64},
                    "tokenizer": {"sha256": "1" * 64, "eos_token": "<|im_end|>", "size": 151_936},
                    "data": [{**entry, "name": None, "revision": None, "rows_used": 96, "rows_skipped": {}}],
                    "versions": {"sftkey": "0.1.0", "axolotl": "0.19.0", "python": "3.11.2"},
                    "training": {"steps": len(losses), "epochs": 1.0, "seconds": 75.0, "train_loss": 1.1667},
                },
            )
        else:
            write_json(directory / "checkpoint-3" / "trainer_state.json", state)
            settings = {"sftkey_method": method, "base_model": base_model, "datasets": [entry]}
            if after is not None:
                settings["sftkey_after"] = f"{Path(after).name}.yml"
            write_json(directory / "sftkey_run.json", {"schema": 1, "settings": settings})
        return directory

    def evaluate(
        self,
        model: str | Path,
        task: str,
        outcomes: Iterable[Outcome],
        *,
        where: str | None = None,
        first_item: int = 0,
        version: str = "0.4.11",
        date: str = "2026-01-02T00-00-00.000000",
        samples: bool = True,
        texts: dict[int, str] | None = None,
        judge_mode: str = "off",
    ) -> Path:
        """What `lm_eval --log_samples` writes about one task; item `i` asks "Question i?"."""
        outcomes = list(outcomes)
        name = str(model)
        folder = self.root / (where or "evaluations") / name.replace("/", "__")
        acc, fmt = (sum(values) / len(outcomes) for values in zip(*outcomes, strict=True))
        metrics = {"acc,none": acc, "fmt,none": fmt, "score,none": 0.7 * acc + 0.3 * fmt, "judged,none": 0.0}
        if judge_mode != "off":
            metrics["judge_unresolved,none"] = 0.0
        if judge_mode == "always":
            metrics["judge_agreement,none"] = 1.0
        results = folder / f"results_{date}.json"
        content = (
            json.loads(results.read_text()) if results.exists() else {"results": {}, "n-samples": {}, "versions": {}}
        )
        content["results"][task] = {"alias": task, "acc_stderr,none": 0.01, **metrics}
        content["n-samples"][task] = {"original": 1319, "effective": len(outcomes)}
        content["versions"][task] = 1
        content |= {
            "group_subtasks": {task: []},
            "config": {
                "model": "hf",
                "model_args": f"pretrained={name},dtype=float32",
                "limit": None,
                "gen_kwargs": {},
            },
            "date": 1767312000.0,
            "lm_eval_version": version,
            "chat_template": "{{ messages }}",
            "n-shot": {task: 0},
        }
        write_json(results, content)
        if samples:
            lines = [
                json.dumps(_sample(first_item + i, acc, fmt, (texts or {}).get(i), judge_mode))
                for i, (acc, fmt) in enumerate(outcomes)
            ]
            (folder / f"samples_{task}_{date}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return results


def _sample(number: int, acc: float, fmt: float, text: str | None, judge_mode: str) -> dict[str, Any]:
    output = text
    if output is None:
        body = f"<Thinking>Item {number}.</Thinking><Answer>{number if acc else number + 1}</Answer>"
        output = body if fmt else body.replace("</Answer>", "")
    record = {
        "question": f"Question {number}?",
        "reference": str(number),
        "extracted": str(number if acc else number + 1),
        "extraction": "answer block",
        "rule_verdict": "same" if acc else "different",
        "rule_detail": "numbers",
        "over_limit": False,
        "format_failure": None if fmt else FormatFailure.ANSWER_CUT_OFF.value,
        "thinking_valid": True,
        "verdict": "same" if acc else "different",
        "decided_by": "rule",
        "judge_mode": judge_mode,
        "judge_same": None,
        "judge_source": None,
        "judge_detail": "",
    }
    return {
        "doc_id": number,
        "doc": {"question": f"Question {number}?", "answer": f"#### {number}"},
        "target": str(number),
        "arguments": {"gen_args_0": {"arg_0": f"Question {number}?"}},
        "resps": [[output]],
        "filtered_resps": [record["extracted"]],
        "filter": "none",
        "metrics": ["acc", "fmt", "score"],
        "doc_hash": "0" * 64,
        **record,
        "acc": acc,
        "fmt": fmt,
        "score": 0.7 * acc + 0.3 * fmt,
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
