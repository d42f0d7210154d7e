"""Checkpoints: find them, and check that a run resumed from one ends with the weights of an undisturbed run.

The trainer restores the weights, the optimizer, the schedule, the state of the random generators and the place in the
data. Each is checked here, because without it training goes on all the same, and ends elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sftkey.recipes.settings import changed_settings
from sftkey.stages.manifest import FileName, FileRecord, differences, identity
from sftkey.stages.marker import LOG_FILE, RUN_FILE, Marker, RunFile
from sftkey.util.errors import UserError
from sftkey.util.sources import UnreadableFile, read_json

CHECKPOINT_FILE = "sftkey_checkpoint.json"
"""In each checkpoint, first and last: which run saves it, and at the end size and hash of every file in it."""


class CheckpointRecord(BaseModel):
    """What a checkpoint says of itself.

    Attributes:
        run: `RunFile.id` of the run that wrote it.
        files: Its files once it is whole, without this one.
        sha256: `identity` of `files`.
    """

    model_config = ConfigDict(strict=True, populate_by_name=True, serialize_by_alias=True)

    schema_: int = Field(default=1, alias="schema", ge=1, le=1)
    run: str = Field(max_length=100)
    files: dict[FileName, FileRecord] | None = None
    sha256: str | None = None

    @classmethod
    def read(cls, checkpoint: Path) -> CheckpointRecord | None:
        """Read it; ``None`` where there is none.

        Raises:
            UnreadableFile: It has another shape, or was changed.
        """
        path = checkpoint / CHECKPOINT_FILE
        if not path.is_file():
            return None
        try:
            record = cls.model_validate(read_json(path))
        except UnreadableFile as error:
            raise UnreadableFile(f"{CHECKPOINT_FILE}: {error}") from error
        except ValidationError as error:
            key, message = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
            raise UnreadableFile(f"{CHECKPOINT_FILE} has the wrong shape: {key}: {message}") from None
        if record.files is not None and record.sha256 != identity(record.files):
            missing = [path.name for path in sorted(checkpoint.iterdir()) if path.name not in record.files]
            also = ", ".join(name for name in missing if name != CHECKPOINT_FILE)
            raise UnreadableFile(f"{CHECKPOINT_FILE} was changed" + (f": it doesn't list {also}" if also else ""))
        return record


class _TrainerState(BaseModel):
    """The shape of what the trainer reads from its own state file, as far as it computes with it."""

    model_config = ConfigDict(strict=True)

    global_step: int = Field(default=0, ge=0)
    epoch: float | None = 0.0
    max_steps: int = 0
    num_train_epochs: int = 0
    log_history: list[dict[str, Any]] | None = None
    stateful_callbacks: dict[str, Any] | None = {}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in an output directory.

    Attributes:
        path: Where it is.
        fault: Why training can't go on from it, as far as can be told without reading its files; ``None`` where it can.
        record: What it says of itself; ``None`` for one without (before 0.2, or another program's).
        begun: Whether this run was saving it when it was cut off.
    """

    path: Path
    fault: str | None
    record: CheckpointRecord | None = None
    begun: bool = False

    @property
    def step(self) -> int:
        """The number in its name."""
        return _step(self.path)

    def damage(self) -> str:
        """Read every file: which of them isn't what was saved; empty where all are, or nothing tells."""
        files = self.record.files if self.record else None
        return "; ".join(differences(self.path, files)) if files else ""


def checkpoints(output_dir: str | Path) -> tuple[list[Path], list[Path]]:
    """The checkpoints in `output_dir`, oldest first: those that are whole, and those cut off while being saved.

    ``trainer_state.json`` is the last file that the trainer writes into a checkpoint, `CHECKPOINT_FILE` comes after it.
    """
    found = _numbered(Path(output_dir))
    whole = [path for path in found if _fault(path) is None]
    return whole, [path for path in found if path not in whole]


def survey(output_dir: Path, run: RunFile | None, recipe: Mapping[str, Any], world_size: int) -> list[Checkpoint]:
    """All checkpoints in an output directory, oldest first, and what speaks against each.

    Args:
        output_dir: The directory.
        run: The run file there.
        recipe: The recipe as Axolotl validated it.
        world_size: Number of training processes, where the run file doesn't say it.
    """
    return [_survey(path, run, recipe, world_size_of(run, world_size)) for path in _numbered(output_dir)]


def _survey(path: Path, run: RunFile | None, recipe: Mapping[str, Any], world_size: int) -> Checkpoint:
    try:
        record = CheckpointRecord.read(path)
    except (UnreadableFile, OSError) as error:
        return Checkpoint(path, str(error))
    if run is None:
        return Checkpoint(path, f"no {RUN_FILE} beside it says which run it belongs to", record)
    if record is None and run.id is not None and path.name not in run.unlisted:
        return Checkpoint(path, f"it holds no {CHECKPOINT_FILE}, so this run did not write it")
    if record is not None and record.run != run.id:
        return Checkpoint(path, "another run wrote it", record)
    if record is not None and record.files is None:
        return Checkpoint(path, "it was cut off while being saved", record, begun=True)
    fault = _fault(path)
    if fault is None and split_by_completeness([path], recipe, world_size)[1]:
        fault = f"it holds no random states of {world_size} process{'es' * (world_size > 1)}"
    return Checkpoint(path, fault, record)


