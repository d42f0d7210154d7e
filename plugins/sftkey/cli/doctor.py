"""``sftkey doctor``: what this machine can train."""

from __future__ import annotations

import click

from sftkey.cli.console import echo, json_option, print_json, print_table, progress
from sftkey.cli.options import FiniteRange
from sftkey.training.doctor.checks import chosen
from sftkey.training.doctor.run import BUDGET, examine
from sftkey.training.doctor.sizes import SIZES
from sftkey.util.text import Cell


@click.command("doctor")
@click.option("--only", metavar="NAMES", help="These checks, separated by commas.")
@click.option("--list", "listed", is_flag=True, help="List the checks and run none.")
@click.option(
    "--size", type=click.Choice(list(SIZES)), help="Size of the model; default: the largest for this GPU's memory."
)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="RECIPE",
    help="Measure the memory of this recipe, a file or a shipped one's name; may be repeated.",
)
@click.option("--budget", type=FiniteRange(min=1), default=BUDGET, show_default=True, help="Seconds for everything.")
@json_option
@click.pass_context
def doctor_command(
    ctx: click.Context,
    only: str | None,
    listed: bool,
    size: str | None,
    recipes: tuple[str, ...],
    budget: float,
    as_json: bool,
) -> None:
    """Try what this machine can train, before a long job: in under nine minutes.

    One step each with loss and gradients against the model's own; time and memory of a step against other losses; the
    memory of recipes against their estimate. Models have random weights; nothing is downloaded. Every check runs in a
    process of its own with a limit. What can't be tried here is skipped, with the reason.

    Exit codes: 0 when everything that could be tried is ok, 1 when a check failed or didn't come to its end, 3 when the
    time was too short or nothing could be tried.
    """
    from sftkey.recipes.measurement import to_measure

    checks = chosen(only)
    if listed:
        rows: list[tuple[Cell, ...]] = [("CHECK", "WHAT", "NEEDS")]
        rows += [(check.name, check.what, check.needs) for check in checks]
        print_table(rows, as_json)
        return
    report = examine(checks, size=size, budget=budget, recipes=to_measure(recipes), progress=progress)
    if as_json:
        print_json(report)
    else:
        from sftkey.training.doctor.tables import text

        echo(text(report))
    ctx.exit(report["verdict"]["code"])
