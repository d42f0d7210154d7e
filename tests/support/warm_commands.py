"""Commands as a user types them, each forked from a process that has imported what they import, which takes the most time.

A line on stdin is a working directory and a command, as a JSON list; what it prints goes to the files ``stdout`` and
``stderr`` there, and its exit status is the answer on stdout. What a command starts is forked, too.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.commands import environment

MORE = ("sftkey.axolotl.rows", "sftkey.evaluation.diagnosis", "sftkey.report.write")


class WarmCommands:
    """Runs commands one after the other; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.warm_commands"],
            env=environment(
                PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
                HF_DATASETS_CACHE="datasets_cache",
                OMP_NUM_THREADS="1",
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> WarmCommands:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(cwd), *command]) + "\n")
        status = int(self._process.stdout.readline())
        printed = [(cwd / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(command, status, *printed)


def _forked(command: Sequence[str], stdout: int | None, stderr: int | None) -> int:
    from sftkey.stages.launch import _before_the_command
    from sftkey.stages.lifeline import lifeline
    from support.warm_chain import exit_as_a_command_does

    tie = lifeline()
    child = os.fork()
    if child == 0:
        _before_the_command()
        os.environ.update(tie)
        for descriptor, file in enumerate((stdout, stderr), 1):
            if file is not None:
                os.dup2(file, descriptor)
        exit_as_a_command_does(list(command))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _in_place_of_a_runner(self: object, command: Sequence[str], *, log: Path | None = None) -> int:
    from sftkey.stages.launch import _opened

    with _opened(log) as file:
        output = None if file is None else file.fileno()
        return _forked(command, output, output)


def main() -> None:
    from support.warm_chain import WARM

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # importing prints things
    for name in (*WARM, *MORE):
        importlib.import_module(name)
    from sftkey.stages import launch

    launch.Runner.run = _in_place_of_a_runner  # type: ignore[method-assign]
    for line in sys.stdin:
        folder, *command = json.loads(line)
        os.chdir(folder)
        with open("stdout", "w") as stdout, open("stderr", "w") as stderr:
            status = _forked(command, stdout.fileno(), stderr.fileno())
        print(status, file=answers, flush=True)


if __name__ == "__main__":
    main()
