"""``sftkey run``: a recipe and all that it builds on, trained, evaluated and resumed by one command."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.console import (
    echo,
    json_option,
    others_on_stderr,
    print_json,
    print_table,
    progress,
    stopped,
    this_command,
)
from sftkey.cli.options import (
    LauncherArguments,
    check_evaluation,
    evaluation_options,
    evaluation_settings,
    launcher_arguments,
)
from sftkey.util.extras import extra

if TYPE_CHECKING:
    from sftkey.stages.chain import Override
    from sftkey.stages.evaluate import EvaluationSettings
    from sftkey.stages.launch import Launch
    from sftkey.stages.stage import Stage

_NOT_PASSED_ON = {
    "sweep": "a sweep has no next stage; run `axolotl train RECIPE --sweep FILE` for one stage",
    "cloud": "the stages of a chain need each other's outputs on this machine; use `axolotl train --cloud` stage by stage",
}


_SYSTEM_FOLDERS = frozenset("bin boot dev etc lib lib32 lib64 proc root run sbin sys usr var".split())


def parse_overrides(
    arguments: Sequence[str], known: Sequence[click.Parameter], own: Sequence[click.Parameter] = ()
) -> list[Override]:
    """Read options that are meant for ``axolotl train``.

    Args:
        arguments: What this command's own options left over.
        known: The options of ``axolotl train``.
        own: The command's own options, which a misspelt one may mean.

    Raises:
        click.UsageError: An argument is none of them, or can't hold for a chain of stages.
    """
    from sftkey.stages.chain import Override

    options = {name: option for option in known if isinstance(option, click.Option) for name in option.opts}
    negations = {name: option for option in known if isinstance(option, click.Option) for name in option.secondary_opts}
    found, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, separator, value = argument.partition("=")
        option = options.get(name) or negations.get(name)
        if option is None or option.name is None:
            raise click.UsageError(_unknown(name, [*(o for p in own for o in p.opts), *options, *negations]))
        if option.name in _NOT_PASSED_ON:
            raise click.UsageError(f"{name}: {_NOT_PASSED_ON[option.name]}")
        if option.is_flag:
            if separator:
                raise click.UsageError(f"{name} takes no value")
            found.append(Override(option.name, name in options, (argument,)))
        elif separator:
            found.append(Override(option.name, value, (argument,)))
        elif rest:
            found.append(Override(option.name, rest[0], (argument, rest.pop(0))))
        else:
            raise click.UsageError(f"{name} needs a value")
    return found


def _unknown(name: str, known: Sequence[str]) -> str:
    if name.startswith("--sftkey"):
        key = name[2:].replace("-", "_")
        return f"{name}: keys of the plugin can't be set from the command line; set {key} in the recipe"
    if not name.startswith("-"):
        return f"unexpected argument {name!r}; one recipe is run at a time, and the launcher's arguments come after --"
    nearest = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    return f"axolotl train has no option {name}; {meant}The launcher's options come after --"


@click.command(
    "run", cls=LauncherArguments, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--launcher",
    type=click.Choice(["accelerate", "torchrun", "python"]),
    help="Launcher of axolotl train [its default].",
)
@click.option("--last-only", is_flag=True, help="Let the overrides hold for RECIPE alone, not for the stages before.")
@evaluation_options
@click.option("--dry-run", is_flag=True, help="Print the plan and stop; runs no code that a recipe names.")
@json_option
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    recipe: str,
    launcher: str | None,
    last_only: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train RECIPE and the stages that it builds on, and evaluate them.

    \b
    sftkey run RECIPE [AXOLOTL OPTIONS] [--eval ...] [-- LAUNCHER ARGUMENTS]

    Follows sftkey_after back, runs what isn't finished with `axolotl train`, and goes on from the last checkpoint of what
    was interrupted: to resume after Ctrl-C, a crash or kill -9, give the same command again. Results of --eval go to
    <output_dir>/eval; an evaluation that is done is not repeated. What training and evaluation print goes to log files in
    logs, beside <output_dir>; with -v it is shown, too.

    Any option of `axolotl train` (--num-epochs 1, --micro-batch-size=4, ...) replaces the recipe's value in every stage,
    except --output-dir and --hub-model-id, which hold for RECIPE alone. --base-model and other options that each stage
    needs a value of its own for are refused for a chain, unless with --last-only. A stage that is finished or under way
    with other settings is never trained over: that is an error.

    What follows -- goes to the launcher: --launcher torchrun -- --nproc_per_node 8.
    """  # noqa: D301  # \b is click's sign for lines that aren't to be wrapped.
    from sftkey.stages.chain import plan_chain
    from sftkey.stages.launch import Launch

    settings = evaluation_settings(options)
    overrides = parse_overrides(ctx.args, _train_options(), own=ctx.command.params) if ctx.args else []
    stages = plan_chain(recipe, overrides, last_only=last_only, run_code=not dry_run)
    launch = Launch(launcher, launcher_arguments(ctx))
    if settings is not None:
        check_evaluation(stages, settings)
    if dry_run:
        plan = describe(stages, launch, settings)
        if as_json:
            print_json(plan)
        else:
            echo(_plan_text(plan))
        return
    _run(stages, launch, settings, as_json)


