"""The paper's table, planned: models x data sets x training strategies, from the shipped recipes (section 4).

A stage that several cells build on, such as Stage 1 of SFT-Tag and SFTKey-Tag, is one recipe file and is trained once.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sftkey.datasets.registry import DATASETS
from sftkey.format.methods import STRATEGIES
from sftkey.recipes import writing
from sftkey.recipes.catalogue import ShippedRecipe, shipped_recipes
from sftkey.recipes.own_data import OwnData
from sftkey.recipes.unknown_keys import KnownKeys
from sftkey.recipes.writing import WrittenRecipe, write_recipe
from sftkey.util.errors import UserError, nearest

PAPER_MODELS = ("qwen3_8b", "qwen2_5_7b", "qwen2_5_3b", "qwen2_5_1_5b", "smollm3_3b")
PAPER_STRATEGIES = ("SFT", "SFT-Tag", "Key-Tag", "SFTKey-Tag")
"""The rows of the paper's tables (section 4): models, as their recipes are called, and strategies. More can be named."""


@dataclass(frozen=True)
class MatrixCell:
    """One cell of the table: a model, trained on a data set by a strategy; the recipes are its stages, first one first."""

    model: str
    dataset: str
    strategy: str
    recipes: tuple[WrittenRecipe, ...]

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.model} {self.dataset} {self.strategy}"


def plan_cells(
    models: Sequence[str],
    datasets: Sequence[str],
    strategies: Sequence[str],
    *,
    output_root: str | None = None,
    overrides: Sequence[str] = (),
    known_keys: Callable[[], KnownKeys] | None = None,
    own: Sequence[OwnData] = (),
) -> list[MatrixCell]:
    """Write the recipes of a table, in memory.

    Args:
        models: Names such as ``qwen3_8b``, or ``qwen3_8b=ID`` to train the model ID by those recipes.
        datasets: Names of `sftkey.datasets.registry.DATASETS`.
        strategies: Names of `sftkey.format.methods.STRATEGIES`, in any case.
        output_root: The folder in place of ``outputs``.
        overrides: ``key=value`` pairs for every recipe.
        known_keys: Called for the keys that exist when one of them isn't in a recipe yet.
        own: Data sets of the user's own, after the others.

    Returns:
        The cells, model by model.

    Raises:
        UserError: A name is unknown, there is no recipe for a strategy of a model, or nothing is named.
    """
    catalogue = recipes_by_model()
    names = {name.lower(): name for name in STRATEGIES}
    chosen = [names[_known(name.lower(), names, "strategy")] for name in dict.fromkeys(strategies)]
    for dataset in datasets:
        _known(dataset, DATASETS, "data set")
    mine = {data.name: data for data in own}
    for name in mine:
        if name in datasets or len(mine) < len(own):
            raise UserError(f"two data sets would be called {name}; rename a file")
    cells = []
    for model in dict.fromkeys(models):
        name, _, model_id = model.partition("=")
        shipped = catalogue[_known(name, catalogue, "model")]
        for dataset in dict.fromkeys((*datasets, *mine)):
            for strategy in chosen:
                if strategy not in shipped:
                    raise UserError(f"{name} has no recipe for {strategy}; it has {', '.join(shipped)}")
                write = partial(
                    write_recipe,
                    shipped[strategy],
                    dataset_name=None if dataset in mine else dataset,
                    own=mine.get(dataset),
                    model_id=model_id or None,
                    output_root=output_root,
                    overrides=overrides,
                    known_keys=known_keys,
                )
                # Again, now that its name is known, so that the comment at its top says it.
                written = write(file_name=write().file_name)
                cells.append(MatrixCell(model_id or name, dataset, strategy, written.chain))
    if not cells:
        raise UserError("the table has no cells; name at least one model, data set and strategy")
    _check_shared(cells)
    return cells


def _recipes(cells: Sequence[MatrixCell]) -> Iterator[WrittenRecipe]:
    return (recipe for cell in cells for recipe in cell.recipes)


def notes_of(cells: Sequence[MatrixCell]) -> list[str]:
    """List the remarks on the cells' data, each once, and the recipes that don't fit the GPUs they are written for."""
    found: dict[str, None] = {}
    for recipe in _recipes(cells):
        for note in recipe.notes:
            if note != recipe.memory.text:
                found[note] = None
            elif not recipe.memory.fits:
                found[f"{recipe.file_name}: {note}"] = None
    return list(found)


def recipes_by_model() -> dict[str, dict[str, ShippedRecipe]]:
    """Sort the shipped recipes by model name and strategy; only those that can be moved to other data."""
    found: dict[str, dict[str, ShippedRecipe]] = {}
    for recipe in shipped_recipes():
        if recipe.movable:
            found.setdefault(recipe.family, {})[recipe.strategy] = recipe
    return found


def _known(name: str, names: Collection[str], what: str) -> str:
    if name not in names:
        raise UserError(f"unknown {what} {name!r}; did you mean {nearest(name, names)!r}? There are {', '.join(names)}")
    return name


def _check_shared(cells: Sequence[MatrixCell]) -> None:
    configs: dict[str, Mapping[str, object]] = {}
    for recipe in _recipes(cells):
        if configs.setdefault(recipe.file_name, recipe.config) != recipe.config:
            raise UserError(
                f"two cells would need different recipes called {recipe.file_name}; run them with different --output-root"
            )


def save_recipes(cells: Sequence[MatrixCell], folder: Path, *, force: bool = False) -> list[Path]:
    """Write the recipes of all cells, each once; see `sftkey.recipes.writing.save_recipes`."""
    return writing.save_recipes(_recipes(cells), folder, force=force, option="--output-root")


def slurm_script(
    cells: Sequence[MatrixCell],
    folder: Path,
    *,
    working_directory: Path,
    logs: Path,
    command: str,
    options: Sequence[str] = (),
    run_options: Sequence[str] = (),
) -> str:
    """Write a script that submits itself as two job arrays: first stages, then each second stage after its first.

    Args:
        cells: The cells.
        folder: Where their recipes are.
        working_directory: Where the jobs run; paths in recipes are relative to it.
        logs: Where Slurm writes the jobs' output.
        command: The command that wrote it, for the comment at the top.
        options: Options of sbatch, one each, such as ``--gpus-per-node=8``.
        run_options: What follows ``sftkey run RECIPE``.

    Raises:
        UserError: A chain has more than two stages.
    """
    # One array index for a first stage and for the stage that starts from it, which is what aftercorr goes by.
    after: dict[str, str] = {}
    for cell in cells:
        if len(cell.recipes) > 2:
            raise UserError(f"a chain of {len(cell.recipes)} stages: the Slurm script knows two")
        first, *second = [recipe.file_name for recipe in cell.recipes]
        after.setdefault(first, "")
        if second:
            (after[first],) = second
    environment = Environment(
        loader=PackageLoader("sftkey.recipes", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment.get_template("matrix.sh.jinja").render(
        cells=len(cells),
        firsts=[folder / name for name in after],
        seconds=[folder / name if name else "" for name in after.values()],
        second_indices=[index for index, name in enumerate(after.values()) if name],
        working_directory=working_directory,
        logs=logs,
        command=command,
        options=options,
        run_options=run_options,
    )
