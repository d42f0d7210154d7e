"""``sftkey matrix``: the paper's table, planned and run."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.cells import run_stage
from sftkey.cli.console import (
    echo,
    json_option,
    note,
    print_json,
    print_table,
    progress,
    records,
    stopped,
    this_command,
)
from sftkey.cli.options import (
    LauncherArguments,
    check_evaluation,
    evaluation_options,
    evaluation_settings,
    given_evaluation_options,
    known_keys,
    launcher_arguments,
)
from sftkey.util.text import Cell, visible

if TYPE_CHECKING:
    from sftkey.recipes.matrix import MatrixCell
    from sftkey.stages.evaluate import EvaluationSettings
    from sftkey.stages.launch import Launch
    from sftkey.stages.stage import Stage


@click.command("matrix", cls=LauncherArguments)
@click.option(
    "--models", metavar="NAME,...", help="Models, as their recipes are called, or NAME=ID. [default: the paper's]"
)
@click.option("--datasets", metavar="NAME,...", help="Data sets. [default: the paper's four]")
@click.option(
    "--data",
    "own",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rows of your own beside --datasets, or in place of the paper's: a recipe that names them, or its keys about data.",
)
@click.option(
    "--strategies", metavar="NAME,...", help="Strategies. [default: SFT,SFT-Tag,Key-Tag,SFTKey-Tag; also: SFTKey]"
)
@click.option("--methods", hidden=True, help="The old name of --strategies.")
@click.option("--output-root", default="outputs", show_default=True, metavar="DIR", help="Where outputs go.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="A key of every recipe, as in sftkey recipe."
)
@click.option("--launcher", type=click.Choice(["accelerate", "torchrun", "python"]), help="Launcher of axolotl train.")
@evaluation_options
@click.option("--dry-run", is_flag=True, help="Print the plan and stop; write nothing.")
@click.option("--slurm", is_flag=True, help="Write OUTPUT_ROOT/matrix.sh, which submits job arrays, and run nothing.")
@click.option(
    "--slurm-option", "slurm_options", multiple=True, metavar="OPTION", help="An option of sbatch for --slurm."
)
@click.option("--force", is_flag=True, help="Replace recipes in OUTPUT_ROOT/recipes that say something else.")
@json_option
@click.pass_context
def matrix_command(
    ctx: click.Context,
    /,
    models: str | None,
    datasets: str | None,
    own: tuple[Path, ...],
    strategies: str | None,
    methods: str | None,
    output_root: str,
    overrides: tuple[str, ...],
    launcher: str | None,
    dry_run: bool,
    slurm: bool,
    slurm_options: tuple[str, ...],
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Plan and run the paper's table: models x data sets x strategies.

    Writes the recipes of all cells to OUTPUT_ROOT/recipes, trains each stage once, whatever number of cells builds on it,
    and evaluates it with --eval. What training and evaluation print goes to OUTPUT_ROOT/logs. A cell that fails doesn't
    stop the others; what failed and why is listed at the end, and the exit status is 1. Give the same command again to go
    on: what is finished is not repeated.

    What follows -- goes to the launcher: --launcher torchrun -- --nproc_per_node 8.
    """
    from sftkey.datasets.registry import PAPER
    from sftkey.recipes.matrix import PAPER_MODELS, PAPER_STRATEGIES, notes_of, plan_cells, save_recipes, slurm_script
    from sftkey.recipes.own_data import read_own_data
    from sftkey.stages.launch import Launch

    settings = evaluation_settings(options)
    if slurm_options and not slurm:
        raise click.UsageError("--slurm-option does nothing without --slurm")
    if strategies and methods:
        raise click.UsageError("--methods is the old name of --strategies; give one of them")
    cells = plan_cells(
        _names(models, PAPER_MODELS),
        _names(datasets, () if own else PAPER),
        _names(strategies or methods, PAPER_STRATEGIES),
        output_root=output_root,
        overrides=overrides,
        known_keys=known_keys,
        own=[read_own_data(path) for path in own],
    )
    for text in notes_of(cells):
        note(text)
    launch = Launch(launcher, launcher_arguments(ctx))
    folder, logs = Path(output_root) / "recipes", Path(output_root) / "logs"
    if dry_run:
        with tempfile.TemporaryDirectory() as temporary:
            save_recipes(cells, Path(temporary))
            planned = _plan(cells, Path(temporary))
            _check(planned, settings)
            rows, commands = _describe(planned, launch, settings)
        rows = [
            tuple(cell.replace(temporary, str(folder)) if isinstance(cell, str) else cell for cell in row)
            for row in rows
        ]
        commands = [command.replace(temporary, str(folder)) for command in commands]
        if as_json:
            print_json({"stages": records(rows), "commands": commands})
            return
        print_table(rows, as_json)
        echo("\n".join(["", f"{len(commands)} command{'s' if len(commands) != 1 else ''} to run:", *commands]))
        return
    save_recipes(cells, folder, force=force)
    if slurm:
        script = slurm_script(
            cells,
            folder,
            working_directory=Path.cwd(),
            logs=logs,
            command=this_command(),
            options=slurm_options,
            run_options=_run_options(launch, options),
        )
        path = Path(output_root) / "matrix.sh"
        path.write_text(script, encoding="utf-8")
        echo(f"wrote {path}; submit it with\n  bash {shlex.quote(str(path))}")
        return
    planned = _plan(cells, folder)
    _check(planned, settings)
    finished, failures = _run(planned, logs, launch, settings)
    print_table(_results(planned, finished), as_json)
    if failures:
        raise click.ClickException("\n".join([f"{len(failures)} of {len(cells)} cells failed:", *failures]))


