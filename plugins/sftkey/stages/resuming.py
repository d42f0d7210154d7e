"""Where a run goes on in an output directory, and what becomes of the checkpoints there that it can't use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sftkey.stages.checkpoints import CHECKPOINT_FILE, Checkpoint, CheckpointRecord, newest_whole, set_aside
from sftkey.stages.marker import RunFile
from sftkey.stages.saving import remove, remove_leftovers
from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile


@dataclass(frozen=True)
class Resumption:
    """How a run starts.

    Attributes:
        checkpoint: Where it goes on from; ``None`` for the beginning.
        id: `RunFile.id`: that of the run that it goes on with, or a new one.
        unlisted: `RunFile.unlisted`.
        remarks: What was found and done, for people.
    """

    checkpoint: Path | None
    id: str
    unlisted: list[str]
    remarks: list[str]


def resume(
    output_dir: Path, run: RunFile | None, found: list[Checkpoint], *, automatic: bool, named: Path | None = None
) -> Resumption:
    """Choose the checkpoint to go on from, and clear the names that the run is going to use.

    A checkpoint that this run was saving when it was cut off is removed. Any other that it can't use is set aside.

    Args:
        output_dir: The output directory.
        run: The run file there.
        found: `sftkey.stages.checkpoints.survey`.
        automatic: Go on from the newest whole checkpoint.
        named: ``resume_from_checkpoint``; it stays where it is.

    Raises:
        UserError: What is named isn't whole, or a checkpoint can't be set aside.
    """
    remove_leftovers(output_dir)
    whole = [checkpoint for checkpoint in found if checkpoint.fault is None]
    start, damaged = newest_whole(whole) if automatic and named is None else (None, {})
    if named is not None:
        _refuse_damage(named)
        start = next((checkpoint for checkpoint in whole if checkpoint.path.resolve() == named.resolve()), None)
    remarks, kept = [], []
    for checkpoint in found:
        path = checkpoint.path
        if named is not None and path.resolve() == named.resolve():
            kept.append(checkpoint)
        elif checkpoint.begun:
            remarks.append(f"removing {path}: it was cut off while being saved")
            remove(path)
        elif checkpoint.fault is None and path not in damaged and start is not None and checkpoint.step <= start.step:
            kept.append(checkpoint)
        else:
            reason = checkpoint.fault or damaged.get(path) or "this run doesn't go on from it"
            remarks.append(f"{path} is not used and now called {set_aside(path).name}: {reason}")
    if damaged and start is None:
        remarks.append(f"no checkpoint in {output_dir} is whole: training starts from the beginning")
    if start is not None and start.record is None:
        remarks.append(
            f"{start.path} holds no {CHECKPOINT_FILE}, as an earlier version of sftkey left it: damage in it can't be told"
        )
    same_run = start is not None and run is not None and run.id is not None
    return Resumption(
        named if named is not None else start.path if start is not None else None,
        str(run.id) if same_run and run is not None else uuid4().hex,
        [checkpoint.path.name for checkpoint in kept if start is not None and checkpoint.record is None],
        remarks,
    )


def _refuse_damage(named: Path) -> None:
    if not named.is_dir():
        raise UserError(f"resume_from_checkpoint: there is no directory {named}")
    try:
        record = CheckpointRecord.read(named)
    except UnreadableFile as error:
        raise UserError(f"resume_from_checkpoint: {named}: {error}; name another checkpoint") from error
    if record is None:
        return
    damage = "it was cut off while being saved" if record.files is None else Checkpoint(named, None, record).damage()
    if damage:
        raise UserError(f"resume_from_checkpoint: {named} is damaged ({damage}); name another checkpoint")
