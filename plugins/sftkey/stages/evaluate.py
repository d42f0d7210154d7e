"""Evaluates a finished stage with lm-eval: which tasks, which command, and whether that has been done already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftkey.datasets.registry import DATASETS
from sftkey.format.methods import METHODS
from sftkey.stages.card import update_card
from sftkey.stages.chain import Stage
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically

EVALUATION_FOLDER = "eval"
"""Inside a stage's ``output_dir``."""

EVALUATION_FILE = "sftkey_evaluation.json"
"""Written into that folder once lm-eval has written everything: which evaluations are done, with their metrics."""

SCHEMA = 1

_TYPE_PREFIX = "sftkey.datasets."
_METRICS = ("acc", "fmt", "score")


@dataclass(frozen=True)
class EvaluationSettings:
    """What decides the figures of an evaluation, and how it is run.

    Attributes:
        backend: lm-eval's ``--model``, such as ``hf`` or ``vllm``.
        model_arguments: More of lm-eval's ``--model_args``, ``key=value`` with commas between.
        tasks: The tasks; empty to choose them by the recipe's data sets.
        limit: Items per task, or a share below 1; ``None`` for all.
        batch_size: lm-eval's ``--batch_size``.
        include_path: lm-eval's ``--include_path``: a folder with tasks of one's own.
    """

    backend: str = "hf"
    model_arguments: str = ""
    tasks: tuple[str, ...] = ()
    limit: float | None = None
    batch_size: str = "16"
    include_path: str | None = None


@dataclass(frozen=True)
class Result:
    """The metrics of one task.

    Attributes:
        task: lm-eval's task.
        items: How many items were evaluated.
        metrics: ``acc``, ``fmt``, ``score`` and their standard errors, as lm-eval names them.
        limit: As in `EvaluationSettings`.
        backend: As in `EvaluationSettings`.
    """

    task: str
    items: int | None
    metrics: Mapping[str, float]
    limit: float | None
    backend: str


def tasks_of(stage: Stage) -> tuple[str, ...]:
    """The tasks of a recipe's data sets; for a method without tags their ``_plain`` twins.

    Raises:
        UserError: A data set has no task of its own.
    """
    suffix = "" if METHODS[stage.method].tagged else "_plain"
    names = []
    for entry in stage.config.get("datasets") or []:
        name = str(entry.get("type")).removeprefix(_TYPE_PREFIX)
        if name not in DATASETS:
            raise UserError(
                f"{stage.recipe.name}: data of type {_TYPE_PREFIX}{name} has no task of its own; name the tasks with "
                "--eval-tasks"
            )
        names.append(f"sftkey_{name}{suffix}")
    return tuple(dict.fromkeys(names))


def evaluation_command(stage: Stage, settings: EvaluationSettings) -> list[str]:
    """The ``lm_eval`` command for a stage.

    Raises:
        UserError: See `tasks_of`.
    """
    command = ["lm_eval", "run", "--model", settings.backend, "--model_args", _model_arguments(stage, settings)]
    command += ["--tasks", ",".join(settings.tasks or tasks_of(stage)), "--apply_chat_template", "--log_samples"]
    command += ["--batch_size", settings.batch_size, "--output_path", str(stage.output_dir / EVALUATION_FOLDER)]
    if settings.include_path is not None:
        command += ["--include_path", settings.include_path]
    return command if settings.limit is None else [*command, "--limit", f"{settings.limit:g}"]


def _model_arguments(stage: Stage, settings: EvaluationSettings) -> str:
    place = str(stage.output_dir)
    if stage.config.get("adapter"):
        first = stage.chain[0]
        base = str((stage.marker or first.marker or first.config)["base_model"])
        adapter = "lora_local_path" if settings.backend == "vllm" else "peft"
        arguments = f"pretrained={base},{adapter}={place},tokenizer={place}"
    else:
        arguments = f"pretrained={place}"
    return ",".join(filter(None, (arguments, settings.model_arguments)))


def is_evaluated(stage: Stage, settings: EvaluationSettings) -> bool:
    """Whether a stage, as it is trained now, has been evaluated with these settings."""
    return any(entry["key"] == _key(stage, settings) for entry in _entries(stage))


