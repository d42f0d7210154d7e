"""Compare formulas in bounded time and memory, from any thread.

math-verify's own time limit is a signal, which works in the main thread only and can't interrupt a long C call such as
``9**9**9``. So a process of its own compares formulas; it limits its memory, interrupts itself, and is killed if that
doesn't help.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from sftkey.evaluation.rules.limits import MAX_SECONDS, OverLimit, check_formula
from sftkey.evaluation.rules.question import Asked
from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.util.extras import needs

_GRACE = 1.1
"""Seconds beyond the process's own time limit, which is of processor time, until it is killed."""

_START = 120.0
"""Seconds that the process may take to start; most of it is importing sympy."""


class FormulaProcess:
    """Compares formulas one by one in a process that starts when it is first needed. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        self._owner = 0

    def compare(
        self, prediction: str, reference: str, asked: Asked | None = None, *, convertible: bool = False
    ) -> tuple[RuleVerdict, str]:
        """Compare two formulas; see `sftkey.evaluation.rules.formulas.compare`.

        Raises:
            OverLimit: A formula is too long or too deeply nested, or the comparison took too long or too much memory.
            RuntimeError: The process can't be started.
            MissingExtra: math-verify isn't installed.
        """
        for formula in (prediction, reference):
            check_formula(formula)
        asked = replace(asked or Asked(), nouns=())
        arguments = {"prediction": prediction, "reference": reference, "convertible": convertible}
        request = json.dumps({**arguments, "asked": asdict(asked)})
        with self._lock:
            if self._owner != os.getpid():
                # After a fork the process still belongs to the parent.
                self._process = self._errors = None
            if self._process is None or self._process.poll() is not None:
                self._start()
            reply = self._exchange(request, MAX_SECONDS + _GRACE)
        if reply is None:
            raise OverLimit("the comparison was killed: too much time or memory")
        if reply["over_limit"]:
            raise OverLimit(f"the comparison took {reply['detail']}")
        return RuleVerdict(reply["verdict"]), reply["detail"]

    def close(self) -> None:
        """End the process; a later comparison starts a new one."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        self._stop()
        needs("math_verify", "eval")  # which the process imports
        package_root = str(Path(__file__).resolve().parents[3])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH")))),
            # Thread pools reserve address space, which is limited.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: what lies in the working directory must not pass for a module.
            [sys.executable, "-P", "-m", "sftkey.evaluation.rules.formula_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        self._owner = os.getpid()
        if self._exchange(None, _START) is None:
            self._errors.seek(0)
            said = self._errors.read()[-2000:]
            self._stop()
            raise RuntimeError(f"the process that compares formulas did not start; it said: {said or '(nothing)'}")

    def _exchange(self, request: str | None, seconds: float) -> dict[str, Any] | None:
        """Send a line and wait for one; ``None`` where the process died or was killed for taking too long."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                process.stdin.write(request + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            process.kill()
            process.wait()
            return None
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            with contextlib.suppress(OSError), process:  # which closes its pipes and waits for it
                process.kill()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


FORMULAS = FormulaProcess()
"""The one that the tasks share."""

atexit.register(FORMULAS.close)
