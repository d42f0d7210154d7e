"""``sftkey recipes``: what is shipped."""

from __future__ import annotations

import click

from sftkey.cli.console import json_option, print_table
from sftkey.recipes.catalogue import recipe_table, shipped_recipes


@click.command("recipes")
@json_option
def recipes_command(as_json: bool) -> None:
    """List the shipped recipes: model, strategy, data set, GPUs and estimated peak memory per GPU.

    `sftkey recipe NAME > my.yml` writes one of them, for any model, data set and setting.
    """
    print_table(recipe_table(shipped_recipes()), as_json)
