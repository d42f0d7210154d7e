"""Finished stages on disk, as the plugin and lm-eval leave them, without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sftkey.stages.marker import MARKER_FILE

VERSIONS = {"python": "3.11.7", "sftkey": "0.1.0", "axolotl": "0.19.0", "torch": "2.13.0", "transformers": "5.16.1"}


def recipe(method: str, output_dir: str, **more: Any) -> dict[str, Any]:
    return {
        "base_model": "Qwen/Qwen3-8B-Base",
        "output_dir": output_dir,
        "plugins": ["sftkey.SFTKeyPlugin"],
        "sftkey_method": method,
        "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
        "learning_rate": 5e-6,
        "num_epochs": 3,
        "deepspeed": "deepspeed/zero3.json",
        **more,
    }


def finish(folder: Path, config: dict[str, Any], name: str, after: dict[str, Any] | None = None, **more: Any) -> dict:
    marker = {
        "schema": 1,
        "finished_at": f"2026-01-0{2 if after else 1}T00:00:00+00:00",
        "method": config["sftkey_method"],
        "recipe": {"name": name, "config": config},
        "base_model": config["base_model"],
        "after": after and {key: after[key] for key in ("output_dir", "method", "finished_at")},
        "tags": "text",
        "data": [
            {**config["datasets"][0], "revision": None, "rows_used": 7470, "rows_skipped": {"tag in the text": 3}}
        ],
        "versions": VERSIONS,
        "training": {"steps": 88, "seconds": 7200.0, "world_size": 8},
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER_FILE).write_text(json.dumps(marker, indent=2, sort_keys=True))
    return {**marker, "output_dir": config["output_dir"]}


def write_results(folder: Path, task: str, date: float, acc: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"acc,none": acc, "fmt,none": 1.0, "score,none": 0.7 * acc + 0.3, "acc_stderr,none": 0.01}
    content = {"results": {task: metrics}, "date": date, "n-samples": {task: {"effective": 1319}}, "config": {}}
    (folder / f"results_2026-01-0{int(date)}T00-00-00.000000.json").write_text(json.dumps(content))


def scores_for_the_hub(acc: float, score: float) -> list[dict[str, Any]]:
    """The metadata that shows the scores of `recipe` on GSM8K on a model's page."""
    metrics = [("acc", "Acc", acc), ("fmt", "Fmt", 1.0), ("score", "Score", score)]
    return [
        {
            "name": "Qwen/Qwen3-8B-Base trained on openai/gsm8k with SFTKey-Tag",
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "GSM8K", "type": "openai/gsm8k", "config": "main", "split": "test"},
                    "metrics": [{"type": kind, "name": name, "value": value} for kind, name, value in metrics],
                }
            ],
        }
    ]


def read_marker(folder: str | Path) -> dict[str, Any] | None:
    """The completion marker as the file holds it; ``None`` where there is none."""
    path = Path(folder) / MARKER_FILE
    return json.loads(path.read_text()) if path.exists() else None
