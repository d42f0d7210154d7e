"""Whether the weights that a stage starts from are there, and otherwise the command that makes them."""

from __future__ import annotations

import shlex

from sftkey.stages.links import MERGED_FOLDER
from sftkey.stages.marker import MARKER_FILE, Marker
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError

ADAPTER_FILE = "adapter_config.json"
"""What tells a folder with an adapter."""


def merge_command(stage: Stage, *more: str) -> list[str]:
    """The command that writes the merged weights of an adapter's stage."""
    elsewhere = ("--output-dir", str(stage.config["output_dir"])) if stage.as_trained else ()
    return ["axolotl", "merge-lora", str(stage.recipe), *stage.arguments, *elsewhere, *more]


def merge_before(stage: Stage) -> list[str] | None:
    """The command that is left to run before a stage can start from merged weights; ``None`` where there is none."""
    before = stage.before
    if stage.finished or before is None or before.part != MERGED_FOLDER or is_merged(before):
        return None
    return merge_command(before)


def is_merged(stage: Stage) -> bool:
    """Whether there are merged weights of a stage as it is trained now, checked when they were written."""
    merged = Marker.read(stage.output_dir / MERGED_FOLDER)
    own = stage.marker
    return bool(own and merged and (merged.id, merged.finished_at) == (own.id, own.finished_at))


def refuse_missing_part(stage: Stage, *, adapter: bool) -> None:
    """Refuse a checkpoint that isn't there or whole, and merged weights that aren't there or of another training.

    Args:
        stage: A finished stage that another one starts from.
        adapter: Whether that one trains an adapter.

    Raises:
        UserError: The weights that it starts from aren't there; names the command that makes them.
    """
    place, out, name = stage.place, stage.config["output_dir"], stage.recipe.name
    if stage.part == MERGED_FOLDER:
        if is_merged(stage):
            return
        what = f"{out} holds an adapter, but this recipe trains no adapter" if not adapter else name
        if (stage.output_dir / MERGED_FOLDER / MARKER_FILE).is_file():
            why = f"{place} was merged from an earlier training of it"
        elif (stage.output_dir / MERGED_FOLDER).is_dir():
            why = f"{place} holds no {MARKER_FILE} (merged by an earlier version, or the merge failed)"
        else:
            why = f"there are no merged weights in {place}"
        instead = "" if adapter else f", or set adapter: {stage.config.get('adapter') or 'lora'} here too"
        raise UserError(
            f"{what}, and {why}. Merge it, and keep base_model: {place}{instead}:\n  {shlex.join(merge_command(stage))}"
        )
    if not stage.part:
        return
    folder = stage.output_dir / stage.part
    whole = [path.name for path in stage.checkpoints]
    if stage.part not in whole:
        there = f"there are {', '.join(whole)}" if whole else "it kept none"
        raise UserError(f"{place} is no whole checkpoint of {name}: {there}. Name one of those, or {out} itself")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise UserError(f"{place} holds no weights that a stage can start from (sharded?); start from {out} itself")
    if (folder / ADAPTER_FILE).is_file() and not adapter:
        merge = shlex.join(merge_command(stage, "--lora-model-dir", place))
        raise UserError(
            f"{place} holds an adapter, but this recipe trains no adapter. Set adapter: here too, or merge it and set "
            f"base_model: {out}/{MERGED_FOLDER}:\n  {merge}"
        )


def refuse_unfinished(stage: Stage) -> None:
    """Refuse to start from a stage that hasn't finished.

    Raises:
        UserError: It hasn't; names the command that goes on with it.
    """
    if stage.finished:
        return
    place, name = str(stage.config["output_dir"]), stage.recipe.name
    command = f"axolotl train {shlex.quote(str(stage.recipe))}"
    if stage.as_trained:
        command += f" --output-dir {shlex.quote(place)}"
    if not stage.output_dir.is_dir():
        raise UserError(f"{name} has not been run: there is no {place}. Run\n  {command}")
    weights = any(stage.output_dir.glob("*.safetensors"))
    if stage.run is None and not stage.checkpoints and not weights:
        raise UserError(f"{name} has not been run: {place} holds no {MARKER_FILE}. Run\n  {command}")
    if weights:
        state = f"was interrupted: the weights in {place} are half-trained (no {MARKER_FILE})"
    else:
        state = f"has not finished: {place} holds no {MARKER_FILE}"
    resume = (
        f"to go on from {stage.checkpoints[-1].name}"
        if stage.checkpoints
        else "again (it left no checkpoint to go on from)"
    )
    why = "; a checkpoint of it can be started from once it has" if stage.part.startswith("checkpoint-") else ""
    raise UserError(f"{name} {state}{why}. Run it {resume}:\n  {command}")
