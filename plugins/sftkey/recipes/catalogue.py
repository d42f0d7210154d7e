"""The shipped recipes: find them in the installed wheel or in a checkout, read and describe them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sftkey.datasets.registry import OWN_DATA, TYPES
from sftkey.format.methods import strategy_of
from sftkey.recipes.load import recipe_before, zero_stage
from sftkey.recipes.memory import ARCHITECTURES, GIB, Architecture, MemoryEstimate, estimate_memory
from sftkey.util.errors import UserError
from sftkey.util.text import Cell

_HARDWARE = re.compile(r"^# Hardware: (?P<gpus>\d+) GPUs? with (?P<gigabytes>\d+) GB\b", re.MULTILINE)


@dataclass(frozen=True)
class ShippedRecipe:
    """One shipped recipe file.

    Attributes:
        path: Where it is.
    """

    path: Path

    @property
    def name(self) -> str:
        """The file's name without ``.yml``."""
        return self.path.stem

    @cached_property
    def text(self) -> str:
        """The file as it is, comments included."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The keys of the recipe."""
        config = yaml.safe_load(self.text)
        assert isinstance(config, dict), self.path
        return config

    @cached_property
    def before(self) -> ShippedRecipe | None:
        """The recipe that ``sftkey_after`` names."""
        path = recipe_before({**self.config, "axolotl_config_path": self.path})
        return ShippedRecipe(path) if path else None

    @property
    def model(self) -> str:
        """The base model of the first stage."""
        return self.before.model if self.before else str(self.config["base_model"])

    @property
    def strategy(self) -> str:
        """The training strategy (section 3) that is complete once this stage has finished."""
        return strategy_of(self.methods)

    @property
    def methods(self) -> tuple[str, ...]:
        """The method of every stage, this one last."""
        return (*(self.before.methods if self.before else ()), str(self.config["sftkey_method"]))

    @property
    def dataset(self) -> str:
        """The data set's name; for own rows the path."""
        entry = self.config["datasets"][0]
        module = str(entry["type"]).removeprefix(TYPES)
        return str(entry["path"]) if module in OWN_DATA else module

    @property
    def gpus(self) -> int | None:
        """How many GPUs it is written for; ``None`` for none."""
        found = _HARDWARE.search(self.text)
        return int(found["gpus"]) if found else None

    @property
    def gpu_gigabytes(self) -> int | None:
        """The memory of each of those GPUs."""
        found = _HARDWARE.search(self.text)
        return int(found["gigabytes"]) if found else None

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage; 0 without DeepSpeed."""
        return zero_stage({**self.config, "axolotl_config_path": self.path}) or 0

    @property
    def architecture(self) -> Architecture | None:
        """The shape of the base model, where it is one of `ARCHITECTURES`."""
        return ARCHITECTURES.get(self.model)

    @property
    def memory(self) -> MemoryEstimate | None:
        """Estimated peak memory per GPU; ``None`` where the model's shape or the GPUs aren't known."""
        if self.architecture is None or self.gpus is None:
            return None
        return estimate_memory(self.architecture, self.config, gpus=self.gpus, zero_stage=self.zero_stage)


def recipes_folder() -> Path:
    """The folder of the shipped recipes: inside the installed package, or beside ``plugins/`` in a checkout.

    Raises:
        UserError: It isn't there; the installation is broken.
    """
    shipped = Path(__file__).resolve().parent / "shipped"
    for folder in (shipped, shipped.parents[3] / "recipes"):
        if any(folder.glob("*_stage1.yml")):
            return folder
    raise UserError(f"no recipes in {shipped}: the installation is incomplete; install sftkey again")


def shipped_recipes() -> list[ShippedRecipe]:
    """All shipped recipes, by name."""
    return [ShippedRecipe(path) for path in sorted(recipes_folder().glob("*.yml"))]


def shipped_recipe(name: str) -> ShippedRecipe:
    """Find a shipped recipe.

    Args:
        name: Its name, with or without ``.yml``.

    Raises:
        UserError: There is none of that name.
    """
    recipes = {recipe.name: recipe for recipe in shipped_recipes()}
    wanted = name.removesuffix(".yml").removesuffix(".yaml")
    if wanted not in recipes:
        nearest = difflib.get_close_matches(wanted, recipes, n=3, cutoff=0.0)
        raise UserError(
            f"there is no shipped recipe {name!r}; did you mean {', '.join(nearest)}? `sftkey recipes` lists all"
        )
    return recipes[wanted]


def recipe_table(recipes: list[ShippedRecipe]) -> list[tuple[Cell, ...]]:
    """The rows of ``sftkey recipes``, a header first."""
    rows: list[tuple[Cell, ...]] = [("RECIPE", "MODEL", "STRATEGY", "DATA SET", "GPUS", "MEMORY PER GPU")]
    for recipe in recipes:
        memory = recipe.memory
        gpus = f"{recipe.gpus} x {recipe.gpu_gigabytes} GB" if recipe.gpus else "none"
        needs = f"about {memory.peak / GIB:.0f} GiB" if memory else None
        rows.append((recipe.name, recipe.model, recipe.strategy, recipe.dataset, gpus, needs))
    return rows
