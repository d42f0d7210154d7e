"""``sftkey eval``: evaluate what a stage left, with the call that ``sftkey run --eval`` makes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import echo, json_option, note, print_json, print_table, progress, stopped, this_command
from sftkey.cli.options import (
    LauncherArguments,
    check_evaluation,
    evaluation_command_options,
    evaluation_settings,
    launcher_arguments,
)

if TYPE_CHECKING:
    from sftkey.stages.stage import Stage

_OURS = ("--model", "--model_args", "--tasks", "--limit", "--batch_size", "--include_path", "--output_path")
_OURS_SHORT = ("-M", "-a", "-t", "-L", "-b", "-o")


@click.command("eval", cls=LauncherArguments)
@click.argument("stage", metavar="RECIPE|OUTPUT_DIR", type=click.Path(exists=True))
@evaluation_command_options
@click.option("--dry-run", is_flag=True, help="Print the lm_eval command and stop.")
@json_option
@click.pass_context
def eval_command(ctx: click.Context, /, stage: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Evaluate the finished stage of a RECIPE, or in an OUTPUT_DIR, with lm-eval.

    \b
    sftkey eval RECIPE|OUTPUT_DIR [OPTIONS] [-- LM_EVAL OPTIONS]

    The call is the one of `sftkey run --eval`: tasks by the stage's data sets and method, figures in <output_dir>/eval, and
    what is done is not repeated. The tasks are found wherever lm-eval is installed.

    A model that is served: --model local-chat-completions --model-args base_url=http://HOST:PORT/v1/chat/completions; the
    server's name for it, where that isn't OUTPUT_DIR, is model=NAME. What follows -- goes to lm_eval.
    """  # noqa: D301  # \b is click's sign for lines that aren't to be wrapped.
    from sftkey.stages.evaluate import EVALUATION_FOLDER, evaluation_command, is_evaluated

    arguments = launcher_arguments(ctx)
    _refuse_ours(arguments)
    settings = evaluation_settings({**options, "evaluate": True})
    assert settings is not None
    settings = replace(settings, arguments=arguments)
    found = _finished(Path(stage))
    command = evaluation_command(found, settings)
    check_evaluation([found], settings)
    if dry_run:
        done = is_evaluated(found, settings)
        plan = {
            "output": str(found.output_dir),
            "eval": f"done, in {found.output_dir / EVALUATION_FOLDER}" if done else shlex.join(command),
        }
        if as_json:
            print_json(plan)
        else:
            echo(plan["eval"])
        return
    _evaluate(found, settings, as_json)


def _evaluate(stage: Stage, settings: Any, as_json: bool) -> None:
    from sftkey.cli.live import followed, show_end_of
    from sftkey.stages.command_log import last_error
    from sftkey.stages.evaluate import is_evaluated, results_table
    from sftkey.stages.launch import Launch, Runner, Stopped
    from sftkey.stages.run import StageFailed, evaluate_stage, log_of

    if is_evaluated(stage, settings):
        note(f"{stage.output_dir}: evaluated with these settings before; nothing was run")
    else:
        progress(f"Evaluation of {stage.output_dir}")
    log = log_of(stage, Launch(), "eval")
    try:
        with Runner() as runner, followed("evaluation", log, steps="requests"):
            evaluate_stage(stage, settings, Launch(), runner, log=log)
    except Stopped:
        stopped(f"To evaluate again:\n  {this_command()}")
        raise SystemExit(130) from None
    except StageFailed as error:
        show_end_of(log)
        raise click.ClickException(f"{error}: {last_error(log)}\nThe whole log is {log}") from error
    print_table(results_table([stage]), as_json)


def _finished(place: Path) -> Stage:
    """The stage of an output directory, or of the one that a recipe names."""
    from sftkey.evaluation.trained_model import ANSWERS
    from sftkey.recipes.load import DEFAULT_OUTPUT_DIR, load_recipe
    from sftkey.stages.stage import finished_stage

    if place.is_dir():
        return finished_stage(place)
    recipe = load_recipe(place)
    found = finished_stage(str(recipe.get("output_dir") or DEFAULT_OUTPUT_DIR))
    # What it says of the answers by now, which no training depends on.
    kind = recipe.get(ANSWERS)
    return replace(found, config={**found.config, ANSWERS: kind}) if kind else found


def _refuse_ours(arguments: Sequence[str]) -> None:
    """Refuse what this command sets itself; lm_eval's parser also takes the start of a long name, and ``-tNAME``."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name[:2] in _OURS_SHORT or (len(name) > 2 and any(ours.startswith(name) for ours in _OURS)):
            raise click.UsageError(f"{name}: `sftkey eval` sets it; give its own option, before --, if it has one")