def _train_options() -> list[click.Parameter]:
    # Seconds of imports: only for a command line that has such options.
    with others_on_stderr(), extra("axolotl"):
        from axolotl.cli.main import train

    return train.params


def _run(stages: Sequence[Stage], launch: Launch, settings: EvaluationSettings | None, as_json: bool) -> None:
    from sftkey.cli.live import followed, show_end_of
    from sftkey.stages.command_log import last_error
    from sftkey.stages.evaluate import results_table
    from sftkey.stages.launch import Runner, Stopped
    from sftkey.stages.run import StageFailed, evaluate_stage, log_of, train_stage

    again = this_command()
    done, said, log = [], list[str](), Path()
    try:
        with Runner() as runner:
            for number, stage in enumerate(stages, 1):
                what = f"Stage {number} of {len(stages)}, {stage.recipe.name} ({stage.method})"
                new = [remark for remark in stage.remarks if remark not in said]
                said += new
                progress("\n  ".join((f"{what}: {_intention(stage)}", *new)))
                log = log_of(stage, launch)
                with followed("training", log):
                    done.append(train_stage(stage, launch, runner, log=log))
            for stage in done:
                if settings is not None:
                    progress(f"Evaluation of {stage.output_dir}")
                    log = log_of(stage, launch, "eval")
                    with followed("evaluation", log, steps="requests"):
                        evaluated = evaluate_stage(stage, settings, launch, runner, log=log)
                    if not evaluated:
                        progress(f"{stage.output_dir} is being evaluated by another machine of this run")
    except Stopped:
        stopped(f"To go on from the last checkpoint:\n  {again}")
        raise SystemExit(130) from None
    except StageFailed as error:
        show_end_of(log)
        raise click.ClickException(
            f"{error}: {last_error(log)}\nThe whole log is {log}; once that is mended, go on with\n  {again}"
        ) from error
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    print_table(results_table(done), as_json)


def _intention(stage: Stage) -> str:
    if stage.finished:
        return f"finished {stage.finished_at}, in {stage.output_dir}"
    if stage.resume_from is not None:
        return f"goes on from {stage.resume_from}"
    return f"starts from the beginning, into {stage.output_dir}"


def describe(stages: Sequence[Stage], launch: Launch, settings: EvaluationSettings | None) -> list[dict[str, Any]]:
    """Describe the plan: for each stage how far it is, where its outputs go, and the commands that are left."""
    from sftkey.stages.evaluate import EVALUATION_FOLDER, evaluation_command, is_evaluated
    from sftkey.stages.readiness import merge_before

    def evaluation(stage: Stage) -> str | None:
        if settings is None:
            return None
        if stage.finished and is_evaluated(stage, settings):
            return f"done, in {stage.output_dir / EVALUATION_FOLDER}"
        return shlex.join(evaluation_command(stage, settings))

    return [
        {
            "recipe": str(stage.recipe),
            "method": stage.method,
            "state": "; ".join((_intention(stage), *stage.remarks)),
            "output": str(stage.output_dir),
            "merge": shlex.join(merge_before(stage) or []) or None,
            "train": None
            if stage.finished
            else shlex.join(launch.train_command(stage.recipe, stage.arguments, ray=stage.on_ray)),
            "eval": evaluation(stage),
            "notes": _remarks(stage),
        }
        for stage in stages
    ]


def _remarks(stage: Stage) -> list[str]:
    """What a user wants to know of a recipe that may be somebody else's, before it is run."""
    from sftkey.recipes.foreign_code import code_for_rows, code_for_training

    remarks = [f"runs code that the recipe names: {text}" for text in code_for_rows(stage.config)]
    remarks += [f"runs code that the recipe names: {text}" for text in code_for_training(stage.config)]
    return remarks + _remarks_on_place(stage.output_dir)


def _remarks_on_place(output_dir: Path) -> list[str]:
    place, home, here = output_dir.expanduser().resolve(), Path.home().resolve(), Path.cwd()
    if place in (home, Path(place.anchor)):
        return [f"output_dir: {output_dir} is {'the home directory' if place == home else 'the root'} itself"]
    if place.parts[1] in _SYSTEM_FOLDERS and not place.is_relative_to(home):
        return [f"output_dir: {output_dir} is in /{place.parts[1]}, a folder of the system"]
    if place == here:
        return [f"output_dir: {output_dir} is the working directory itself"]
    return [] if place.is_relative_to(here) else [f"output_dir: {output_dir} is outside the working directory"]


def _plan_text(plan: Sequence[dict[str, Any]]) -> str:
    lines = []
    for number, stage in enumerate(plan, 1):
        lines.append(f"Stage {number} of {len(plan)}: {stage['recipe']} ({stage['method']})")
        lines += [f"  {key:6}  {stage[key]}" for key in ("state", "output", "merge", "train", "eval") if stage[key]]
        lines += [f"  note    {text}" for text in stage["notes"]]
    return "\n".join(lines)
