"""The command ``sftkey``; ``axolotl sftkey`` is the same one, found through the entry point ``axolotl.cli_commands``.

The command NAME is ``NAME_command`` of ``sftkey.cli.NAME``, imported when it is used.
"""

from __future__ import annotations

import importlib

import click

from sftkey.cli.console import QUIET, VERBOSE
from sftkey.util.disk import full_disk
from sftkey.util.errors import UserError
from sftkey.util.text import visible
from sftkey.util.version import __version__

_SUMMARIES = {
    "init": "Write the recipes of both stages for rows of your own.",
    "run": "Train a recipe and the stages that it builds on, evaluate them, resume.",
    "eval": "Evaluate a finished stage with lm-eval, as `run --eval` does.",
    "matrix": "Plan and run the paper's table: models x data sets x strategies.",
    "arena": "Find out which objective pays: all against the control, over several seeds.",
    "diagnose": "Tell what Stage 2 can gain from a Stage 1 checkpoint.",
    "doctor": "Try what this machine can train, before a long job.",
    "inspect": "Show what a recipe will train on, before any GPU is rented.",
    "judge": "Add an LLM judge's verdicts to the logged samples of an evaluation.",
    "calibrate": "Log how probable a model found its own answers, for the report.",
    "recipe": "Write a shipped recipe for another model, data set, place or setting.",
    "recipes": "List the shipped recipes: model, strategy, data set, GPUs, memory.",
    "export": "Write a recipe and its rows for LLaMA-Factory or ms-swift.",
    "share": "Bundle what others need to run a finished stage again.",
    "chat": "Talk to a finished stage in a terminal.",
    "report": "Tables and figures of any number of runs.",
    "completion": "Print the script that completes this command's words in bash, zsh or fish.",
    "tasks-path": "Print the folder of the lm-eval tasks, for lm_eval's --include_path.",
}
"""Stand here so that --help imports no command."""


_PLACES = (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)
"""Errors of a place that the user named, not of a command."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUMMARIES:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"sftkey.cli.{name}"), f"{name}_command")
        # Accepted on both sides of the name.
        command.params += [option for option in (QUIET, VERBOSE) if option not in command.params]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(visible(str(error))) from error
        except click.ClickException as error:
            vars(error)["message"] = visible(error.message)
            raise
        except OSError as error:
            full = full_disk(error)
            if full is None and not (isinstance(error, _PLACES) and error.filename):
                raise
            place = error.filename2 or error.filename  # where it was to be put, not what it was called until then
            reason = full or f"{place}: {error.strerror}; name another place, or change what is there"
            raise click.ClickException(visible(str(reason))) from error
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(
    cls=_Commands,
    params=[QUIET, VERBOSE],
    epilog="`sftkey COMMAND --help` describes one; those that print a table take --json. Exit codes: 1 for an error, 2 for a "
    "wrong call, 130 after Ctrl-C.",
)
@click.version_option(__version__, prog_name="sftkey")
def sftkey() -> None:
    """Two-stage training with emphasis on the answer tokens."""
