"""``axolotl sftkey recipes``: what is shipped."""

from __future__ import annotations

import click

from sftkey.recipes.catalogue import recipe_table, shipped_recipes


@click.command("recipes")
def recipes_command() -> None:
    """List the shipped recipes: model, method, data set, GPUs and estimated peak memory per GPU.

    `axolotl sftkey recipe NAME > my.yml` writes one of them, for any model, data set and setting.
    """
    rows = recipe_table(shipped_recipes())
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
