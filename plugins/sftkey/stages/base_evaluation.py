"""Evaluate the model that a first stage starts from, as the stages are evaluated, and read what came of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sftkey.evaluation.results import Evaluation, read_results
from sftkey.stages.evaluate import EvaluationSettings, command_for, tasks_of
from sftkey.stages.reference import weights_stamp
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from sftkey.util.sources import UnreadableFile, number, read_json

_FILE = "sftkey_base.json"


def base_command(model: str, stage: Stage, settings: EvaluationSettings, folder: Path) -> list[str]:
    """The ``lm_eval`` command for a base model, with a stage's tokenizer: its template and the end of its turn.

    Args:
        model: The base model.
        stage: A finished stage of it, for tokenizer and tasks.
        settings: As for the stages.
        folder: Where the results go.
    """
    arguments = ",".join(filter(None, (f"pretrained={model},tokenizer={stage.output_dir}", settings.model_arguments)))
    return command_for(arguments, stage, settings, folder)


def why_not(model: str, stage: Stage, settings: EvaluationSettings) -> str | None:
    """Why a base model can't be evaluated like its stages; ``None`` where it can."""
    if settings.backend.startswith(("local-", "openai-")):
        return "a server has the model that is evaluated, and it isn't the base model"
    size = stage.marker.tokenizer.size if stage.marker and stage.marker.tokenizer else None
    try:
        rows = number(read_json(Path(model) / "config.json").get("vocab_size"))
    except UnreadableFile:
        return None  # on the Hub, or lm_eval says what is wrong with it
    if size and rows and size > rows:
        return f"the stages have {size - int(rows)} tokens that {model} doesn't have"
    return None


def base_evaluations(model: str, stage: Stage, settings: EvaluationSettings, folder: Path) -> tuple[Evaluation, ...]:
    """What an earlier evaluation with these settings found; empty where there was none."""
    try:
        content = read_json(folder / _FILE)
        if content.get("key") != _key(model, stage, settings):
            return ()
        if content.get("weights", weights_stamp(model)) != weights_stamp(model):  # another model in the same place
            return ()
        return tuple(one for one in read_results(folder / str(content.get("file"))).values() if not one.group)
    except UnreadableFile:
        return ()


def record_base(model: str, stage: Stage, settings: EvaluationSettings, folder: Path, before: frozenset[Path]) -> None:
    """Note that an evaluation is done; `before` are the results files that were there before it.

    Raises:
        UserError: lm-eval wrote no results.
    """
    new = max(base_results(folder) - before, key=lambda path: path.stat().st_mtime_ns, default=None)
    if new is None:
        raise UserError(f"lm_eval ended without an error but wrote no results under {folder}")
    key, file = _key(model, stage, settings), str(new.relative_to(folder))
    write_atomically(folder / _FILE, {"key": key, "weights": weights_stamp(model), "file": file})


def base_results(folder: Path) -> frozenset[Path]:
    """All files with aggregated results below the folder."""
    return frozenset(folder.rglob("results_*.json"))


def _key(model: str, stage: Stage, settings: EvaluationSettings) -> dict[str, Any]:
    chosen = asdict(settings) | {"tasks": list(settings.tasks or tasks_of(stage)), "model": model}
    del chosen["batch_size"], chosen["include_path"]
    return chosen | {"arguments": list(settings.arguments)}
