"""A process of its own that answers JSON lines and is killed where it takes too long; threads may share it.

Python can interrupt neither a long C call nor one in another thread. So what may run for ever runs in another process, which
bounds its time and memory itself (`sftkey.util.bounded_worker`), and is killed if that doesn't help.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]

_of_the_parent: list[Any] = []
"""What a fork took over: never closed here, since closing waits for a lock that a thread of the parent may have held."""


class BoundedProcess:
    """Starts when it is first asked, and again after it died.

    Attributes:
        what: What it does, for messages: ``compares formulas``.
        module: What it runs, which calls `sftkey.util.bounded_worker.serve`.
        start_seconds: Seconds that it may take to start.
    """

    what: str
    module: str
    start_seconds = 120.0

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        self._owner = 0

    @property
    def _lock(self) -> threading.Lock:
        """That of this process: a thread of the parent may have held its own when the parent forked."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def close(self) -> None:
        """End the process; a later question starts a new one."""
        with self._lock:
            self._leave_to_the_parent()
            self._stop()

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """Send a request and wait for its reply.

        Args:
            request: What JSON can hold; a value that it can't is sent as its text.
            seconds: Until the process is killed.

        Returns:
            The reply; ``None`` where the process died or was killed.

        Raises:
            RuntimeError: The process can't be started.
        """
        line = json.dumps(request, default=str)
        with self._lock:
            self._leave_to_the_parent()
            if self._process is None or self._process.poll() is not None:
                self._start()
            return self._exchange(line, seconds)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process starts its own."""
        return type(self), ()

    def _leave_to_the_parent(self) -> None:
        """After a fork the process still belongs to the parent."""
        if self._process is not None and self._owner != os.getpid():
            _of_the_parent.append((self._process, self._errors))
            self._process = self._errors = None

    def _start(self) -> None:
        self._stop()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")))),
            # Thread pools reserve address space, which is limited.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: what lies in the working directory must not pass for a module.
            [sys.executable, "-P", "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        self._owner = os.getpid()
        if self._exchange(None, self.start_seconds) is None:
            self._errors.seek(0)
            said = self._errors.read()[-2000:]
            self._stop()
            raise RuntimeError(f"the process that {self.what} did not start; it said: {said or '(nothing)'}")

    def _exchange(self, request: str | None, seconds: float) -> dict[str, Any] | None:
        """Send a line and wait for one; ``None`` where the process died or was killed for taking too long.

        Killed as well where the wait is interrupted, as by Ctrl-C: the next question would get this one's reply.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        line = ""
        try:
            if request is not None:
                process.stdin.write(request + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            return None
        finally:
            timer.cancel()
            if not line.endswith("\n"):
                process.kill()
                process.wait()
        reply: dict[str, Any] | None = json.loads(line) if line.endswith("\n") else None
        return reply

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError), process:  # which closes its pipes and waits for it
                process.kill()
        if self._errors is not None:
            self._errors.close()
            self._errors = None
