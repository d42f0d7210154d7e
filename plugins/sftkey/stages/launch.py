"""Runs the commands of a plan one after the other, and ends them together with this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from sftkey.stages.lifeline import lifeline
from sftkey.util.extras import MissingExtra

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_EXTRAS = {"axolotl": "axolotl", "lm_eval": "eval"}
_RENDEZVOUS = ("rdzv_id", "rdzv_endpoint", "master_addr", "master_port", "main_process_ip", "main_process_port")


class Stopped(Exception):
    """The user (Ctrl-C) or the system asked to stop, and the running command has ended."""


@dataclass(frozen=True)
class Launch:
    """How stages are trained.

    Attributes:
        launcher: ``--launcher`` of ``axolotl train``; ``None`` for its default.
        launcher_arguments: What goes to the launcher, after ``--``.
    """

    launcher: str | None = None
    launcher_arguments: tuple[str, ...] = ()

    @property
    def machines(self) -> int:
        """On how many machines the same command is started, as far as the launcher's arguments say; 1 by default."""
        given = self._value("nnodes", "num_machines") or "1"
        largest = given.rpartition(":")[2]  # torchrun takes a range, MIN:MAX
        return int(largest) if largest.isdigit() else 1

    @property
    def rendezvous(self) -> str | None:
        """What the machines of one run have in common; ``None`` for a run on one machine."""
        if self.machines == 1:
            return None
        return " ".join(filter(None, (self._value(name) for name in _RENDEZVOUS))) or "several machines"

    def _value(self, *names: str) -> str | None:
        """What the launcher gets as ``--name value`` or ``--name=value``; it may be spelt with dashes."""
        for index, argument in enumerate(self.launcher_arguments):
            name, separator, value = argument.partition("=")
            if name.startswith("--") and name[2:].replace("-", "_") in names:
                return value if separator else next(iter(self.launcher_arguments[index + 1 : index + 2]), None)
        return None

    def train_command(self, recipe: str | Path, arguments: Sequence[str] = (), *, ray: bool = False) -> list[str]:
        """The ``axolotl train`` command for a recipe; with `ray`, whose workers need no launcher."""
        if ray:
            return ["axolotl", "train", str(recipe), *arguments, "--launcher", "python"]
        launcher = ["--launcher", self.launcher] if self.launcher else []
        after = ["--", *self.launcher_arguments] if self.launcher_arguments else []
        return ["axolotl", "train", str(recipe), *arguments, *launcher, *after]


class Runner:
    """Runs commands as children of this process; a context manager.

    While it is entered, Ctrl-C, SIGTERM and SIGHUP are passed on to the running command, and `Stopped` is raised once that
    has ended. A second Ctrl-C kills it. When this process is killed (kill -9), the commands end too: the direct child by
    a signal from the system, training processes by `sftkey.stages.lifeline`.

    Args:
        stdout: File descriptor that takes the commands' stdout; by default they share that of this process.
    """

    def __init__(self, stdout: int | None = None) -> None:
        self._stdout = stdout
        self._process: subprocess.Popen[bytes] | None = None
        self._stops = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Runner:
        for number in _STOP_SIGNALS:
            # Under nohup SIGHUP stays ignored.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], *, log: Path | None = None) -> int:
        """Run a command to its end.

        Args:
            command: The command; found beside this Python first.
            log: A file that stdout and stderr are added to, instead of being shown.

        Returns:
            Its exit status; negative for the signal that ended it.

        Raises:
            Stopped: The user or the system asked to stop.
            OSError: The command can't be started.
            MissingExtra: See `needs_command`.
        """
        if self._stops:
            raise Stopped
        needs_command(command[0])
        environment = {**os.environ, **lifeline(), "PATH": path_with_own_commands(os.environ)}
        with _opened(log) as output:
            # A process group of its own: a Ctrl-C in the terminal comes here alone, and is passed on once, to the process
            # that can deal with it, not to each launcher on the way.
            self._process = subprocess.Popen(
                list(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._stdout if output is None else output,
                stderr=subprocess.STDOUT if output is not None else None,
                process_group=0,
                preexec_fn=_before_the_command,
            )
            try:
                status = self._process.wait()
                if self._stops:
                    _wait_for_group(self._process.pid)
            finally:
                self._process = None
        if self._stops:
            raise Stopped
        return status

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._stops += 1
        if self._process is None:
            return
        again = self._stops > 1
        targets = []
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            targets = [process, *process.children(recursive=True)] if again else _to_interrupt(process)
        for target in targets:
            with contextlib.suppress(psutil.NoSuchProcess):
                target.send_signal(signal.SIGKILL if again else signal.SIGINT)


def needs_command(name: str) -> None:
    """Refuse to go on without a command that an extra of this package brings.

    Raises:
        MissingExtra: It isn't installed.
    """
    extra = _EXTRAS.get(name)
    if extra is not None and shutil.which(name, path=path_with_own_commands(os.environ)) is None:
        raise MissingExtra(f"the command {name}", extra)


def path_with_own_commands(environment: Mapping[str, str]) -> str:
    """``PATH`` with the folder of this Python's commands first: ``axolotl`` looks for ``accelerate`` there."""
    own = str(Path(sys.executable).parent)
    path = environment.get("PATH", os.defpath)
    return path if own in path.split(os.pathsep) else os.pathsep.join([own, path])


def _opened(log: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if log is None:
        return contextlib.nullcontext()
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("ab")


def _before_the_command() -> None:
    """In the child: let it be stopped, whatever this process was started with, and end when this process dies."""
    # A service, or a shell's `nohup ... &`, has signals ignored, and the command would inherit that. A terminal that hangs
    # up reaches this process alone.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _to_interrupt(process: psutil.Process) -> list[psutil.Process]:
    """Who is to get a Ctrl-C: accelerate's launcher of one process would die of it and leave that process behind."""
    children = process.children()
    launches = "accelerate" in " ".join(process.cmdline()[:3])
    return children if launches and len(children) == 1 else [process]


def _wait_for_group(group: int) -> None:
    """Wait for what is left of a command whose launcher ended before its processes."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if process.pid != os.getpid() and os.getpgid(process.pid) == group:
                process.wait()
