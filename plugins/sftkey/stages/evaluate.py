"""Evaluate a finished stage with lm-eval: the tasks, the command, what has been done already, and its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftkey.datasets.registry import DATASETS, OWN_DATA, TYPES
from sftkey.evaluation.results import PLAIN_SUFFIX, TASK_PREFIX, Evaluation, read_results
from sftkey.evaluation.task_files import tasks_folder
from sftkey.evaluation.trained_model import ANSWERS, STAGE
from sftkey.format.methods import METHODS
from sftkey.stages.card import update_card
from sftkey.stages.marker import MARKER_FILE, Marker
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from sftkey.util.sources import UnreadableFile, read_json
from sftkey.util.text import Cell

EVALUATION_FOLDER = "eval"
"""Inside a stage's ``output_dir``."""

EVALUATION_FILE = "sftkey_evaluation.json"
"""Written into that folder once lm-eval has written everything: which evaluations are done, and in which file."""

OWN_TASK = f"{TASK_PREFIX}own"
"""The task on the rows of a stage's own recipe."""

SCHEMA = 2
"""1 kept the metrics as well, which are not read any more."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What decides the figures of an evaluation, and how it is run.

    Attributes:
        backend: lm-eval's ``--model``, such as ``hf`` or ``vllm``.
        model_arguments: More of lm-eval's ``--model_args``, ``key=value`` with commas between.
        tasks: The tasks; empty to choose them by the recipe's data sets.
        limit: Items per task, or a share below 1; ``None`` for all.
        batch_size: lm-eval's ``--batch_size``.
        include_path: A folder with tasks of one's own, in place of the shipped ones: lm-eval's ``--include_path`` takes one.
        arguments: More options of lm-eval's.
    """

    backend: str = "hf"
    model_arguments: str = ""
    tasks: tuple[str, ...] = ()
    limit: float | None = None
    batch_size: str = "16"
    include_path: str | None = None
    arguments: tuple[str, ...] = ()


def asks_own_rows(stage: Stage, settings: EvaluationSettings) -> bool:
    """Whether an evaluation is, among others, of the rows that the stage's recipe names."""
    return any(task.removesuffix(PLAIN_SUFFIX) == OWN_TASK for task in settings.tasks or tasks_of(stage))


def tasks_of(stage: Stage) -> tuple[str, ...]:
    """The tasks of a recipe's data sets, `OWN_TASK` for own rows; for a method without tags their ``_plain`` twins.

    Raises:
        UserError: A data set has no task of its own.
    """
    suffix = "" if METHODS[stage.method].tagged else PLAIN_SUFFIX
    names = []
    for entry in stage.config.get("datasets") or []:
        name = str(entry.get("type")).removeprefix(TYPES)
        if name in OWN_DATA:
            names.append(f"{OWN_TASK}{suffix}")
            continue
        if name not in DATASETS:
            raise UserError(
                f"{stage.recipe.name}: data of type {entry.get('type')} has no task of its own; name the tasks with "
                "--eval-tasks (sftkey eval: --tasks)"
            )
        names.append(f"{TASK_PREFIX}{name}{suffix}")
    return tuple(dict.fromkeys(names))


def evaluation_command(stage: Stage, settings: EvaluationSettings) -> list[str]:
    """The ``lm_eval`` command for a stage.

    Raises:
        UserError: See `tasks_of`.
    """
    return command_for(_model_arguments(stage, settings), stage, settings, stage.output_dir / EVALUATION_FOLDER)


def command_for(model_arguments: str, stage: Stage, settings: EvaluationSettings, folder: Path) -> list[str]:
    """The ``lm_eval`` command for any model on the tasks of a stage, into a folder; raises as `tasks_of`."""
    command = ["lm_eval", "run", "--model", settings.backend, "--model_args", model_arguments]
    command += ["--tasks", ",".join(settings.tasks or tasks_of(stage)), "--apply_chat_template", "--log_samples"]
    command += ["--batch_size", settings.batch_size, "--output_path", str(folder)]
    # Named although lm-eval has a copy: that is lost when lm-eval is installed again, elsewhere, or from a checkout.
    command += ["--include_path", settings.include_path or str(tasks_folder())]
    if settings.limit is not None:
        command += ["--limit", f"{settings.limit:g}"]
    if asks_own_rows(stage, settings):
        command += ["--metadata", json.dumps({STAGE: str(stage.output_dir), **_answers(stage)})]
    return [*command, *settings.arguments]


