"""The lock keeps other processes out, also from other descriptors of the same process, and ends with its holder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sftkey.stages.lock import RUN_LOCK, TRAINING_LOCK, Occupied, OutputLock

HOLD = """
import sys, time
from sftkey.stages.lock import OutputLock
with OutputLock(sys.argv[1], ".sftkey_run.lock", shared_by=sys.argv[2] or None):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path, shared_by: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), shared_by], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_kept_out_and_named(tmp_path: Path) -> None:
    process = hold(tmp_path / "out")
    try:
        with pytest.raises(Occupied, match=rf"out is in use by another run \(process {process.pid} on .*, since 20"):
            OutputLock(tmp_path / "out", RUN_LOCK).acquire()
        # Another lock in the same directory, and the same lock in another directory.
        with OutputLock(tmp_path / "out", TRAINING_LOCK), OutputLock(tmp_path / "other", RUN_LOCK):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with OutputLock(tmp_path / "out", RUN_LOCK) as lock:
            assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    finally:
        process.kill()
        process.wait()


def test_same_process(tmp_path: Path) -> None:
    with OutputLock(tmp_path, RUN_LOCK), pytest.raises(Occupied):
        OutputLock(tmp_path, RUN_LOCK).acquire()
    with OutputLock(tmp_path, RUN_LOCK):
        pass


def test_patience(tmp_path: Path) -> None:
    import threading

    first = OutputLock(tmp_path, RUN_LOCK)
    first.acquire()
    threading.Timer(0.5, first.release).start()
    second = OutputLock(tmp_path, RUN_LOCK)
    second.acquire(patience=30)
    second.release()
    second.release()


def test_shared_by_the_machines_of_one_run(tmp_path: Path) -> None:
    process = hold(tmp_path, "node0:29500")
    try:
        with OutputLock(tmp_path, RUN_LOCK, shared_by="node0:29500"):
            pass
        for other in ("node1:29500", None):
            with pytest.raises(Occupied):
                OutputLock(tmp_path, RUN_LOCK, shared_by=other).acquire()
    finally:
        process.kill()
        process.wait()


def test_what_stands_in_an_unlocked_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / RUN_LOCK).write_text('{"pid": 1, "host": "x", "since": "y"} and more')
    with OutputLock(tmp_path, RUN_LOCK) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
