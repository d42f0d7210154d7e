"""Training ends with the run that started it, so that a killed run leaves nobody behind who writes to its outputs.

Launchers stand between ``sftkey run`` and the training processes, and a kill -9 of the run reaches none of them.
An environment variable does: it names the run, and each training process watches it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import psutil

VARIABLE = "SFTKEY_RUN"
"""``<process id>:<start time>:<host>`` of the run; the start time, because process ids are used again."""

_INTERVAL = 0.5


def lifeline() -> dict[str, str]:
    """The environment variable that ties the processes started with it to this process."""
    return {VARIABLE: _identity(psutil.Process())}


def end_with_the_run(end: Callable[[], None] | None = None) -> None:
    """Watch the run that started this process, and end this process once it is gone.

    Does nothing where no ``sftkey run`` started it.

    Args:
        end: What to do then; by default a kill -9 of this process and of those that it started, such as the workers that
            prepare data, as the run got one too: nothing half-done is saved.
    """
    run = os.environ.get(VARIABLE)
    # A launcher may carry the variable to another machine, where the run can't be seen.
    if run is None or run.split(":", 2)[-1] != socket.gethostname():
        return
    ending = end or _kill_all

    def watch() -> None:
        while _alive(run):
            time.sleep(_INTERVAL)
        ending()

    threading.Thread(target=watch, name="sftkey-lifeline", daemon=True).start()


def _kill_all() -> None:
    """Kill this process and all that it started, at once: a pool would start its workers anew."""
    started = [process.pid for process in psutil.Process().children(recursive=True)]
    for process_id in (*started, os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def _identity(process: psutil.Process) -> str:
    return f"{process.pid}:{process.create_time():.2f}:{socket.gethostname()}"


def _alive(run: str) -> bool:
    try:
        process = psutil.Process(int(run.partition(":")[0]))
        return _identity(process) == run and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        return False
    except psutil.AccessDenied:
        return True
