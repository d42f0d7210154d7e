"""``sftkey recipe``: write a shipped recipe for another model, data set, place or setting."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sftkey.cli.console import echo, note, print_file
from sftkey.cli.options import known_keys
from sftkey.datasets.registry import DATASETS
from sftkey.recipes.catalogue import shipped_recipe, shipped_recipes
from sftkey.recipes.sharding import SHARDINGS
from sftkey.recipes.writing import save_recipes, write_recipe


def _names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [recipe.name for recipe in shipped_recipes() if recipe.name.startswith(incomplete)]


@click.command("recipe")
@click.argument("name", shell_complete=_names)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dataset", "dataset_name", type=click.Choice(DATASETS), help="The data set to train on.")
@click.option("--model-id", metavar="ID", help="The base model: a name on the Hub or a folder.")
@click.option("--output-root", metavar="DIR", help="Where outputs go, in place of outputs.")
@click.option(
    "--sharding",
    type=click.Choice([*SHARDINGS]),
    help="How a recipe for several GPUs spreads the weights over them [default: zero3].",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write this file, and beside it the recipes of the stages before; default: print this one.",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def recipe_command(
    name: str,
    overrides: tuple[str, ...],
    dataset_name: str | None,
    model_id: str | None,
    output_root: str | None,
    sharding: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write the shipped recipe NAME, changed as asked, with its comments.

    The recipe stands alone: it needs this package and nothing else from here. A second stage names the recipe of the
    first one; with -o both are written, otherwise the command for the other one is shown. KEY=VALUE sets any key of
    Axolotl's or of this plugin's, in every stage: learning_rate=1e-5, datasets.0.split=train[:100].
    """
    written = write_recipe(
        shipped_recipe(name),
        dataset_name=dataset_name,
        model_id=model_id,
        output_root=output_root,
        sharding=sharding,
        overrides=overrides,
        file_name=output.name if output else None,
        known_keys=known_keys,
    )
    if output is None:
        if getattr(sys.modules.get("axolotl.cli.art"), "HAS_PRINTED_LOGO", False) and not sys.stdout.isatty():
            note("Axolotl's banner stands above the recipe; `sftkey recipe` prints none")
        print_file(written.text)
        for earlier in written.chain[:-1]:
            note(f"starts from {earlier.file_name}, in the same folder:\n  {earlier.command} > {earlier.file_name}")
    else:
        for path in save_recipes(written.chain, output.parent, force=force, option="-o"):
            echo(f"wrote {path}", err=True)
    for text in written.notes:
        note(text)
