"""What the processes of a run, on one machine or several, must agree on; a disagreement ends all of them with one message."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from axolotl.utils.logging import get_logger
from datasets import Dataset

from sftkey.axolotl.preparation import first_obstacle
from sftkey.recipes.load import Recipe
from sftkey.recipes.settings import Role, changed_settings, has_role
from sftkey.stages.lifeline import VARIABLE
from sftkey.stages.marker import RunFile
from sftkey.training.row_ids import row_ids
from sftkey.util.errors import UserError

LOG = get_logger(__name__)

_FILES = ("deepspeed", "test_datasets")
"""Beside `Role.NOT_VARIANT`, keys that name files, which may lie elsewhere on another machine."""

_SECONDS_UNTIL_VISIBLE = 60.0


def first_of_this_machine() -> bool:
    """Whether this process is the one that does what each machine needs once."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def agree_on_recipe(recipe: Recipe, settings: Mapping[str, Any]) -> None:
    """Refuse what keeps one machine from training, and machines that were given different recipes or options.

    Args:
        recipe: The raw recipe, with what is here of the stage before.
        settings: `sftkey.recipes.settings.training_settings`; where files are may differ.

    Raises:
        UserError: In every process; names the machine, where it is another one.
    """
    decides = {
        key: value for key, value in settings.items() if not has_role(key, Role.NOT_VARIANT) and key not in _FILES
    }
    obstacle = first_obstacle(recipe, trains=True) if first_of_this_machine() else None
    told = _from_all((obstacle, decides))
    for host, (found, _) in told:
        if found:
            _refuse(found if host == socket.gethostname() else f"on {host}: {found}")
    (first, (_, expected)), *others = told
    for host, (_, found) in others:
        if changed := changed_settings(expected, found)[:5]:
            _refuse(f"{first} and {host} train by different recipes ({'; '.join(changed)}); give both the same one")


def agree_on_start(cfg: Any, trainer: Any, run_id: str | None) -> None:
    """Let all processes go on from where the first one, which has read the checkpoints, goes on.

    Args:
        cfg: The recipe as Axolotl validated it; changed in place.
        trainer: The trainer.
        run_id: `RunFile.id` of the run file that the first process has written.

    Raises:
        UserError: Another machine has other rows, or doesn't see the run file, and the run that started the machines waits
            for what is written there.
    """
    if trainer.args.world_size == 1:
        return
    _refuse_other_rows(trainer.train_dataset)
    own = Path(cfg.output_dir)
    told: list[Any] = [run_id, cfg.resume_from_checkpoint, str(own)]
    identity, start, place = broadcast_object_list(told)
    # A machine may have the shared folder elsewhere.
    within = start is not None and Path(start).parent == Path(place)
    cfg.resume_from_checkpoint = str(own / Path(start).name) if within else start
    blind = [host for host, sees in _from_all(identity is None or _is_seen(own, identity)) if not sees]
    if not blind:
        return
    problem = (
        f"output_dir: {blind[0]} doesn't see in {place} what the first machine wrote there: the folder isn't shared. Mount "
        "one that all machines see"
    )
    if VARIABLE in os.environ:
        _refuse(problem)
    if int(os.environ.get("RANK", 0)) == 0:
        LOG.warning("%s; until then no checkpoint is whole, and no further stage can start", problem)


def _refuse_other_rows(train: Any) -> None:
    """Each machine reads its own copy of the data."""
    own = None
    if first_of_this_machine() and isinstance(train, Dataset) and "input_ids" in train.column_names:
        own = len(train), hashlib.sha256(row_ids(train).tobytes()).hexdigest()
    (first, expected), *others = _from_all(own)
    for host, found in others:
        if found not in (None, expected):
            _refuse(
                f"datasets: {first} and {host} have different rows ({expected[0] if expected else 0} and {found[0]}), or "
                "tokenizers that make different tokens of them; copy the same files to both"
            )


def _is_seen(output_dir: Path, identity: str) -> bool:
    # A network file system may show a new file late.
    deadline = time.monotonic() + _SECONDS_UNTIL_VISIBLE
    while True:
        run = RunFile.read(output_dir)
        if run is not None and run.id == identity:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(1.0)


def _from_all(value: Any) -> list[tuple[str, Any]]:
    """What each process says, with the name of its machine; the first process's first."""
    own = (socket.gethostname(), value)
    return gather_object([own]) if int(os.environ.get("WORLD_SIZE", 1)) > 1 else [own]


def _refuse(problem: str) -> None:
    # One line a machine.
    raise UserError(problem) if first_of_this_machine() else SystemExit(1)
