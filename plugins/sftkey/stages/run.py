"""Trains and evaluates single stages of a plan: locked, resumable, and never again what is done."""

from __future__ import annotations

import math
import shlex
import socket
import time
from pathlib import Path

from sftkey.stages.chain import refreshed
from sftkey.stages.evaluate import (
    EvaluationSettings,
    evaluation_command,
    is_evaluated,
    record_evaluation,
    results_files,
)
from sftkey.stages.launch import Launch, Runner
from sftkey.stages.lock import RUN_LOCK, Occupied, OutputLock
from sftkey.stages.marker import MARKER_FILE
from sftkey.stages.readiness import merge_before
from sftkey.stages.stage import Stage

_EVALUATION_LOCK = ".sftkey_evaluation.lock"
_MERGE_LOCK = ".sftkey_merge.lock"
_OTHER_MACHINES_SECONDS = 600.0


class StageFailed(Exception):
    """A command of a stage ended without having done its work."""


def log_of(stage: Stage, launch: Launch, what: str = "") -> Path:
    """The log file of a stage's commands: beside its output directory, which may be uploaded as it is.

    Args:
        stage: The stage.
        launch: How it is launched; each of several machines has a log of its own.
        what: Which command it is, if not the training: ``eval``.
    """
    place = stage.output_dir.resolve()
    host = socket.gethostname() if launch.machines > 1 else ""
    shown = stage.output_dir.parent if stage.output_dir.name else place.parent
    return shown / "logs" / ".".join(filter(None, (place.name, host, what, "log")))


def train_stage(stage: Stage, launch: Launch, runner: Runner, *, log: Path | None = None) -> Stage:
    """Train a stage to its end, from where it is; the stage before it has finished.

    Args:
        stage: The stage.
        launch: How to launch it.
        runner: Runs the command.
        log: Where the output goes; shown by default.

    Raises:
        StageFailed: ``axolotl train`` ended without finishing it.
        Occupied: Another run works in its output directory.
        UserError: See `sftkey.stages.chain.plan_chain`.
        Stopped: See `Runner.run`.
    """
    stage = refreshed(stage)
    if stage.finished:
        return stage
    with OutputLock(stage.output_dir, RUN_LOCK, shared_by=launch.rendezvous):
        stage = refreshed(stage)
        if stage.finished:
            return stage
        _merge_before(stage, runner, log)
        status = runner.run(launch.train_command(stage.recipe, stage.arguments, ray=stage.on_ray), log=log)
        stage = refreshed(stage)
        # The marker is written by the first process, on one machine, after the others have ended.
        deadline = time.monotonic() + (_OTHER_MACHINES_SECONDS if status == 0 and launch.machines > 1 else 0.0)
        while not stage.finished and time.monotonic() < deadline:
            time.sleep(1.0)
            stage = refreshed(stage)
    if not stage.finished:
        raise StageFailed(
            f"axolotl train {stage.recipe} {_ending(status)}" + (f" but left no {MARKER_FILE}" if status == 0 else "")
        )
    return stage


def _merge_before(stage: Stage, runner: Runner, log: Path | None) -> None:
    """Merge the adapter of the stage before, where this one starts from its full weights."""
    before = stage.before
    if before is None or merge_before(stage) is None:
        return
    # The other machines of this run, or a run with another next stage, may be merging it now.
    lock = OutputLock(before.output_dir, _MERGE_LOCK)
    lock.acquire(patience=math.inf)
    with lock:
        command = merge_before(stage)
        if command is None:
            return
        status = runner.run(command, log=log)
    if merge_before(stage) is not None:
        raise StageFailed(f"{shlex.join(command)} {_ending(status)}")


def evaluate_stage(
    stage: Stage, settings: EvaluationSettings, launch: Launch, runner: Runner, *, log: Path | None = None
) -> bool:
    """Evaluate a finished stage, unless that has been done.

    Args:
        stage: The finished stage.
        settings: What to evaluate.
        launch: How the stage was launched: of several machines, the first to ask evaluates.
        runner: Runs the command.
        log: Where the output goes; shown by default.

    Returns:
        Whether it is evaluated now; ``False`` where another machine of this run does it.

    Raises:
        StageFailed: ``lm_eval`` failed.
        Occupied: Another run evaluates it.
        UserError: The tasks can't be chosen, or lm-eval wrote no results.
        Stopped: See `Runner.run`.
    """
    if is_evaluated(stage, settings):
        return True
    lock = OutputLock(stage.output_dir, _EVALUATION_LOCK)
    try:
        lock.acquire()
    except Occupied:
        if launch.machines > 1:
            return False
        raise
    with lock:
        if is_evaluated(stage, settings):
            return True
        before = results_files(stage)
        status = runner.run(evaluation_command(stage, settings), log=log)
        if status != 0:
            raise StageFailed(f"lm_eval for {stage.output_dir} {_ending(status)}")
        record_evaluation(stage, settings, before)
    return True


def _ending(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
