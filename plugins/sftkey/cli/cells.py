"""Run one stage of a table of many: what fails is told, and the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sftkey.cli.console import progress

if TYPE_CHECKING:
    from sftkey.stages.evaluate import EvaluationSettings
    from sftkey.stages.launch import Launch, Runner
    from sftkey.stages.stage import Stage


def run_stage(
    stage: Stage,
    finished: dict[Path, Stage],
    logs: Path,
    launch: Launch,
    settings: EvaluationSettings | None,
    runner: Runner,
) -> str | None:
    """Train and evaluate a stage; return why that failed.

    Args:
        stage: The stage.
        finished: Takes the stage as it is then, by its output directory.
        logs: The folder of the log files.
        launch: How to launch it.
        settings: How to evaluate it; ``None`` not to.
        runner: Runs the commands.
    """
    from sftkey.cli.live import followed
    from sftkey.stages.command_log import last_error
    from sftkey.stages.run import StageFailed, evaluate_stage, train_stage

    log = logs / f"{stage.recipe.stem}.log"
    try:
        progress(f"  {stage.method}: {stage.output_dir} (log: {log})")
        with followed("training", log):
            trained = finished[stage.output_dir] = train_stage(stage, launch, runner, log=log)
        if settings is not None:
            log = log.with_suffix(".eval.log")
            with followed("evaluation", log, steps="requests"):
                evaluate_stage(trained, settings, launch, runner, log=log)
    except StageFailed as error:
        return f"{error}: {last_error(log)} ({log})"
    except (ValueError, OSError) as error:
        return str(error)
    return None
