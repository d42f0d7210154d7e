"""``axolotl sftkey recipes``: what is shipped."""

from __future__ import annotations

import click

from sftkey.recipes.catalogue import recipe_table, shipped_recipes
from sftkey.util.text import table


@click.command("recipes")
def recipes_command() -> None:
    """List the shipped recipes: model, strategy, data set, GPUs and estimated peak memory per GPU.

    `axolotl sftkey recipe NAME > my.yml` writes one of them, for any model, data set and setting.
    """
    click.echo(table(recipe_table(shipped_recipes())))
