"""The recipes of an arena: every objective from the same weights for as many steps, and the control.

The control is the training that the weights come from, carried on: the loss on the whole response. What an objective gains
over it is what the objective gains; what both gain over the weights that they start from is what more training gains.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkey.format.methods import METHODS
from sftkey.recipes.arena_objectives import CONTROL, OF_AN_OBJECTIVE, Objective, objectives_of
from sftkey.recipes.layout import recipe_text
from sftkey.recipes.load import deepspeed_settings, load_recipe, recipe_before
from sftkey.recipes.overrides import parse_override, set_key
from sftkey.recipes.unknown_keys import KnownKeys
from sftkey.util.errors import UserError
from sftkey.util.files import write_text_atomically
from sftkey.util.sources import number as finite_number

EQUAL_COMPUTE = "-equal-compute"


@dataclass(frozen=True)
class ArenaRecipe:
    """A recipe of the arena, in memory or on disk.

    Attributes:
        path: The file.
        config: What it says.
        why: The first line of the file's comment; empty for a recipe that isn't written, as it is the user's own.
    """

    path: Path
    config: Mapping[str, Any]
    why: str = ""

    def save(self) -> None:
        """Write it, whole or not at all."""
        if self.why:
            write_text_atomically(self.path, recipe_text(self.config, [self.why, "Written by sftkey arena."]))


@dataclass(frozen=True)
class ArenaPlan:
    """All recipes of an arena.

    Attributes:
        recipe: The recipe that it was asked for.
        before: By seed the recipes of the stages that the objectives start from, first one first; the same for every seed
            unless each seed trains its own. Empty where they start from a base model.
        cells: By objective and seed.
        objectives: All of them, the control first.
    """

    recipe: Path
    before: Mapping[int, tuple[ArenaRecipe, ...]]
    cells: Mapping[tuple[str, int], ArenaRecipe]
    objectives: tuple[Objective, ...]

    @property
    def base_model(self) -> str:
        """The model that the first stage starts from."""
        first = min(self.before)
        return str((self.before[first] or (self.cells[CONTROL, first],))[0].config.get("base_model"))

    @property
    def own_stage1(self) -> bool:
        """Whether every seed has a Stage 1 of its own."""
        return len({chain[-1].path for chain in self.before.values() if chain}) > 1

    @property
    def design(self) -> str:
        """What is paired with what, and so what the intervals hold for; a full sentence."""
        chain = self.before[min(self.before)]
        if not chain:
            return (
                f"Every run starts from the base model {self.base_model}, and runs of one seed are compared in pairs."
            )
        if self.own_stage1:
            return (
                "Each seed has a Stage 1 of its own, from which its runs start; runs of one seed are compared in pairs."
            )
        place = chain[-1].config.get("output_dir")
        return (
            f"Every run starts from the one Stage 1 in {place}, and runs of one seed are compared in pairs. What is found "
            "holds for this Stage 1; another one (--stage1-per-seed) may give other differences."
        )


def plan_arena(
    recipe: Path,
    objectives: Sequence[str],
    seeds: Sequence[int],
    output: Path,
    *,
    own_stage1: bool = False,
    known_keys: Callable[[], KnownKeys] | None = None,
) -> ArenaPlan:
    """Write the recipes of an arena, in memory.

    Args:
        recipe: A second stage, whose first stage the objectives start from, or a single stage, whose base model they do.
        objectives: See `objectives_of`; the control comes first, named or not.
        seeds: Each objective is trained once with each.
        output: Where outputs, and the recipes in ``recipes/``, go.
        own_stage1: Train a Stage 1 with each seed, in place of the one that the recipe names.
        known_keys: Called for the keys that exist where an objective sets one that isn't in the recipe.

    Raises:
        UserError: A recipe is missing or lacks its method, an objective can't be read, or a key that it sets is unknown.
    """
    config = _read(recipe)
    chosen = objectives_of(objectives, config)
    chain = _chain_before(recipe, config)
    if own_stage1 and not chain:
        raise UserError(f"{recipe.name} has no sftkey_after: there is no Stage 1 to train with each seed")
    before: dict[int, tuple[ArenaRecipe, ...]] = {}
    cells: dict[tuple[str, int], ArenaRecipe] = {}
    for seed in seeds:
        before[seed] = _with_seed(chain, seed, output) if own_stage1 else chain
        for objective in chosen:
            cells[objective.name, seed] = _cell(recipe, config, objective, seed, output, before[seed], known_keys)
    return ArenaPlan(recipe, before, cells, chosen)


def _read(path: Path) -> dict[str, Any]:
    config = load_recipe(path)
    if config.get("sftkey_method") not in METHODS:
        raise UserError(
            f"{path}: sftkey_method is {config.get('sftkey_method')!r}; an arena needs one of {', '.join(METHODS)}"
        )
    return config


def _chain_before(recipe: Path, config: Mapping[str, Any]) -> tuple[ArenaRecipe, ...]:
    """The recipes that it builds on, first one first, as the user wrote them."""
    found: list[ArenaRecipe] = []
    path = recipe_before({**config, "axolotl_config_path": str(recipe)})
    while path is not None:
        if any(one.path.resolve() == path.resolve() for one in found):
            raise UserError(f"{path}: the recipes build on each other in a circle")
        found.insert(0, ArenaRecipe(path, _read(path)))
        path = recipe_before({**found[0].config, "axolotl_config_path": str(path)})
    return tuple(found)


def _with_seed(chain: Sequence[ArenaRecipe], seed: int, output: Path) -> tuple[ArenaRecipe, ...]:
    found: list[ArenaRecipe] = []
    for number, one in enumerate(chain, 1):
        name = f"seed{seed}_stage{number}"
        config = {**one.config, "seed": seed, "output_dir": str(output / f"seed{seed}" / f"stage{number}")}
        config.pop("hub_model_id", None)
        found.append(
            _written(one.path, config, name, output, found, f"Stage {number} of {one.path.name}, seed {seed}.")
        )
    return tuple(found)


def _cell(
    recipe: Path,
    config: Mapping[str, Any],
    objective: Objective,
    seed: int,
    output: Path,
    before: Sequence[ArenaRecipe],
    known_keys: Callable[[], KnownKeys] | None,
) -> ArenaRecipe:
    own = {key: value for key, value in config.items() if key not in OF_AN_OBJECTIVE}
    own |= objective.keys
    own |= {"seed": seed, "output_dir": str(output / f"seed{seed}" / objective.slug)}
    for text in objective.own:
        set_key(own, *parse_override(text), known_keys)
    why = f"{objective.name}, seed {seed}, for as many steps as {recipe.name}."
    return _written(recipe, own, f"seed{seed}_{objective.slug}", output, before, why)


def _written(
    origin: Path, config: dict[str, Any], name: str, output: Path, before: Sequence[ArenaRecipe], why: str
) -> ArenaRecipe:
    """A recipe in the arena's folder, where no path in it is relative to the folder that it came from."""
    path = output / "recipes" / f"{name}.yml"
    if before:
        config["sftkey_after"] = os.path.relpath(before[-1].path.resolve(), path.parent.resolve())
        config["base_model"] = str(before[-1].config.get("output_dir"))
    if config.get("deepspeed"):
        config["deepspeed"] = deepspeed_settings(config["deepspeed"], origin.parent)
    return ArenaRecipe(path, config, why)


