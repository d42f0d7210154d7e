"""Locks that keep two runs out of one output directory, released by the system however a process ends.

Not `filelock`: its locks are for one holder, and the machines of one run hold a lock here together. Where a file system
has no flock it makes do with a file that a killed run would leave behind.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from sftkey.util.errors import UserError

RUN_LOCK = ".sftkey_run.lock"
"""Held by ``sftkey run`` while it works on a stage."""

TRAINING_LOCK = ".sftkey_training.lock"
"""Held by the training process itself, whoever started it."""


class Occupied(UserError):
    """Another process works in the output directory."""


class OutputLock:
    """An advisory lock (flock) on a file in an output directory; a context manager.

    The system drops it when the process ends, kill -9 included. The file stays behind; an unlocked file means nothing.

    Args:
        output_dir: The stage's output directory; made if it isn't there.
        name: `RUN_LOCK` or `TRAINING_LOCK`.
        shared_by: What several processes that hold the lock together have in common (the machines of one multi-node
            run share their rendezvous address); ``None`` for one process alone.
    """

    def __init__(self, output_dir: str | Path, name: str, *, shared_by: str | None = None) -> None:
        self.path = Path(output_dir) / name
        self._shared_by = shared_by
        self._descriptor: int | None = None

    def acquire(self, *, patience: float = 0.0) -> None:
        """Take the lock.

        Args:
            patience: Seconds to wait for another process to end.

        Raises:
            Occupied: Another process has it; the message says which, as far as known.
            OSError: The directory can't be written to, or its file system has no locks.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            while not self._try(descriptor):
                if time.monotonic() >= deadline:
                    raise Occupied(
                        f"{self.path.parent} is in use by another run{_owner(descriptor)}. Wait for it to end, or choose "
                        "another output_dir"
                    )
                time.sleep(0.2)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _try(self, descriptor: int) -> bool:
        if not _flock(descriptor, fcntl.LOCK_EX):
            # All holders of a shared lock wrote the same; the first one wrote it while it had the lock alone.
            return (
                self._shared_by is not None
                and _flock(descriptor, fcntl.LOCK_SH)
                and _content(descriptor).get("shared_by") == self._shared_by
            )
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "shared_by": self._shared_by,
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        return self._shared_by is None or _flock(descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        """Give the lock back; does nothing where it isn't held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> OutputLock:
        if self._descriptor is None:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _flock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _content(descriptor: int) -> dict[str, object]:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _owner(descriptor: int) -> str:
    owner = _content(descriptor)
    return f" (process {owner['pid']} on {owner['host']}, since {owner['since']})" if "since" in owner else ""