def _answers(stage: Stage) -> dict[str, str]:
    """The kind of own answers, which a recipe may say otherwise than it did at training."""
    kind = stage.config.get(ANSWERS)
    return {ANSWERS: str(kind)} if kind else {}


def _model_arguments(stage: Stage, settings: EvaluationSettings) -> str:
    place = str(stage.output_dir)
    if settings.backend.startswith(("local-", "openai-")):
        # A server has the model under a name of its own; vLLM's is by default the folder that it loaded.
        given = {part.partition("=")[0].strip() for part in settings.model_arguments.split(",")}
        named = {"model": place, "tokenizer": place}
        if "pretrained" in given:
            del named["model"]
        if "chat" in settings.backend or "tokenizer_backend" in given:
            del named["tokenizer"]  # the server applies its own template
        arguments = ",".join(f"{key}={value}" for key, value in named.items() if key not in given)
    elif stage.is_adapter:
        first = stage.chain[0]
        marker = stage.marker or first.marker
        base = marker.base_model if marker else str(first.config["base_model"])
        adapter = "lora_local_path" if settings.backend == "vllm" else "peft"
        arguments = f"pretrained={base},{adapter}={place},tokenizer={place}"
    else:
        arguments = f"pretrained={place}"
    return ",".join(filter(None, (arguments, settings.model_arguments)))


def is_evaluated(stage: Stage, settings: EvaluationSettings) -> bool:
    """Whether a stage, as it is trained now, has been evaluated with these settings, and the results are still there."""
    key = _key(stage, settings)
    return any(
        _is_of(stage, entry) and _what(entry["key"]) == _what(key) and _results_file(stage, entry).is_file()
        for entry in _entries(stage)
    )


def _is_of(stage: Stage, entry: Mapping[str, Any]) -> bool:
    """Whether an evaluation is of the stage as it is now; earlier notes say only when the stage had finished."""
    key = entry["key"]
    if key.get("stage_id") is not None and stage.marker is not None:
        return bool(key["stage_id"] == stage.marker.id)
    return bool(key.get("stage_finished_at") == stage.finished_at)


def _what(key: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name not in ("stage_id", "stage_finished_at")}


def _key(stage: Stage, settings: EvaluationSettings) -> dict[str, Any]:
    """What two evaluations share that need not both be run; the batch size and the folder are how, not what."""
    chosen = asdict(settings) | {"tasks": list(settings.tasks or tasks_of(stage))}
    del chosen["batch_size"], chosen["include_path"], chosen["arguments"]
    chosen |= {"arguments": list(settings.arguments)} if settings.arguments else {}  # earlier notes don't have them
    chosen |= _answers(stage) if asks_own_rows(stage, settings) else {}
    identity = {"stage_id": stage.marker.id} if stage.marker and stage.marker.id else {}
    return chosen | {"stage_finished_at": stage.finished_at} | identity


def _entries(stage: Stage) -> list[dict[str, Any]]:
    path = stage.output_dir / EVALUATION_FOLDER / EVALUATION_FILE
    if not os.path.lexists(path):
        return []
    try:
        content = read_json(path)
    except UnreadableFile as error:
        raise UserError(f"{path} can't be read ({error}); delete it to evaluate again") from error
    if content.get("schema") not in (1, SCHEMA):
        raise UserError(f"{path} has a schema this version of sftkey doesn't know; upgrade sftkey")
    entries: Any = content.get("evaluations")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise UserError(f"{path} holds no list of evaluations, each with key and file; delete it to evaluate again")
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str) or not isinstance(entry.get("key"), dict):
        return False
    tasks = entry["key"].get("tasks")
    return isinstance(tasks, list) and all(isinstance(task, str) for task in tasks) and "\0" not in entry["file"]


def _results_file(stage: Stage, entry: Mapping[str, Any]) -> Path:
    return stage.output_dir / EVALUATION_FOLDER / str(entry["file"])


