"""The reference model of a recipe (``sftkey_reference_model``): where its weights are, and what tells them from others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from sftkey.stages.content import weights_in
from sftkey.stages.handover import start_of
from sftkey.stages.manifest import weights_files
from sftkey.stages.marker import MARKER_FILE, RUN_FILE
from sftkey.training.objectives.registry import recipe_objective
from sftkey.training.objectives.tokens import REFERENCE_COLUMNS
from sftkey.util.errors import UserError

BEFORE = "before"
"""The value that names the weights of the stage before, which training starts from."""


def reference_of(cfg: Mapping[str, Any]) -> str | None:
    """Where the weights of the reference model are; ``None`` where the recipe's objective takes none.

    Args:
        cfg: A checked recipe, with what `sftkey.stages.handover.start_from` sets.

    Raises:
        UserError: They are a folder without weights, or a stage that hasn't finished.
    """
    place = _place(cfg)
    if place is None:
        return None
    folder = Path(place)
    if not folder.is_dir():
        local = folder.is_absolute() or place.startswith(".") or len(folder.parts) > 2
        if local or Path(folder.parts[0]).is_dir():
            raise UserError(
                f"sftkey_reference_model: there is no folder {place}; train that stage first, or correct the path"
            )
        return place
    if (folder / RUN_FILE).is_file() and not (folder / MARKER_FILE).is_file():
        raise UserError(f"sftkey_reference_model: {place} is a stage that hasn't finished; finish it, or name another")
    if not weights_files(folder):
        raise UserError(
            f"sftkey_reference_model: {place} holds no weights; name a folder with a model, or a finished stage"
        )
    return place


def _place(cfg: Mapping[str, Any]) -> str | None:
    named = str(cfg.get("sftkey_reference_model"))
    if not REFERENCE_COLUMNS & recipe_objective(cfg).columns.keys():
        return None
    return start_of(cfg) if named == BEFORE else named


def weights_stamp(place: str) -> str:
    """What tells the weights of a model from others without reading them.

    That is what its marker says of a finished stage, size and time of the files in another folder, and the commit of a model
    on the Hub, as far as it is in the cache here.
    """
    folder = Path(place)
    if folder.is_dir():
        known = weights_in(folder, read=False)
        stats = [(name, (folder / name).stat()) for name in weights_files(folder)]
        stamps = [(name, status.st_size, status.st_mtime_ns) for name, status in stats]
        return known or hashlib.sha256(repr(stamps).encode()).hexdigest()
    try:
        cached = try_to_load_from_cache(place, "config.json")
    except HFValidationError:
        cached = None
    return f"{place}@{Path(cached).parent.name}" if isinstance(cached, str) else place


def columns_stamp(cfg: Mapping[str, Any]) -> Any:
    """What decides the columns beside the prepared rows of a recipe, for the name of their folder; ``None`` without any."""
    columns = recipe_objective(cfg).columns
    if not columns:
        return None
    models = [place for place in (_place(cfg), start_of(cfg) if "excess_rank" in columns else None) if place]
    return [{name: dict(options) for name, options in columns.items()}, [weights_stamp(place) for place in models]]
