"""``axolotl sftkey ...``: the command group, found by Axolotl through the entry point ``axolotl.cli_commands``."""

from __future__ import annotations

import importlib

import click

from sftkey.util.errors import UserError

# name -> (module, attribute, summary); the summaries stand here so that --help imports no subcommand.
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("run", "run_command", "Train a recipe and the stages that it builds on, evaluate them, resume."),
    "matrix": ("matrix", "matrix_command", "Plan and run the paper's table: models x data sets x methods."),
    "diagnose": ("diagnose", "diagnose_command", "Tell what Stage 2 can gain from a Stage 1 checkpoint."),
    "inspect": ("inspect", "inspect_command", "Show what a recipe will train on, before any GPU is rented."),
    "judge": ("judge", "judge_command", "Add an LLM judge's verdicts to the logged samples of an evaluation."),
    "recipe": ("recipe", "recipe_command", "Write a shipped recipe for another model, data set, place or setting."),
    "recipes": ("recipes", "recipes_command", "List the shipped recipes: model, method, data set, GPUs, memory."),
    "share": ("share", "share_command", "Bundle what others need to run a finished stage again."),
    "report": ("report", "report_command", "Tables and figures of any number of runs."),
}


class _LazyCommand(click.Command):
    """Stands in for a subcommand until it is used."""

    def __init__(self, name: str, module: str, attribute: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self._target = (module, attribute)

    def _load(self) -> click.Command:
        module, attribute = self._target
        command = getattr(importlib.import_module(f"sftkey.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        return self._load().make_context(info_name, args, parent=parent, **extra)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        return _LazyCommand(cmd_name, *entry) if entry else None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_LazyGroup)
def sftkey() -> None:
    """Two-stage training with emphasis on the answer tokens."""