def results_files(stage: Stage) -> frozenset[Path]:
    """All files with aggregated results that lm-eval has written about a stage."""
    return frozenset((stage.output_dir / EVALUATION_FOLDER).rglob("results_*.json"))


def record_evaluation(stage: Stage, settings: EvaluationSettings, before: frozenset[Path]) -> None:
    """Note that an evaluation is done, and show it in the model card. Called once lm-eval has ended well.

    Args:
        stage: The stage.
        settings: What was run.
        before: `results_files` before lm-eval was started.

    Raises:
        UserError: lm-eval wrote no results.
    """
    folder = stage.output_dir / EVALUATION_FOLDER
    new = max(results_files(stage) - before, key=lambda path: path.stat().st_mtime_ns, default=None)
    if new is None:
        raise UserError(f"lm_eval ended without an error but wrote no results under {folder}")
    key = _key(stage, settings)
    others = (entry for entry in _entries(stage) if not (_is_of(stage, entry) and _what(entry["key"]) == _what(key)))
    entries = [{"key": entry["key"], "file": entry["file"]} for entry in others]
    entries.append({"key": key, "file": str(new.relative_to(folder))})
    write_atomically(folder / EVALUATION_FILE, {"schema": SCHEMA, "evaluations": entries})
    update_cards([new])


def evaluation_results(stage: Stage) -> list[Evaluation]:
    """The figures of a stage, as it is trained now, of every evaluation noted, oldest first.

    Raises:
        UserError: A file of results can't be read.
    """
    return [one for entry in _entries(stage) for one in _evaluations(stage, entry)]


def evaluations_with(stage: Stage, settings: EvaluationSettings) -> list[Evaluation]:
    """The same of the evaluation with these settings alone; none where it wasn't done."""
    wanted = _what(_key(stage, settings))
    return [one for entry in _entries(stage) if _what(entry["key"]) == wanted for one in _evaluations(stage, entry)]


def _evaluations(stage: Stage, entry: Mapping[str, Any]) -> list[Evaluation]:
    path = _results_file(stage, entry)
    if not _is_of(stage, entry) or not path.is_file():
        return []
    try:
        results = read_results(path)
    except UnreadableFile as error:
        raise UserError(f"{path}: {error}; delete it to evaluate again") from error
    named = [results[task] for task in entry["key"]["tasks"] if task in results]
    # A name that is not among the results is a tag: they hold its tasks.
    return named if len(named) == len(entry["key"]["tasks"]) else list(results.values())


def update_cards(results: Iterable[Path]) -> None:
    """Write the model cards again that show the figures of these files.

    They are those of the finished stages that the files lie below, and of the stages beside that started from one.
    """
    folders: dict[Path, None] = {}
    for path in results:
        folder = next((folder for folder in path.resolve().parents if (folder / MARKER_FILE).is_file()), None)
        if folder is not None:
            folders |= dict.fromkeys([folder, *_later_stages(folder)])
    for folder in folders:
        update_card(folder)


def _later_stages(folder: Path) -> list[Path]:
    found = []
    for beside in sorted(folder.parent.iterdir()):
        with suppress(UserError, OSError):  # an unreadable marker costs a card, not the evaluation
            marker, later = Marker.read(folder), Marker.read(beside)
            if marker and later and later.after and later.after.names(marker):
                found.append(beside)
    return found


def figures(evaluation: Evaluation) -> list[float | None]:
    """Acc, Fmt and Score."""
    return [evaluation.reported.get(name) for name in ("acc", "fmt", "score")]


def results_table(stages: Sequence[Stage]) -> list[tuple[Cell, ...]]:
    """Rows for a terminal, a header first: one per stage and task, one per stage that has no evaluation."""
    rows: list[tuple[Cell, ...]] = [("STAGE", "METHOD", "STEPS", "LOSS", "TASK", "ITEMS", "ACC", "FMT", "SCORE")]
    for stage in stages:
        start = (str(stage.output_dir), stage.method, stage.training.steps, stage.training.losses.get("loss"))
        evaluations = evaluation_results(stage) if stage.finished else []
        for one in evaluations:
            rows.append((*start, one.task, one.count, *figures(one)))
        if not evaluations:
            state = "not evaluated" if stage.finished else stage.state.value
            rows.append((*start, state, None, None, None, None))
    return rows