def _numbered(output_dir: Path) -> list[Path]:
    """What Axolotl and the trainer take for checkpoints, by their names, in the order of their numbers."""
    return sorted(
        (path for path in output_dir.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()), key=_step
    )


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _fault(path: Path) -> str | None:
    """What in a checkpoint itself keeps the trainer from reading it, or says that it was cut off."""
    try:
        if not path.is_dir():
            return "it is no directory"
        record = CheckpointRecord.read(path)
        if record is not None and record.files is None:
            return "it was cut off while being saved"
        _TrainerState.model_validate(read_json(path / LOG_FILE))
    except ValidationError as error:
        first = error.errors()[0]
        return f"{LOG_FILE} has the wrong shape: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except UnreadableFile as error:
        return str(error) if CHECKPOINT_FILE in str(error) else f"{LOG_FILE}: {error}"
    except OSError as error:
        return f"it can't be read: {error.strerror}"
    return None


def newest_whole(found: list[Checkpoint]) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint whose files are what was saved, and the damage of those after it.

    Args:
        found: Checkpoints without a fault, oldest first.
    """
    damaged: dict[Path, str] = {}
    for checkpoint in reversed(found):
        damage = checkpoint.damage()
        if not damage:
            return checkpoint, damaged
        damaged[checkpoint.path] = damage
    return None, damaged


def set_aside(path: Path) -> Path:
    """Give a checkpoint a name that neither Axolotl nor the trainer takes for one of theirs.

    Raises:
        UserError: It can't be renamed.
    """
    names = (path.with_name(f"set-aside-{path.name}{f'-{n}' if n > 1 else ''}") for n in range(1, 10_000))
    place = next(place for place in names if not place.is_symlink() and not place.exists())
    try:
        path.rename(place)
    except OSError as error:
        raise UserError(
            f"{path} is in the way of this run and can't be renamed ({error.strerror}); move it away"
        ) from error
    return place


def other_settings(marker: Marker | None, run: RunFile | None, settings: Mapping[str, Any]) -> str:
    """The first five settings in which an output directory differs from a run; empty where it doesn't.

    Leave out the run file where there is no checkpoint: nothing of that run is used then.
    """
    earlier = marker or run
    return "; ".join(changed_settings(earlier.settings, settings)[:5]) if earlier and earlier.settings else ""


def warnings_before_training(recipe: Mapping[str, Any]) -> list[str]:
    """What in a recipe makes an interrupted run start again from the beginning."""
    found = []
    if recipe.get("save_only_model"):
        found.append(
            "save_only_model: true keeps the optimizer out of the checkpoints: an interrupted run can't be resumed and "
            "starts from the beginning"
        )
    if str(recipe.get("save_strategy")) == "no":
        found.append("save_strategy: no keeps no checkpoint: an interrupted run starts from the beginning")
    return found


def split_by_completeness(
    checkpoints: list[Path], recipe: Mapping[str, Any], world_size: int
) -> tuple[list[Path], list[Path]]:
    """The checkpoints that training can be resumed from exactly, oldest first, and those it can't.

    Args:
        checkpoints: Checkpoints with a readable ``trainer_state.json``.
        recipe: The recipe as Axolotl validated it.
        world_size: Number of training processes.
    """
    if recipe.get("save_only_model"):
        return checkpoints, []
    # Each process writes its own random state, and the first one doesn't wait for the others before it writes the rest.
    names = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    whole = [path for path in checkpoints if all((path / name).is_file() for name in names)]
    return whole, [path for path in checkpoints if path not in whole]


def refuse_inexact(checkpoint: Path, run: RunFile | None, world_size: int) -> None:
    """Refuse to go on from a checkpoint where the end would be another than without the interruption.

    Args:
        checkpoint: The checkpoint to resume from.
        run: The run file of the interrupted run.
        world_size: Number of training processes now.

    Raises:
        UserError: The checkpoint has no optimizer state, or was made by another number of processes.
    """
    if not any(any(checkpoint.glob(pattern)) for pattern in ("optimizer*", "global_step*")):
        raise UserError(
            f"{checkpoint} holds no optimizer state (save_only_model?), so training can't go on from it. Set "
            f"save_only_model: false, and delete {checkpoint.parent} to start from the beginning"
        )
    before = run.world_size if run else None
    if before not in (None, world_size):
        raise UserError(
            f"{checkpoint} was made by {before} processes, this run has {world_size}: batches and the order of the data "
            f"would be others. Start {before} processes, or delete {checkpoint.parent} to start from the beginning"
        )


def world_size_of(run: RunFile | None, default: int) -> int:
    """The number of processes of an interrupted run, `default` where its run file doesn't say."""
    return (run.world_size if run else None) or default
