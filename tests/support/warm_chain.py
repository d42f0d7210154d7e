"""A chain of stages, run by the package's own code, whose commands are forked from a process that has imported everything.

Importing takes most of the time of a command, and a run that is killed fifty times starts two hundred of them. For each line
on stdin a run is started in a process group of its own; ``started PID`` and ``ended STATUS`` are written to stdout.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

WARM = (
    "axolotl.cli.main axolotl.cli.train axolotl.cli.merge_lora axolotl.train axolotl.core.builders axolotl.common.datasets "
    "peft lm_eval.__main__ lm_eval.evaluator lm_eval.models.huggingface lm_eval.tasks sftkey.axolotl.plugin "
    "sftkey.axolotl.trainer"
).split()
STEPS = ("stage1.yml", "stage2.yml")


class ForkedRunner:
    """In the place of `sftkey.stages.launch.Runner`: the same command, by its entry point, in a fork of this process."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def run(self, command: Sequence[str], *, log: Path | None = None) -> int:
        from sftkey.stages.launch import _before_the_command
        from sftkey.stages.lifeline import lifeline

        tie = lifeline()
        child = os.fork()
        if child == 0:
            _before_the_command()
            os.environ.update(tie)
            exit_as_a_command_does(list(command))
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)


def exit_as_a_command_does(command: list[str]) -> None:
    """Run a console script in this process, and what is left to do when a process ends."""
    status = 1
    try:
        sys.argv = command
        (script,) = entry_points(group="console_scripts", name=command[0])
        script.load()()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def chain(log: Path) -> None:
    """Train both stages, merge the adapter of the second, evaluate it."""
    from sftkey.stages.chain import plan_chain
    from sftkey.stages.evaluate import EvaluationSettings
    from sftkey.stages.launch import Launch
    from sftkey.stages.run import evaluate_stage, train_stage

    runner, launch = ForkedRunner(log), Launch("python")
    done = [train_stage(stage, launch, runner) for stage in plan_chain(STEPS[-1], [])]  # type: ignore[arg-type]
    if runner.run(["axolotl", "merge-lora", STEPS[-1]]):
        raise SystemExit("axolotl merge-lora failed")
    settings = EvaluationSettings(tasks=("sftkey_demo",), include_path="tasks", batch_size="16")
    evaluate_stage(done[-1], settings, launch, runner)  # type: ignore[arg-type]


def main() -> None:
    log = Path(sys.argv[1])
    for name in WARM:
        importlib.import_module(name)
    for _ in sys.stdin:
        run = os.fork()
        if run == 0:
            os.setpgid(0, 0)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status = 1
            try:
                chain(log)
                status = 0
            except BaseException as error:
                sys.excepthook(type(error), error, error.__traceback__)
            sys.stderr.flush()
            os._exit(status)
        print("started", run, flush=True)
        _, status = os.waitpid(run, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
