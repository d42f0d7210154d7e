"""The one rule for which stage another one started from: by the id in its marker, else by path and time."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from sftkey.stages.stage import Stage

_Stage = TypeVar("_Stage", bound="Stage")

MERGED_FOLDER = "merged"
"""Where ``axolotl merge-lora`` puts the full weights of an adapter, inside an output directory."""

_PART = re.compile(rf"checkpoint-\d+|{MERGED_FOLDER}")


def find_before(
    stage: Stage, read: Callable[[Path], _Stage | None], known: Iterable[_Stage] = ()
) -> tuple[_Stage | None, _Stage | None]:
    """Find the stage that another one started from: the one with the recorded id, wherever it is by now.

    Markers written before 0.2 have no id: there the path leads to a stage, and the time when it finished tells whether it
    is the same one.

    Args:
        stage: The later stage.
        read: Reads the stage in a directory; ``None`` where there is none.
        known: Stages that it may be, wherever they are.

    Returns:
        The stage before, and where that isn't found, the finished stage that is in its place now.
    """
    after = stage.after
    if after is None:
        return None, None
    known = list(known)
    by_id = (other for other in known if after.id and other.marker and other.marker.id == after.id)
    places = dict.fromkeys((split_part(after.output_dir)[0], after.output_dir))
    by_path = itertools.chain.from_iterable(stages_at(place, (stage.output_dir,), read, known) for place in places)
    moved = itertools.chain.from_iterable(_moved(stage, place) for place in places)
    instead = None
    for other in itertools.chain(by_path, filter(None, map(read, moved)), by_id):
        if other.marker is not None and after.names(other.marker):
            return other, None
        instead = instead or (other if other.finished else None)
    return None, instead


def split_part(place: str) -> tuple[str, str]:
    """The output directory that a path leads to, and the part of it: a checkpoint, the merged weights, or empty."""
    folder, separator, part = place.rstrip("/").rpartition("/")
    if not separator or not _PART.fullmatch(part):
        return place, ""
    return folder or "/", part


def _moved(stage: Stage, place: str) -> Iterator[Path]:
    """Where the stage before is after both were moved: the same way from one to the other, or side by side."""
    directory, own = resolved(stage.output_dir), str(stage.config.get("output_dir") or "")
    if own and os.path.isabs(own) == os.path.isabs(place):
        yield Path(os.path.normpath(directory / os.path.relpath(place, own)))
    yield directory.parent / Path(place).name


def stages_at(
    recorded: str, anchors: Iterable[Path], read: Callable[[Path], _Stage | None], known: Iterable[_Stage] = ()
) -> Iterator[_Stage]:
    """The stages that a recorded path may mean, the likeliest first.

    The directory that a relative path is relative to isn't recorded, and outputs are moved. So it is looked for from the
    working directory and from each folder above the anchors.

    Args:
        recorded: A path out of a marker, a run file or a command line.
        anchors: Directories that were written by the same commands.
        read: Reads the stage in a directory; ``None`` where there is none.
        known: Stages that it may be: the one whose recipe, or whose path's end, says the same path, if that is one alone.
    """
    path = Path(recorded)
    starts = () if path.is_absolute() else map(resolved, anchors)
    for place in (path, *(folder / path for start in starts for folder in (start, *start.parents))):
        if (stage := read(place)) is not None:
            yield stage
    wanted = os.path.normpath(recorded)
    named = [
        stage
        for stage in known
        if os.path.normpath(str(stage.config.get("output_dir") or "")) == wanted
        or str(stage.output_dir).endswith(os.sep + wanted)
    ]
    if len(named) == 1:
        yield named[0]


def resolved(path: Path) -> Path:
    """The real path; the path itself where it can't be looked up."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path
