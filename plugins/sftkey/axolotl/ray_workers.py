"""What a Ray worker has to know of the command that it works for.

Ray starts it in a folder of its own, with the recipe as the plugin has completed it and Axolotl has validated it: relative
paths would lead nowhere, and the stage would record settings that its recipe doesn't have.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from sftkey.recipes.settings import plain
from sftkey.util.errors import UserError

KEY = "sftkey_command"
"""In the recipe on its way to the workers."""


def is_worker() -> bool:
    """Whether this process is a Ray worker; the command itself imports Ray only after the plugin has been asked."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def take_over(cfg: Any) -> dict[str, Any] | None:
    """In a worker, go to the command's working directory.

    Returns:
        The ``recipe`` and ``settings`` that `hand_over` was given; ``None`` in the command itself.

    Raises:
        UserError: The recipe has the key from somebody else, or this machine lacks the directory.
    """
    if cfg.get(KEY) is None:
        return None
    command: dict[str, Any] = plain(cfg.pop(KEY))
    if not is_worker():
        raise UserError(f"{KEY}: the plugin sets it for Ray's workers; remove the key")
    folder = Path(command["folder"])
    if not folder.is_dir():
        raise UserError(
            f"use_ray: the command was given in {folder}, which this worker's machine lacks; use a folder that all share"
        )
    os.chdir(folder)
    return command


def hand_over(cfg: Any, recipe: dict[str, Any], settings: dict[str, Any]) -> None:
    """In the command, tell the workers what it was given."""
    if not cfg.get("use_ray") or is_worker():
        return
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "use_ray: Ray starts the workers, but a launcher started this process as one of several; use --launcher python"
        )
    cfg[KEY] = {"folder": os.getcwd(), "recipe": recipe, "settings": settings}
