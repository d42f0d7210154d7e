"""A bounded process: limited in processor time, shared by threads, though one forks while another waits."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from sftkey.util.bounded_process import BoundedProcess


class Sleeper(BoundedProcess):
    """Replies after so many seconds."""

    what = "sleeps"
    module = "support.sleeper"


def test_a_long_call_is_ended_and_a_long_wait_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    sleeper = Sleeper()
    try:
        assert sleeper.ask({"seconds": 1}, 60) == {"slept": 1}  # twice its limit of processor time
        start = time.monotonic()
        assert sleeper.ask({"seconds": 0, "numbers": 10**12}, 600) is None
        assert time.monotonic() - start < 300
        assert sleeper.ask({"seconds": 0}, 60) == {"slept": 0}
    finally:
        sleeper.close()


def within(seconds: float, child: int) -> bool:
    """Whether a child ends by itself with 0."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("closed", [False, True])
def test_a_fork_while_a_thread_waits_for_a_reply(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    sleeper = Sleeper()
    try:
        assert sleeper.ask({"seconds": 0}, 60) == {"slept": 0}
        replies: list[object] = []
        waiting = threading.Thread(target=lambda: replies.append(sleeper.ask({"seconds": 1}, 60)))
        waiting.start()
        while not sleeper._lock.locked():
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            # Nothing here may reach pytest: neither its output nor its clean-up.
            try:
                sleeper.close() if closed else None
                good = sleeper.ask({"seconds": 0.1}, 60) == {"slept": 0.1}
                sleeper.close()
            except BaseException:
                good = False
            os._exit(0 if good else 1)
        assert within(30, child)
        waiting.join()
        assert replies == [{"slept": 1}]  # the parent's own reply, unharmed
        assert sleeper.ask({"seconds": 0}, 60) == {"slept": 0}
    finally:
        sleeper.close()