def _key(stage: Stage, settings: EvaluationSettings) -> dict[str, Any]:
    """What two evaluations share that need not both be run; the batch size and the folder are how, not what."""
    chosen = asdict(settings) | {"tasks": list(settings.tasks or tasks_of(stage))}
    del chosen["batch_size"], chosen["include_path"]
    return chosen | {"stage_finished_at": (stage.marker or {}).get("finished_at")}


def _entries(stage: Stage) -> list[dict[str, Any]]:
    path = stage.output_dir / EVALUATION_FOLDER / EVALUATION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}); delete it to evaluate again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} has a schema this version of sftkey doesn't know; upgrade sftkey")
    entries: list[dict[str, Any]] = content["evaluations"]
    return entries


def results_files(stage: Stage) -> frozenset[Path]:
    """All files with aggregated results that lm-eval has written about a stage."""
    return frozenset((stage.output_dir / EVALUATION_FOLDER).rglob("results_*.json"))


def record_evaluation(stage: Stage, settings: EvaluationSettings, before: frozenset[Path]) -> None:
    """Note that an evaluation is done, with its metrics, there and in the model card. Called once lm-eval has ended well.

    Args:
        stage: The stage.
        settings: What was run.
        before: `results_files` before lm-eval was started.

    Raises:
        UserError: lm-eval wrote no results.
    """
    new = sorted(results_files(stage) - before, key=lambda path: path.stat().st_mtime_ns)
    folder = stage.output_dir / EVALUATION_FOLDER
    if not new:
        raise UserError(f"lm_eval ended without an error but wrote no results under {folder}")
    content = json.loads(new[-1].read_text(encoding="utf-8"))
    key = _key(stage, settings)
    results = {}
    for task in key["tasks"]:
        metrics = content.get("results", {}).get(task, {})
        count = content.get("n-samples", {}).get(task, {}).get("effective")
        found = {
            f"{name}{suffix}": metrics[f"{name}{suffix},none"]
            for name in _METRICS
            for suffix in ("", "_stderr")
            if f"{name}{suffix},none" in metrics
        }
        results[task] = {"items": count, "metrics": found}
    entries = [entry for entry in _entries(stage) if entry["key"] != key]
    entries.append({"key": key, "file": str(new[-1].relative_to(folder)), "results": results})
    write_atomically(folder / EVALUATION_FILE, {"schema": SCHEMA, "evaluations": entries})
    update_card(stage.output_dir)


def evaluation_results(stage: Stage) -> list[Result]:
    """The metrics of a stage, as it is trained now, for every evaluation noted, oldest first."""
    finished_at = (stage.marker or {}).get("finished_at")
    return [
        Result(task, result["items"], result["metrics"], entry["key"]["limit"], entry["key"]["backend"])
        for entry in _entries(stage)
        if entry["key"].get("stage_finished_at") == finished_at
        for task, result in entry["results"].items()
    ]


def results_table(stages: Sequence[Stage]) -> list[tuple[str, ...]]:
    """Rows for a terminal, a header first: one per stage and task, one per stage that has no evaluation."""
    rows: list[tuple[str, ...]] = [("STAGE", "METHOD", "STEPS", "LOSS", "TASK", "ITEMS", "ACC", "FMT", "SCORE")]
    for stage in stages:
        training = (stage.marker or {}).get("training") or {}
        loss = (training.get("losses") or {}).get("loss")
        start = (
            str(stage.output_dir),
            stage.method,
            f"{training['steps']:,}" if training.get("steps") is not None else "-",
            f"{loss:.4f}" if loss is not None else "-",
        )
        evaluations = evaluation_results(stage) if stage.finished else []
        for result in evaluations:
            scores = [
                f"{result.metrics[name]:.4f}" if isinstance(result.metrics.get(name), (int, float)) else "-"
                for name in _METRICS
            ]
            rows.append((*start, result.task, f"{result.items:,}" if result.items else "-", *scores))
        if not evaluations:
            state = "not evaluated" if stage.finished else stage.state.value
            rows.append((*start, state, "-", "-", "-", "-"))
    return rows
