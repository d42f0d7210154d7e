"""Refuse what isn't what its recipe would make: a stage that is started, resumed or called finished.

One function for ``axolotl train``, ``sftkey run`` and ``sftkey matrix``: `check_stage`. A recipe accepts a change by its kind
in ``sftkey_accept_changes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftkey.recipes.load import Recipe
from sftkey.stages.adapter import refuse_other_shape
from sftkey.stages.content import changed_weights
from sftkey.stages.lineage import Change, changed_data, changes, differ
from sftkey.stages.marker import LOG_FILE, RUN_FILE, Lineage, Marker, RunFile
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError

ACCEPTED = ("before", "data", "weights")
"""The kinds that a recipe can accept: the stage before, the data, and the weights that a finished stage ended with."""


def check_stage(
    stage: Stage, cfg: Recipe, now: Lineage, settings: Mapping[str, Any] | None, name: str = ""
) -> list[str]:
    """Check a stage against everything that is recorded: of itself, of the stage before, of the checkpoint it names.

    Args:
        stage: The stage as a recipe plans it.
        cfg: Its recipe, with what `sftkey.stages.handover.start_settings` sets.
        now: `lineage_of` it.
        settings: `sftkey.recipes.settings.training_settings` of it; ``None`` not to compare them.
        name: What a message begins with.

    Returns:
        What to say although the stage goes on.

    Raises:
        UserError: It can't be started, gone on with or called finished as what the recipe says.
    """
    accepted = cfg.get("sftkey_accept_changes") or []
    named = None if stage.finished else cfg.get("resume_from_checkpoint")
    if named:
        _refuse_foreign(name, Path(str(named)), now, settings, stage.before, accepted)
    written = stage.marker or (stage.run if stage.checkpoints else None)
    found = changes(stage.output_dir, written, now, settings=settings, before=stage.before) if written else iter(())
    if not stage.finished and (named or stage.resume_from is None):
        found = (change for change in found if change.kind == "settings")  # nothing else of that run is used
    remarks = _refuse_changes(name, stage.output_dir, written, found, accepted)
    if stage.before is not None:
        if not stage.finished:
            _check_adapter(name, cfg, stage.before)
        remarks += _check_start(name, cfg, now, stage.before)
    return remarks


def _check_adapter(name: str, cfg: Recipe, before: Stage) -> None:
    if cfg.get("lora_model_dir") or (cfg.get("adapter") and not before.finished and before.config.get("adapter")):
        refuse_other_shape(name, cfg, str(cfg.get("lora_model_dir") or before.output_dir), before.config)


def _refuse_changes(
    name: str, output_dir: Path, written: Marker | RunFile | None, found: Iterable[Change], accepted: Sequence[str]
) -> list[str]:
    """Refuse each change that the recipe doesn't accept; the others, and what can't be compared, are lines to show."""
    if written is None:
        return []
    remarks = []
    finished = isinstance(written, Marker)
    for change in found:
        if change.kind in accepted:
            remarks.append(f"{output_dir}: {change.text} (accepted by sftkey_accept_changes)")
            continue
        raise UserError(f"{name}{_message(output_dir, finished, change, planned=bool(name))}")
    if written.lineage is None:
        remarks.append(_unrecorded(output_dir))
    return remarks


def _unrecorded(output_dir: Path) -> str:
    return (
        f"{output_dir} was made by an earlier version, which recorded no content: whether data and weights have changed "
        "since can't be told"
    )


def _message(output_dir: Path, finished: bool, change: Change, *, planned: bool) -> str:
    accept = f", or set sftkey_accept_changes: [{change.kind}] to go on all the same" if change.kind in ACCEPTED else ""
    if change.kind == "settings":
        if finished:
            what = "is finished" if planned else "holds a finished stage"
        else:
            what = f"{'has' if planned else 'holds'} checkpoints of a run"
        hint = "An override holds for every stage of the chain (--last-only: for the last one); " if planned else ""
        advice = f"{hint}choose another output_dir, or delete that one to train again"
        return f"{output_dir} {what} with other settings ({change.text}). {advice[0].upper()}{advice[1:]}"
    if change.text.startswith(("was ", "started ")):
        return f"{output_dir} {change.text}. To {change.advice}{accept}"
    what = "is finished, but" if finished else "was interrupted, and since then"
    advice = change.advice or f"Delete {output_dir} to train again"
    return f"{output_dir} {what} {change.text}. {advice[0].upper()}{advice[1:]}{accept}"


def _check_start(name: str, cfg: Recipe, now: Lineage, before: Stage) -> list[str]:
    """Check that it fits the finished stage before: its weights and its data."""
    marker, place = before.marker, before.output_dir
    if marker is None:
        return []
    remarks = []
    accepted = cfg.get("sftkey_accept_changes") or []
    if files := changed_weights(place, marker):
        text = f"{place}: {', '.join(files)} isn't what that stage finished with"
        if "before" not in accepted:
            raise UserError(
                f"{name}{text}. Put it back or train {before.recipe.name} again; if the other weights are meant, set "
                "sftkey_accept_changes: [before]"
            )
        remarks.append(f"{text} (accepted by sftkey_accept_changes)")
    if marker.lineage is None:
        remarks.append(_unrecorded(place))
    elif not cfg.get("sftkey_other_data") and "data" not in accepted:
        for index, (old, new) in enumerate(zip(marker.lineage.data, now.data, strict=False)):
            for what in changed_data(old, new.model_copy(update={"rows_used": None}), str(place)):
                raise UserError(
                    f"{name}datasets[{index}] {what}. Put the data back or train {before.recipe.name} again; if other data "
                    "is meant, set sftkey_other_data: true"
                )
    return remarks


def _refuse_foreign(
    name: str, checkpoint: Path, now: Lineage, settings: Any, before: Stage | None, accepted: Sequence[str]
) -> None:
    """Refuse to resume from a checkpoint that another stage, or this one with other settings or data, has left."""
    key = f"{name}resume_from_checkpoint: {checkpoint}"
    start = "To start from another stage's weights name its recipe in sftkey_after"
    if not (checkpoint / LOG_FILE).is_file():
        raise UserError(
            f"{key} is no whole checkpoint (no {LOG_FILE}); name another one, or leave the key out to go on from the last"
        )
    written = Marker.read(checkpoint.parent) or RunFile.read(checkpoint.parent)
    if written is None:
        raise UserError(
            f"{key}: nothing in {checkpoint.parent} says which stage it is a checkpoint of (no {RUN_FILE}). {start}; "
            "else leave resume_from_checkpoint out"
        )
    for change in changes(checkpoint.parent, written, now, settings=settings, before=before):
        if change.kind == "settings":
            raise UserError(
                f"{key} is a checkpoint of a run with other settings ({change.text}). {start}; else leave "
                "resume_from_checkpoint out"
            )
        if change.kind not in (*accepted, "weights"):
            raise UserError(f"{key}: {_message(checkpoint.parent, False, change, planned=False)}")


def check_rows(cfg: Recipe, now: Lineage, earlier: Lineage | None, before: Stage | None) -> list[str]:
    """Check the prepared data, for data on the Hub too: against the run that is resumed, and the stage before.

    Args:
        cfg: The raw recipe.
        now: The record of this run, `with_rows`.
        earlier: That of the run that is resumed.
        before: The stage that this one starts from.

    Returns:
        A line for each change that was accepted.

    Raises:
        UserError: The commit is another, or a resumed run would get more or fewer rows.
    """
    remarks = []
    for index, (old, new) in enumerate(zip(earlier.data if earlier else (), now.data, strict=False)):
        for what in changed_data(old, new):
            text = f"datasets[{index}] {what}"
            if "data" not in (cfg.get("sftkey_accept_changes") or []):
                raise UserError(
                    f"this run was interrupted, and since then {text}. Put the data back, delete output_dir to train again, "
                    "or set sftkey_accept_changes: [data] to go on all the same"
                )
            remarks.append(f"{text} (accepted by sftkey_accept_changes)")
    theirs = before.marker.lineage.data if before and before.marker and before.marker.lineage else []
    for index, (old, new) in enumerate(zip(theirs, now.data, strict=False)):
        if not cfg.get("sftkey_other_data") and differ(old.commit, new.commit):
            raise UserError(
                f"datasets[{index}] is at commit {new.commit}, and {before and before.output_dir} was trained on "
                f"{old.commit}; set revision: {old.commit} in both recipes, or if other data is meant sftkey_other_data: true"
            )
    return remarks
