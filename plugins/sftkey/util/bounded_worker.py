"""The inside of a `sftkey.util.bounded_process`: one JSON line in, one out, each in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

Answer = Callable[[dict[str, Any]], dict[str, Any]]

OVER_LIMIT = "over_limit"
"""The key of a reply that says in words which bound was passed."""

_GRACE = 1.0
"""Seconds of processor time beyond the limit until the kernel ends the process, which a long C call can't put off."""


class _OutOfTime(BaseException):
    """Not an `Exception`: libraries catch those."""


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise _OutOfTime


def _limit_memory(most: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not every platform has or allows it
        import resource

        # What the libraries take is there already.
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + most
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def serve(load: Callable[[], Answer], *, seconds: float, memory: int) -> None:
    """Answer requests until standard input ends.

    Args:
        load: Imports what is needed and gives the function that answers; neither its time nor its memory counts.
        seconds: Of processor time for an answer, not of the clock: a busy machine must not change an answer.
        memory: Bytes for it.
    """
    # Replies go to a private copy of standard output, so that nothing that a library prints can pass for one.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answer = load()
    _limit_memory(memory)
    signal.signal(signal.SIGPROF, _interrupt)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        try:
            try:
                signal.setitimer(signal.ITIMER_PROF, seconds)
                signal.setitimer(signal.ITIMER_VIRTUAL, seconds + _GRACE)
                reply = json.dumps(answer(json.loads(line)))
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except _OutOfTime:
            reply = json.dumps({OVER_LIMIT: f"more than {seconds:g} s"})
        except MemoryError:
            reply = json.dumps({OVER_LIMIT: f"more than {memory >> 20} MiB"})
        print(reply, file=replies, flush=True)
