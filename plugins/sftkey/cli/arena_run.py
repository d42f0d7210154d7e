"""The loop of an arena: cell by cell, past failures, until all are done or the budget is used up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftkey.cli.cells import run_stage
from sftkey.cli.console import note, progress, stopped, this_command
from sftkey.cli.live import followed
from sftkey.cli.options import check_evaluation
from sftkey.stages.command_log import last_error
from sftkey.util.errors import UserError
from sftkey.util.files import finite, write_atomically
from sftkey.util.text import visible

if TYPE_CHECKING:
    from sftkey.recipes.arena import ArenaPlan, ArenaRecipe
    from sftkey.stages.arena import ArenaRun
    from sftkey.stages.evaluate import EvaluationSettings
    from sftkey.stages.launch import Launch, Runner
    from sftkey.stages.stage import Stage

_EXPECTED = 1.1
"""What a cell is expected to take, as a multiple of the longest one of its kind."""


@dataclass
class ArenaLoop:
    """An arena that is run: its rows, what failed and what is left.

    Attributes:
        plan: Its recipes.
        root: The folder of its outputs.
        launch: How stages are trained.
        settings: How they are evaluated.
        reference_rows: Held-out rows for Acc given the reference thinking; 0 for none.
        deadline: By `time.monotonic`, when no cell is begun any more that would not end before.
        equal_compute: Whether objectives are trained for equal compute, too.
        runs: The rows, by name.
        failed: A line for each cell that failed.
        left: The cells that the budget left.
    """

    plan: ArenaPlan
    root: Path
    launch: Launch
    settings: EvaluationSettings
    reference_rows: int
    deadline: float
    equal_compute: bool
    runs: dict[str, ArenaRun] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    _finished: dict[Path, Stage] = field(default_factory=dict)
    _reasons: dict[Path, str] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _unmeasured: str = ""
    _base_tried: bool = False

    def prepare(self) -> None:
        """Write the recipes and find what keeps a cell from being trained, before any is."""
        from sftkey.stages.arena import ArenaRun
        from sftkey.stages.chain import plan_chain

        for recipe in (*(one for chain in self.plan.before.values() for one in chain), *self.plan.cells.values()):
            recipe.save()
        chains = [plan_chain(cell.path) for cell in self.plan.cells.values()]
        check_evaluation([stage for chain in chains for stage in chain], self.settings)
        names = ["base", *(["stage1"] if any(self.plan.before.values()) else [])]
        self.runs = {name: ArenaRun(name) for name in (*names, *(one.name for one in self.plan.objectives))}

    def run(self) -> None:
        """Train and evaluate cell by cell, until all are done or the budget is used up."""
        from sftkey.stages.launch import Runner, Stopped

        try:
            with Runner() as runner:
                self._run(list(dict.fromkeys((name, seed, one.path) for name, seed, one in self._cells())), runner)
                if self.equal_compute:
                    self._run([(name, seed, one.path) for name, seed, one in self._equal_compute()], runner)
        except Stopped:
            stopped(f"To go on:\n  {this_command()}")
            raise SystemExit(130) from None

    def _cells(self) -> Iterator[tuple[str, int, ArenaRecipe]]:
        for seed, chain in self.plan.before.items():
            if chain:
                yield "stage1", seed if self.plan.own_stage1 else 0, chain[-1]
            for objective in self.plan.objectives:
                yield objective.name, seed, self.plan.cells[objective.name, seed]

    def _equal_compute(self) -> Iterator[tuple[str, int, ArenaRecipe]]:
        from sftkey.recipes.arena import EQUAL_COMPUTE, equal_compute
        from sftkey.recipes.arena_objectives import CONTROL
        from sftkey.stages.arena import SAME_COMPUTE, ArenaRun, compute_ratio

        for objective in self.plan.objectives:
            run = self.runs[objective.name]
            ratio = compute_ratio(self.runs[CONTROL], run)
            # Measured once all seeds are there: later measurements must not change what was begun.
            if objective.name == CONTROL or ratio is None or len(run.stages) < len(self.plan.before):
                continue
            try:
                cells = equal_compute(self.plan, objective.name, ratio)
            except UserError as error:
                self.failed.append(f"  {objective.name}{EQUAL_COMPUTE}: {error}")
                continue
            if abs(ratio - 1) <= SAME_COMPUTE and not any(one.path.is_file() for _, one in cells):
                continue
            name = objective.name + EQUAL_COMPUTE
            self.runs[name] = ArenaRun(name)
            for seed, recipe in cells:
                recipe.save()
                yield name, seed, recipe

    def _run(self, cells: Sequence[tuple[str, int, Path]], runner: Runner) -> None:
        from sftkey.stages.arena import unusable_items
        from sftkey.stages.chain import plan_chain

        for number, (name, seed, path) in enumerate(cells, 1):
            title = f"{name}, seed {seed}" if name != "stage1" or self.plan.own_stage1 else name
            if self.left or not self._fits(name, path):
                self.left.append(title)
                continue
            progress(f"[{number}/{len(cells)}] {title}")
            began, new = time.monotonic(), not self._is_done(path)
            try:
                stages = plan_chain(path)
                reason = next(filter(None, (self._stage(stage, stage is stages[-1], runner) for stage in stages)), None)
                reason = reason or unusable_items(self._finished[stages[-1].output_dir], self.settings)
            except (ValueError, OSError) as error:
                reason = str(error)
            if new:
                self._seconds[name] = max(self._seconds.get(name, 0.0), time.monotonic() - began)
            if reason is not None:
                self.failed.append(f"  {title}: {reason}")
                click.secho(visible(f"  failed: {reason}"), fg="red", err=True)
                continue
            self.runs[name].stages[seed] = self._finished[stages[-1].output_dir]
            self._base(stages[0], runner)

    def _fits(self, name: str, path: Path) -> bool:
        """Whether a cell can be expected to end before the deadline; the first of a call is always run."""
        if not self._seconds:
            return True
        expected = _EXPECTED * self._seconds.get(name, max(self._seconds.values()))
        return self._is_done(path) or time.monotonic() + expected <= self.deadline

    def _is_done(self, path: Path) -> bool:
        from sftkey.stages.chain import plan_chain
        from sftkey.stages.evaluate import is_evaluated

        try:
            stage = plan_chain(path)[-1]
        except (ValueError, OSError):
            return False
        return stage.finished and is_evaluated(stage, self.settings) and not self._lacks_reference(stage)

    def _stage(self, stage: Stage, evaluated: bool, runner: Runner) -> str | None:
        """Train a stage, and evaluate one that is a row of its own; return why that failed."""
        place = stage.output_dir
        if place in self._reasons:
            return self._reasons[place]
        if place in self._finished and not evaluated:
            return None
        settings = self.settings if evaluated else None
        reason = run_stage(stage, self._finished, self.root / "logs", self.launch, settings, runner)
        if reason is not None:
            self._reasons[place] = reason
        elif evaluated:
            self._given_reference(self._finished[place], runner)
        return reason

    def _lacks_reference(self, stage: Stage) -> bool:
        from sftkey.format.methods import METHODS
        from sftkey.stages.arena import given_reference

        wanted = self.reference_rows and not self._unmeasured and METHODS[stage.method].tagged
        return bool(wanted) and not given_reference(stage, self.reference_rows)

    def _given_reference(self, stage: Stage, runner: Runner) -> None:
        """Measure Acc given the reference thinking; where that isn't possible say so once and go on."""
        from sftkey.stages.arena import given_reference_file

        if not self._lacks_reference(stage):
            return
        log = self.root / "logs" / f"{stage.recipe.stem}.reference.log"
        command = [sys.executable, "-m", "sftkey.cli.given_reference", str(stage.output_dir)]
        command += [str(given_reference_file(stage)), "--rows", str(self.reference_rows)]
        if self.settings.batch_size.isdigit():
            command += ["--batch-size", self.settings.batch_size]
        with followed("answers given the reference thinking", log):
            status = runner.run(command, log=log)
        if status:
            self._unmeasured = last_error(log)
            note(f"Acc given the reference thinking isn't measured: {self._unmeasured} ({log})")

    def _base(self, stage: Stage, runner: Runner) -> None:
        """Evaluate the base model once there is a stage whose tokenizer it can be given."""
        from sftkey.stages.base_evaluation import base_command, base_evaluations, base_results, record_base, why_not

        if self._base_tried:
            return
        self._base_tried = True
        stage, model, folder = self._finished[stage.output_dir], self.plan.base_model, self.root / "base" / "eval"
        reason = why_not(model, stage, self.settings)
        if reason is None and not base_evaluations(model, stage, self.settings, folder):
            progress(f"  base model: {model}")
            log, before = self.root / "logs" / "base.eval.log", base_results(folder)
            with followed("evaluation", log, steps="requests"):
                status = runner.run(base_command(model, stage, self.settings, folder), log=log)
            if status:
                reason = f"{last_error(log)} ({log})"
            else:
                record_base(model, stage, self.settings, folder, before)
        if reason is not None:
            note(f"there is no row of the base model: {reason}")
        self.runs["base"].evaluations = base_evaluations(model, stage, self.settings, folder)

    def save(self) -> dict[str, Any]:
        """Compute what is known by now and write it to ``arena.json``."""
        from sftkey.recipes.arena_objectives import CONTROL
        from sftkey.stages.arena import ARENA_FILE, SCHEMA, results, without_items

        self.failed += [f"  {line}" for line in without_items(list(self.runs.values()), self.settings)]
        rivals = [run for name, run in self.runs.items() if name not in ("base", "stage1", CONTROL)]
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "recipe": self.plan.recipe.name,
            "design": self.plan.design,
            **results(list(self.runs.values()), self.runs[CONTROL], rivals, self.settings),
            "left": self.left,
            "failed": [line.strip() for line in self.failed],
            "not_measured": self._unmeasured,
        }
        content = finite(content)
        write_atomically(self.root / ARENA_FILE, content)
        return content
