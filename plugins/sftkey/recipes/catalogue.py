"""The shipped recipes: find them in the installed wheel or in a checkout, read and describe them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sftkey.datasets.registry import DATASETS, OWN_DATA, TYPES
from sftkey.format.methods import strategy_of
from sftkey.recipes.load import load_recipe, recipe_before, zero_stage
from sftkey.recipes.memory import ARCHITECTURES, Architecture, MemoryEstimate, estimate_memory
from sftkey.util.errors import UserError

_HARDWARE = re.compile(r"^# Hardware: (\d+) GPUs? with (\d+) GB\b", re.MULTILINE)


@dataclass(frozen=True)
class ShippedRecipe:
    """One shipped recipe file."""

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
        return load_recipe(self.path)

    @cached_property
    def before(self) -> ShippedRecipe | None:
        """The recipe that ``sftkey_after`` names."""
        path = recipe_before({**self.config, "axolotl_config_path": self.path})
        return ShippedRecipe(path) if path else None

    @property
    def chain(self) -> tuple[ShippedRecipe, ...]:
        """All recipes from the first stage to this one."""
        return (*(self.before.chain if self.before else ()), self)

    @property
    def model(self) -> str:
        """The base model of the first stage."""
        return str(self.chain[0].config["base_model"])

    @property
    def strategy(self) -> str:
        """The training strategy (section 3) that is complete once this stage has finished."""
        return strategy_of(str(recipe.config["sftkey_method"]) for recipe in self.chain)

    @property
    def dataset(self) -> str:
        """The data set's name; for own rows the path."""
        entry = self.config["datasets"][0]
        module = str(entry["type"]).removeprefix(TYPES)
        return str(entry["path"]) if module in OWN_DATA else module

    @property
    def stage(self) -> str:
        """What its name ends with: the last folder of its output directory."""
        return Path(self.config["output_dir"]).name

    @property
    def family(self) -> str:
        """What its name begins with, as do those of the other stages of its model."""
        return self.name.removesuffix(f"_{self.stage}")

    @property
    def movable(self) -> bool:
        """Whether it can be written for other models, data and places."""
        return self.dataset in DATASETS

    @cached_property
    def _hardware(self) -> tuple[int, int] | tuple[None, None]:
        found = _HARDWARE.search(self.text)
        return (int(found[1]), int(found[2])) if found else (None, None)

    @property
    def gpus(self) -> int | None:
        """How many GPUs it is written for; ``None`` for none."""
        return self._hardware[0]

    @property
    def gpu_gigabytes(self) -> int | None:
        """The memory of each of those GPUs, in GB."""
        return self._hardware[1]

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
