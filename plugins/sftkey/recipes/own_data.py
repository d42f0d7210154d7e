"""A user's own data as the part of a recipe that names them, for recipes that are written for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftkey.datasets.registry import OWN_DATA, TYPES
from sftkey.datasets.titles import data_slug, data_title
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.load import load_recipe
from sftkey.util.errors import UserError

KEYS = tuple("datasets test_datasets sftkey_columns sftkey_turns sftkey_answers sftkey_held_out sequence_len".split())
"""What a recipe says of its data."""


@dataclass(frozen=True)
class OwnData:
    """A user's own data.

    Attributes:
        name: For files and folders.
        title: For texts.
        keys: Those of `KEYS` that a recipe for them has.
        comments: Key -> what to say above it.
    """

    name: str
    title: str
    keys: Mapping[str, Any]
    comments: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> OwnData:
        """Name them by the path of their first entry."""
        path = str(keys["datasets"][0]["path"])
        return cls(data_slug(path), data_title(path), keys, comments or {})


@dataclass(frozen=True)
class Target:
    """What recipes are written for and by, where that isn't a shipped recipe's.

    Attributes:
        command: The command that writes them.
        gpus: Number of GPUs; ``None`` for a CPU.
        gigabytes: The memory of each.
        shape_of: The folder with the model's ``config.json``, where that isn't the model itself.
    """

    command: str
    gpus: int | None
    gigabytes: int | None
    shape_of: str | None = None

    @property
    def described(self) -> str:
        """The line at the top of a recipe."""
        if self.gpus is None:
            return "Hardware: a CPU."
        s, each = ("s", " each") if self.gpus > 1 else ("", "")
        return f"Hardware: {self.gpus} GPU{s} with {self.gigabytes} GB{each}."


def read_own_data(path: Path) -> OwnData:
    """Read a recipe, or its part that names own rows: ``datasets`` and what else of `KEYS` there is.

    Raises:
        UserError: It can't be read, names no rows of one's own, or others too, or says something wrong of them.
    """
    found = load_recipe(path)
    keys = {key: found[key] for key in KEYS if found.get(key) is not None}
    try:
        check_recipe({"sftkey_method": "sft-tag", **keys}, run_code=False)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    types = {str(entry.get("type")).removeprefix(TYPES) for entry in keys["datasets"]}
    if not types <= set(OWN_DATA):
        raise UserError(f"{path}: datasets: {', '.join(sorted(types - set(OWN_DATA)))} isn't rows of your own")
    return OwnData.of(keys)
