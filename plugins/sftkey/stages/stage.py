"""The stages that led to a finished one, from what its completion marker and those of the stages before record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sftkey.stages.marker import MARKER_FILE, read_marker
from sftkey.util.errors import UserError


@dataclass(frozen=True)
class StageRecord:
    """One finished stage.

    Attributes:
        place: Its output directory, as the stage after it, or the user, names it.
        marker: Its completion marker.
        folder: The directory where that marker still is; ``None`` where only the stage after it keeps a copy.
    """

    place: Path
    marker: Mapping[str, Any]
    folder: Path | None


def stage_chain(output_dir: Path, marker: Mapping[str, Any] | None = None) -> list[StageRecord]:
    """The stages that led to an output directory, first one first.

    Args:
        output_dir: The last stage's output directory.
        marker: Its completion marker, where that isn't written yet.

    Raises:
        UserError: The last stage hasn't finished; or one before it isn't there, or was run again since, and the stage
            after it keeps no copy of its marker.
    """
    if marker is None:
        marker = read_marker(output_dir) if output_dir.is_dir() else None
    if marker is None:
        what = "hasn't finished: there is no" if output_dir.is_dir() else "isn't there: no"
        raise UserError(f"{output_dir} {what} {output_dir / MARKER_FILE}")
    chain = [StageRecord(output_dir, marker, output_dir)]
    while after := chain[0].marker.get("after"):
        before = _before(chain[0], after)
        if any(_same(before, record) for record in chain):
            raise UserError(f"{before.place}: the stages start from each other in a circle")
        chain.insert(0, before)
    return chain


def _same(one: StageRecord, other: StageRecord) -> bool:
    if one.folder is None or other.folder is None:
        return False
    return one.folder.resolve() == other.folder.resolve()


def _before(stage: StageRecord, after: Mapping[str, Any]) -> StageRecord:
    """The stage that another one started from: where it is, or the copy of its marker."""
    recorded, copy = Path(str(after["output_dir"])), after.get("stage")
    folder = _find(stage, recorded)
    marker = read_marker(folder) if folder is not None else None
    if folder is not None and marker is not None and marker.get("finished_at") == after.get("finished_at"):
        return StageRecord(folder, marker, folder)
    if isinstance(copy, Mapping):
        return StageRecord(recorded, copy, None)
    if marker is not None:
        raise UserError(
            f"{folder} finished at {marker.get('finished_at')}, but {stage.place} started from what finished there at "
            f"{after.get('finished_at')}: its recipe may be another one by now. Train {stage.place} again, or share {folder} "
            "itself"
        )
    raise UserError(
        f"{stage.place} started from {recorded}, and there is no {MARKER_FILE} there, nor in "
        f"{stage.place.resolve().parent / recorded.name}; both stages' recipes are needed to run it again. Run this where "
        "the outputs are, or put the stage before there"
    )


def _find(stage: StageRecord, recorded: Path) -> Path | None:
    """Where the stage before is: as recorded, or moved along with the stage after it."""
    places = [recorded]
    if stage.folder is not None:
        resolved = stage.folder.resolve()
        own = str(stage.marker.get("recipe", {}).get("config", {}).get("output_dir") or "")
        parts = PurePosixPath(own).parts
        if parts and resolved.parts[-len(parts) :] == parts and not Path(own).is_absolute():
            places.append(Path(*resolved.parts[: -len(parts)]) / recorded)
        places.append(resolved.parent / recorded.name)
    return next((place for place in places if (place / MARKER_FILE).is_file()), None)
