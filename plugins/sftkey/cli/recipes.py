"""``sftkey recipes``: what is shipped."""

from __future__ import annotations

import click

from sftkey.cli.console import json_option, print_table
from sftkey.recipes.catalogue import shipped_recipes
from sftkey.recipes.memory import GIB
from sftkey.util.text import Cell


@click.command("recipes")
@json_option
def recipes_command(as_json: bool) -> None:
    """List the shipped recipes: model, strategy, data set, GPUs and estimated peak memory per GPU.

    `sftkey recipe NAME > my.yml` writes one of them, for any model, data set and setting.
    """
    rows: list[tuple[Cell, ...]] = [("RECIPE", "MODEL", "STRATEGY", "DATA SET", "GPUS", "MEMORY PER GPU")]
    for recipe in shipped_recipes():
        gpus = f"{recipe.gpus} x {recipe.gpu_gigabytes} GB" if recipe.gpus else "none"
        needs = f"about {recipe.memory.peak / GIB:.0f} GiB" if recipe.memory else None
        rows.append((recipe.name, recipe.model, recipe.strategy, recipe.dataset, gpus, needs))
    print_table(rows, as_json)
