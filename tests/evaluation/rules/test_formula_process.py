"""The process that compares formulas: it survives its crashes, and nobody waits for it too long."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from sftkey.evaluation.rules import formula_process
from sftkey.evaluation.rules.formula_process import FormulaProcess
from sftkey.evaluation.rules.limits import OverLimit
from sftkey.evaluation.verdicts import RuleVerdict

SLOW = r"\sum_{m=1}^{1000}\sum_{n=1}^{1000}\sin(mn)"


@pytest.fixture(scope="module")
def shared():
    process = FormulaProcess()
    yield process
    process.close()


def pid_of(process: FormulaProcess) -> int:
    assert process._process is not None
    return process._process.pid


def test_one_process_serves_many_comparisons(shared):
    assert shared.compare("x+1", "1+x") == (RuleVerdict.SAME, "two readings agree")
    first = pid_of(shared)
    assert shared.compare("x+1", "x+2")[0] is RuleVerdict.DIFFERENT
    assert pid_of(shared) == first


def test_a_crash_costs_one_item(shared):
    shared.compare("x+1", "1+x")
    crashed = pid_of(shared)
    os.kill(crashed, 9)
    shared._process.wait()
    assert shared.compare("x+1", "1+x")[0] is RuleVerdict.SAME
    assert pid_of(shared) != crashed


def test_a_crash_while_waiting_is_over_the_limit(shared):
    shared.compare("x+1", "1+x")
    victim = pid_of(shared)
    killer = threading.Timer(0.5, os.kill, (victim, 9))
    killer.start()
    with pytest.raises(OverLimit, match="killed"):
        shared.compare(SLOW, "18")
    assert shared.compare("x+1", "1+x")[0] is RuleVerdict.SAME


def test_a_process_that_does_not_interrupt_itself_is_killed(shared, monkeypatch):
    # Python can't interrupt one long multiplication; a clock that is stopped early stands for it.
    shared.compare("x+1", "1+x")
    slow = pid_of(shared)
    monkeypatch.setattr(formula_process, "MAX_SECONDS", 0.2)
    monkeypatch.setattr(formula_process, "_GRACE", 0.2)
    with pytest.raises(OverLimit, match="killed"):
        shared.compare(SLOW, "18")
    monkeypatch.undo()
    assert shared.compare("x+1", "1+x")[0] is RuleVerdict.SAME
    assert pid_of(shared) != slow


def test_a_question_that_is_interrupted_gets_no_other_ones_reply(shared):
    def interrupt(*_):
        raise KeyboardInterrupt

    shared.compare("x+1", "1+x")
    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            shared.compare(SLOW, "18")
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert shared.compare("x+1", "1+x") == (RuleVerdict.SAME, "two readings agree")


def test_threads_share_it(shared):
    found: dict[int, RuleVerdict] = {}

    def compare(number: int) -> None:
        found[number] = shared.compare(f"x+{number}", f"{number % 2 or number}+x")[0]

    threads = [threading.Thread(target=compare, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {n: RuleVerdict.SAME if n % 2 == 0 or n == 1 else RuleVerdict.DIFFERENT for n in range(1, 9)}
    assert found == expected


def test_a_process_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        FormulaProcess().compare("x", "y")


def test_what_lies_in_the_working_directory_is_no_module(tmp_path, monkeypatch):
    (tmp_path / "sympy.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    process = FormulaProcess()
    try:
        assert process.compare("x+1", "1+x")[0] is RuleVerdict.SAME
    finally:
        process.close()
