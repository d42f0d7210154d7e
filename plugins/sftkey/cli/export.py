"""``sftkey export``: a recipe and its rows for another trainer."""

from __future__ import annotations

from pathlib import Path

import click

from sftkey.cli.console import echo, note


@click.command("export")
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--for", "name", type=click.Choice(["llamafactory", "ms-swift"]), required=True, help="The trainer to write for."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where to write.",
)
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run the code that RECIPE names: its model's (trust_remote_code), and data sets' that aren't of this package.",
)
def export_command(recipe: Path, name: str, output: Path, trust_remote_code: bool) -> None:
    """Write RECIPE, and the stages that it builds on, for LLaMA-Factory 0.9.5 or ms-swift 4.6.

    For each stage a dataset file, whose rows give the same trained tokens there, and a configuration. What the trainer can't
    express is refused where it would train something else; all other differences are printed and in DIFFERENCES.md.
    """
    from sftkey.export.write import DIFFERENCES_FILE, TRAINERS, differences, export

    trainer = TRAINERS[name]
    stages = export(recipe, trainer, output, trust_code=trust_remote_code)
    for stage in stages:
        for file in stage.files:
            echo(f"wrote {output / file}", err=True)
    note(f"{output / DIFFERENCES_FILE} says the same:")
    echo(differences(trainer, stages))
