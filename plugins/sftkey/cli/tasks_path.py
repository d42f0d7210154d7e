"""``sftkey tasks-path``: where the lm-eval tasks are."""

from __future__ import annotations

import click

from sftkey.cli.console import echo


@click.command("tasks-path")
def tasks_path_command() -> None:
    """Print the folder of the lm-eval tasks: lm_eval --include_path "$(sftkey tasks-path)" --tasks sftkey_gsm8k ..."""
    from sftkey.evaluation.task_files import tasks_folder

    echo(str(tasks_folder()))
