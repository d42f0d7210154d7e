"""What a stage records of itself: builds the completion marker from plain values, whatever trained it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from sftkey.stages.handover import tag_mode, template_fingerprint, tokenizer_file_sha256
from sftkey.stages.links import MERGED_FOLDER
from sftkey.stages.manifest import record_files, weights_files
from sftkey.stages.marker import (
    SCHEMA,
    After,
    DataRecord,
    KeptCheckpoint,
    Lineage,
    Marker,
    RecipeCopy,
    TokenizerRecord,
    TrainingRecord,
)
from sftkey.stages.same_data import data_identity
from sftkey.stages.stage import Stage
from sftkey.util.origin import COMMIT, commit

_PACKAGES = ("torch", "transformers", "datasets")


def make_marker(
    output_dir: Path,
    recipe: Mapping[str, Any],
    recipe_name: str,
    *,
    settings: Mapping[str, Any],
    base_model: str,
    base_model_commit: str | None,
    after: After | None,
    end_of_turn: str | None,
    tokenizer_size: int | None,
    rows: Sequence[Mapping[str, Any]],
    training: TrainingRecord,
    lineage: Lineage | None = None,
    front_end: str = "axolotl",
) -> Marker:
    """Build the marker of a stage that has just finished.

    Args:
        output_dir: Where its weights and tokenizer are.
        recipe: The raw recipe, with the command line's values.
        recipe_name: The name of the recipe's file.
        settings: `sftkey.recipes.settings.training_settings`.
        base_model: What it started from, a model or an output directory, and the model's commit on the Hub.
        base_model_commit: See `base_model`.
        after: See `after_stage`.
        end_of_turn: The token that ends a turn.
        tokenizer_size: Number of tokens, added ones included.
        rows: For each data set ``rows_used``, ``rows_skipped`` and ``commit``, as far as they are known.
        training: See `training_record`.
        lineage: What it was made from.
        front_end: The package that trained it.
    """
    return Marker(
        schema=SCHEMA,
        id=uuid4().hex,
        finished_at=now(),
        method=recipe["sftkey_method"],
        recipe=RecipeCopy(name=recipe_name, config={key: value for key, value in recipe.items() if key != "strict"}),
        settings=dict(settings),
        base_model=base_model,
        base_model_commit=base_model_commit,
        after=after,
        tags=tag_mode(recipe),
        chat_template=template_fingerprint(recipe, output_dir),
        tokenizer=TokenizerRecord(sha256=tokenizer_file_sha256(output_dir), eos_token=end_of_turn, size=tokenizer_size),
        data=[
            DataRecord.model_validate({**identity, **counts})
            for identity, counts in zip(data_identity(recipe), rows, strict=True)
        ],
        versions=_versions(front_end),
        training=training,
        lineage=lineage,
        weights=record_files(output_dir, weights_files(output_dir)),
    )


def _versions(front_end: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("sftkey", front_end, *_PACKAGES):
        with suppress(metadata.PackageNotFoundError):  # not every front end needs them all
            found[name] = metadata.version(name)
    return found | ({COMMIT: at} if (at := commit()) else {})


def after_stage(before: Stage | None, output_dir: str, *, copy: bool = True) -> After | None:
    """What a stage records of the one before: where its weights are, who it is, and for later a `copy` of its marker."""
    if before is None or before.marker is None:
        return None
    marker = before.marker
    if before.part == MERGED_FOLDER:
        marker = Marker.read(before.output_dir / before.part) or marker  # says which of its adapters was merged
    link = After(output_dir=output_dir, id=marker.id, method=marker.method, finished_at=marker.finished_at)
    return link.model_copy(update={"stage": marker}) if copy else link


def training_record(
    log: Sequence[Mapping[str, Any]],
    *,
    steps: int,
    epochs: float | None,
    seconds: float,
    world_size: int,
    kept: KeptCheckpoint | None = None,
) -> TrainingRecord:
    """Sum up the trainer's ``log_history``.

    Args:
        log: The log.
        steps: Optimizer steps.
        epochs: Epochs.
        seconds: Since the start or the last resumption.
        world_size: Number of processes.
        kept: Whose weights it ended with: the losses are those up to its step.
    """
    last = kept.step if kept and kept.step is not None else steps
    logs = [entry for entry in log if "loss" in entry and entry["step"] <= last]
    summary = [entry for entry in log if "train_loss" in entry]
    evals: dict[int, dict[str, Any]] = {}
    for entry in log:  # one of each evaluation split
        figures = {key: value for key, value in entry.items() if key.startswith("eval_")}
        if figures and entry["step"] <= last:
            evals.setdefault(entry["step"], {}).update(figures)
    return TrainingRecord(
        steps=steps,
        epochs=epochs,
        seconds=round(seconds, 1),
        world_size=world_size,
        train_loss=mean_loss(logs) if logs else summary[-1]["train_loss"] if summary else None,
        losses={key: value for key, value in (logs or [{}])[-1].items() if key.startswith(("loss", "acc_"))},
        eval_losses=evals[max(evals)] if evals else {},
        kept=kept,
    )


def kept_checkpoint(trainer: Any) -> KeptCheckpoint:
    """Whose weights a trainer ended with: the best checkpoint where it went back to that one, else the last step's."""
    state: Any = trainer.state
    args: Any = getattr(trainer, "args", None)
    missed = getattr(trainer, "eval_rows_missed", None)
    best = Path(state.best_model_checkpoint or "").name if getattr(args, "load_best_model_at_end", False) else ""
    step = best.rpartition("-")[2]
    if not step.isdecimal():
        return KeptCheckpoint(step=state.global_step, eval_rows_missed=missed)
    return KeptCheckpoint(
        step=int(step),
        checkpoint=best,
        metric=args.metric_for_best_model,
        value=state.best_metric,
        greater_is_better=bool(args.greater_is_better),
        eval_rows_missed=missed,
    )


def mean_loss(logs: Sequence[Mapping[str, Any]]) -> float:
    """The mean loss of all logged steps. The trainer's own ``train_loss`` counts only those since the last resumption."""
    steps = [after["step"] - before["step"] for before, after in pairwise([{"step": 0}, *logs])]
    return float(sum(entry["loss"] * count for entry, count in zip(logs, steps, strict=True)) / sum(steps))


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