def equal_compute(plan: ArenaPlan, objective: str, ratio: float) -> list[tuple[int, ArenaRecipe]]:
    """The recipes that train an objective as long as the control is trained, not for as many steps.

    Args:
        plan: The arena.
        objective: The name of the objective.
        ratio: The time of a control's step over that of the objective's.

    Returns:
        One for each seed. Where one was written before, all have its length, whatever is measured by now.

    Raises:
        UserError: One that was written before can't be read, or says no length.
    """
    cells = [(seed, plan.cells[objective, seed]) for seed in plan.before]
    paths = [one.path.with_stem(one.path.stem + EQUAL_COMPUTE) for _, one in cells]
    written = next(filter(None, map(_lengths, paths)), None)
    found = []
    for (seed, cell), path in zip(cells, paths, strict=True):
        config = {**cell.config, "output_dir": str(cell.config["output_dir"]) + EQUAL_COMPUTE}
        if written is not None:
            config |= written
        else:
            config["num_epochs"] = float(f"{float(config.get('num_epochs') or 1) * ratio:.4g}")
            if int(config.get("max_steps") or 0) > 0:  # -1 is no limit
                config["max_steps"] = max(1, round(int(config["max_steps"]) * ratio))
        why = f"{objective}, seed {seed}, for as long as the control is trained."
        found.append((seed, ArenaRecipe(path, config, why)))
    return found


def _lengths(path: Path) -> dict[str, float] | None:
    """How long a recipe that was written before trains; ``None`` where there is none."""
    if not path.is_file():
        return None
    recipe = load_recipe(path)
    found = {key: recipe[key] for key in ("num_epochs", "max_steps") if recipe.get(key) is not None}
    if "num_epochs" not in found or not all(finite_number(value) for value in found.values()):
        raise UserError(
            f"{path} doesn't say how long it trains; delete it and the output directories that end with its name"
        )
    return found
