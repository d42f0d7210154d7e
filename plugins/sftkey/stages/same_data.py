"""Whether two stages of a chain train on the same rows, and read them alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkey.datasets.columns import COLUMNS, columns_of
from sftkey.datasets.messages import keys_of, reader_of
from sftkey.datasets.registry import TYPES
from sftkey.recipes.load import Recipe
from sftkey.recipes.settings import alike
from sftkey.stages.stage import Stage
from sftkey.util.errors import UserError
from sftkey.util.text import one_line

DATA_KEYS = ("path", "name", "split", "type", "revision", "data_files")
"""What tells one entry of ``datasets:`` from another."""


def data_identity(cfg: Recipe) -> list[dict[str, Any]]:
    """What a recipe trains on, as far as two stages must agree on it."""
    return [{key: entry.get(key) for key in DATA_KEYS} for entry in cfg["datasets"]]


def check_same_data(cfg: Recipe, before: Stage, earlier: Mapping[str, Any]) -> None:
    """Check that a recipe trains on the rows of the stage before, unless it says ``sftkey_other_data``.

    Args:
        cfg: The raw recipe.
        before: The stage before.
        earlier: The `reading` of the recipe that it was trained by, or will be.

    Raises:
        UserError: They are other rows, others of them are held out, or they are read in another way.
    """
    if cfg.get("sftkey_other_data"):
        return
    data = data_identity(cfg)
    if before.marker is None:
        previous = data_identity(before.config)
    else:
        previous = [{key: getattr(entry, key) for key in DATA_KEYS} for entry in before.marker.data]
    if data != previous:
        raise UserError(
            f"{before.place} was trained on {_data_names(previous)}, this recipe is on {_data_names(data)}; if that is "
            "meant, set sftkey_other_data: true"
        )
    for key, value in reading(cfg).items():
        if not alike(value, earlier.get(key)):
            was = f"{before.place} was trained with" if before.marker else f"{before.recipe.name} has"
            raise UserError(
                f"{was} {key}: {_said(earlier.get(key))}, this recipe has {_said(value)}; set the same in both, or "
                "sftkey_other_data: true if that is meant"
            )


def reading(cfg: Recipe) -> dict[str, Any]:
    """How a recipe reads its own rows, and which of them it leaves out: key -> value.

    Raises:
        UserError: A key isn't of its shape; names it.
    """
    found: dict[str, Any] = {"sftkey_held_out": None if cfg.get("test_datasets") else cfg.get("sftkey_held_out")}
    for index, entry in enumerate(cfg.get("datasets") or []):
        kind = str(entry.get("type")).removeprefix(TYPES)
        keys: Mapping[str, Any] = {}
        if kind == "columns":
            names = columns_of(entry, cfg.get("sftkey_columns"))
            keys = {"sftkey_columns": {**{column: column for column in COLUMNS[:3]}, **names}}
        elif kind == "messages":
            keys = keys_of(reader_of(entry, cfg.get("sftkey_turns")))
        found |= {f"datasets[{index}]: {key}": value for key, value in keys.items()}
    return found


def _said(value: Any) -> str:
    return "none" if value is None else one_line(str(value))


def _data_names(entries: list[dict[str, Any]]) -> str:
    return "; ".join(" ".join(str(entry[key]) for key in DATA_KEYS if entry[key]) for entry in entries)
