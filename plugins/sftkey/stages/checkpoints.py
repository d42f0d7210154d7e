"""Checkpoints: find them, and check that a run resumed from one ends with the weights of an undisturbed run.

The trainer restores the weights, the optimizer, the schedule, the state of the random generators and the place in the
data. Each is checked here, because without it training goes on all the same, and ends elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftkey.recipes.settings import changed_settings
from sftkey.stages.marker import LOG_FILE, Marker, RunFile
from sftkey.util.errors import UserError


def checkpoints(output_dir: str | Path) -> tuple[list[Path], list[Path]]:
    """The checkpoints in `output_dir`, oldest first: those that are whole, and those cut off while being saved.

    ``trainer_state.json`` is the last file that the trainer writes into a checkpoint.
    """
    found = sorted(
        (path for path in Path(output_dir).glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    whole = [path for path in found if _is_json(path / LOG_FILE)]
    return whole, [path for path in found if path not in whole]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


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
