"""``sftkey arena``: every objective from the same weights, against the control, over several seeds."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.arena_run import ArenaLoop
from sftkey.cli.console import echo, json_option, note, print_json, print_table, this_command
from sftkey.cli.options import (
    FiniteRange,
    LauncherArguments,
    evaluation_setting_options,
    evaluation_settings,
    known_keys,
    launcher_arguments,
)
from sftkey.util.text import Cell

if TYPE_CHECKING:
    from sftkey.recipes.arena import ArenaPlan, ArenaRecipe
    from sftkey.stages.stage import Stage


@click.command("arena", cls=LauncherArguments)
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--objectives",
    multiple=True,
    metavar="NAME,...",
    help="What is trained beside the control. [default: answer,anchored:0.1]",
)
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1, 100), help="Seeds 0, 1, ... of each.")
@click.option("--stage1-per-seed", is_flag=True, help="Train a Stage 1 with each seed, not one for all.")
@click.option(
    "--equal-compute/--no-equal-compute",
    default=True,
    show_default=True,
    help="Beside equal steps train each objective as long as the control takes, where a step takes another time.",
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="[default: outputs/arena/RECIPE]")
@click.option("--budget", type=FiniteRange(min=0, min_open=True), metavar="MINUTES", help="End after so long.")
@click.option(
    "--reference-rows",
    default=200,
    show_default=True,
    type=click.IntRange(min=0),
    help="Held-out rows for Acc given the reference thinking; 0 for none.",
)
@click.option("--launcher", type=click.Choice(["accelerate", "torchrun", "python"]), help="Launcher of axolotl train.")
@evaluation_setting_options
@click.option("--dry-run", is_flag=True, help="List the cells and stop; write nothing.")
@json_option
@click.pass_context
def arena_command(
    ctx: click.Context,
    /,
    recipe: Path,
    objectives: tuple[str, ...],
    seeds: int,
    stage1_per_seed: bool,
    equal_compute: bool,
    output: Path | None,
    budget: float | None,
    reference_rows: int,
    launcher: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find out which objective pays for RECIPE's model and data.

    RECIPE is a Stage 2 recipe, whose Stage 1 (sftkey_after) is trained first if it isn't finished, or a recipe of a single
    stage. From the same weights, for as many steps and with each seed, trains the control (the loss on the whole response,
    SFT-Tag carried on) and each objective, evaluates all of them, Stage 1 and the base model with lm_eval, and compares them
    with the control.

    An objective is answer (the loss on the answer alone), anchored:0.1 (the same, and the thinking weighs 0.1), recipe
    (RECIPE as it is), or a name of sftkey_objective, on the whole response; key-tag/NAME for another method,
    NAME:KEY=VALUE for its own keys, NAME+KEY=VALUE for keys of the recipe.

    Each cell is a stage with its output directory, and what is finished is never done again: give the same command again
    to go on. What follows -- goes to the launcher.
    """
    from sftkey.recipes.arena import plan_arena
    from sftkey.recipes.arena_objectives import DEFAULT_OBJECTIVES
    from sftkey.stages.launch import Launch, needs_command

    settings = evaluation_settings({**options, "evaluate": True})
    assert settings is not None
    names = [name.strip() for text in objectives for name in text.split(",") if name.strip()]
    root = output or Path("outputs") / "arena" / recipe.stem
    chosen = names or DEFAULT_OBJECTIVES
    plan = plan_arena(recipe, chosen, range(seeds), root, own_stage1=stage1_per_seed, known_keys=known_keys)
    _check(plan)
    if dry_run:
        print_table(_listed(plan), as_json)
        if equal_compute and not as_json:
            echo(
                "\nEach objective is trained again for equal compute where its step takes another time than the control's."
            )
        return
    deadline = math.inf if budget is None else time.monotonic() + 60 * budget
    launch = Launch(launcher, launcher_arguments(ctx))
    arena = ArenaLoop(plan, root, launch, settings, reference_rows, deadline, equal_compute=equal_compute)
    arena.prepare()
    needs_command("lm_eval")  # before hours of training, not after
    arena.run()
    content = arena.save()
    if as_json:
        print_json(content)
    else:
        from sftkey.cli.arena_text import arena_text

        echo(arena_text(content))
        echo(f"\nwrote {root / 'arena.json'}; tables, figures and all samples: sftkey report {shlex.quote(str(root))}")
    if arena.left:
        note(f"the budget is used up: {len(arena.left)} cells are left. To go on:\n  {this_command()}")
    if arena.failed:
        raise click.ClickException("\n".join([f"{len(arena.failed)} cells failed:", *arena.failed]))


def _check(plan: ArenaPlan) -> None:
    """Find what is wrong with a recipe that isn't written yet."""
    from sftkey.recipes.checks import check_recipe

    for cell in plan.cells.values():
        config = dict(cell.config)
        if config.get("sftkey_after"):
            # What it names may not be written either.
            config["sftkey_after"] = str((plan.recipe.parent / _after(plan)).resolve())
        check_recipe({**config, "axolotl_config_path": str(plan.recipe)}, run_code=False)


def _after(plan: ArenaPlan) -> str:
    from sftkey.recipes.load import load_recipe

    return str(load_recipe(plan.recipe)["sftkey_after"])


def _listed(plan: ArenaPlan) -> list[tuple[Cell, ...]]:
    from sftkey.stages.stage import Stage

    rows: list[tuple[Cell, ...]] = [("RUN", "SEED", "METHOD", "STEPS", "STATE", "OUTPUT")]
    seen: set[Path] = set()

    def row(name: str, seed: int | str, recipe: ArenaRecipe, known: Stage | None) -> Stage:
        stage = Stage.of_recipe(recipe.path, recipe.config)
        steps = _steps(recipe, stage, known)
        rows.append((name, str(seed), stage.method, steps, stage.state.value, str(stage.output_dir)))
        return stage

    for seed, chain in plan.before.items():
        last: Stage | None = None
        for number, one in enumerate(chain, 1):
            if one.path not in seen:
                seen.add(one.path)
                row(f"stage{number}", seed if plan.own_stage1 else "-", one, None)
            last = Stage.of_recipe(one.path, one.config)
        for objective in plan.objectives:
            row(objective.name, seed, plan.cells[objective.name, seed], last)
    return rows


def _steps(recipe: ArenaRecipe, stage: Stage, before: Stage | None) -> str:
    """The steps that a stage was or will be trained for; from those of the stage before, which has the same rows."""
    if stage.training.steps:
        return str(stage.training.steps)
    config = recipe.config
    if int(config.get("max_steps") or 0) > 0:
        return str(config["max_steps"])
    epochs = float(config.get("num_epochs") or 1)
    batch = ("micro_batch_size", "gradient_accumulation_steps", "sample_packing", "datasets")
    same = before is not None and all(before.config.get(key) == config.get(key) for key in batch)
    if before is not None and same and before.training.steps and before.training.epochs:
        return f"about {math.ceil(before.training.steps / before.training.epochs * epochs)}"
    return f"{epochs:g} epochs"