def _names(text: str | None, default: Sequence[str]) -> list[str]:
    return list(default) if text is None else [name.strip() for name in text.split(",") if name.strip()]


@dataclass
class PlannedCell:
    """A cell with its stages as they are on disk, or why it can't be run."""

    cell: MatrixCell
    stages: tuple[Stage, ...] = ()
    problem: str | None = None


def _plan(cells: Sequence[MatrixCell], folder: Path) -> list[PlannedCell]:
    from sftkey.stages.chain import plan_chain

    planned = []
    for cell in cells:
        try:
            planned.append(PlannedCell(cell, plan_chain(folder / cell.recipes[-1].file_name)))
        except (ValueError, OSError) as error:
            planned.append(PlannedCell(cell, problem=str(error)))
    return planned


def _check(planned: Sequence[PlannedCell], settings: EvaluationSettings | None) -> None:
    """Notice before the first cell is trained what no evaluation of them would have."""
    if settings is not None:
        check_evaluation([stage for one in planned for stage in one.stages], settings)


def _describe(
    planned: Sequence[PlannedCell], launch: Launch, settings: EvaluationSettings | None
) -> tuple[list[tuple[Cell, ...]], list[str]]:
    """The plan as a table, and the commands that are left."""
    from sftkey.stages.evaluate import evaluation_command, is_evaluated

    rows: list[tuple[Cell, ...]] = [("MODEL", "DATA SET", "STRATEGY", "METHOD", "STATE", "OUTPUT")]
    commands: dict[str, None] = {}
    seen: set[Path] = set()
    for one in planned:
        start = (one.cell.model, one.cell.dataset, one.cell.strategy)
        if one.problem is not None:
            rows.append((*start, None, f"can't run: {one.problem.splitlines()[0]}", None))
        for stage in one.stages:
            shared = " (shared)" if stage.output_dir in seen else ""
            seen.add(stage.output_dir)
            rows.append((*start, stage.method, stage.state.value + shared, str(stage.output_dir)))
            if not stage.finished:
                commands[shlex.join(launch.train_command(stage.recipe, stage.arguments, ray=stage.on_ray))] = None
            if settings is not None and not (stage.finished and is_evaluated(stage, settings)):
                commands[shlex.join(evaluation_command(stage, settings))] = None
    return rows, list(commands)


def _run_options(launch: Launch, options: dict[str, Any]) -> list[str]:
    """What the script's ``sftkey run`` gets."""
    words = ["--launcher", launch.launcher] if launch.launcher else []
    if options["evaluate"]:
        words += ["--eval", "--eval-backend", options["eval_backend"]]
        words += [word for option in given_evaluation_options(options).items() for word in option]
    return [*words, "--", *launch.launcher_arguments] if launch.launcher_arguments else words


def _run(
    planned: Sequence[PlannedCell], logs: Path, launch: Launch, settings: EvaluationSettings | None
) -> tuple[dict[Path, Stage], list[str]]:
    """Run the cells one after the other; return the trained stages by output directory, and a line for each failed cell."""
    from sftkey.stages.launch import Runner, Stopped

    finished: dict[Path, Stage] = {}
    reasons: dict[Path, str | None] = {}
    failures = []
    try:
        with Runner() as runner:
            for number, one in enumerate(planned, 1):
                progress(f"[{number}/{len(planned)}] {one.cell.name}")
                reason = one.problem
                for stage in one.stages:
                    if stage.output_dir not in reasons:
                        reasons[stage.output_dir] = run_stage(stage, finished, logs, launch, settings, runner)
                    reason = reasons[stage.output_dir]
                    if reason is not None:
                        break
                if reason is not None:
                    failures.append(f"  {one.cell.name}: {reason}")
                    click.secho(visible(f"  failed: {reason}"), fg="red", err=True)
    except Stopped:
        stopped(f"To go on:\n  {this_command()}")
        raise SystemExit(130) from None
    return finished, failures


def _results(planned: Sequence[PlannedCell], finished: dict[Path, Stage]) -> list[tuple[Cell, ...]]:
    from sftkey.stages.evaluate import evaluation_results, figures

    rows: list[tuple[Cell, ...]] = [("MODEL", "DATA SET", "STRATEGY", "STATE", "TASK", "ACC", "FMT", "SCORE")]
    for one in planned:
        start = (one.cell.model, one.cell.dataset, one.cell.strategy)
        stage = finished.get(one.stages[-1].output_dir) if one.stages else None
        results = evaluation_results(stage) if stage else []
        rows += [(*start, "trained", result.task, *figures(result)) for result in results]
        if not results:
            rows.append((*start, "trained" if stage else "failed", None, None, None, None))
    return rows
