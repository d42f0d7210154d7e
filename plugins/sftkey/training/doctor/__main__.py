"""One check in this process: ``python -m sftkey.training.doctor TASK RESULT``, both JSON files."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from sftkey.training.doctor.task import Skipped, Task
from sftkey.util.files import finite, write_atomically


def main(task_file: str, result_file: str) -> None:
    """Run the check that `task_file` describes; `result_file` is written last, so a process that died leaves none."""
    task = Task(**json.loads(Path(task_file).read_text("utf-8")))
    if hasattr(signal, "alarm"):
        signal.alarm(int(task.seconds) + 10)  # should whoever waits for this process be gone
    write_atomically(Path(result_file), finite(outcome(task)))


def outcome(task: Task) -> dict[str, Any]:
    """Run a check: ``status``, ``reason`` and ``figures``."""
    module, _, function = task.function.partition(":")
    try:
        findings = getattr(import_module(f"sftkey.training.doctor.{module}"), function)(task)
    except Skipped as reason:
        return {"status": "skipped", "reason": str(reason), "figures": {}}
    except Exception as error:
        traceback.print_exc()
        return {"status": "error", "reason": _reason(error), "figures": {}}
    status = "failed" if findings.problems else "ok"
    return {"status": status, "reason": "; ".join(findings.problems) or None, "figures": findings.figures}


def _reason(error: BaseException) -> str:
    """The error on one line, with the one that it came from: libraries wrap what failed to import."""
    first = error
    while (cause := first.__cause__) is not None:
        first = cause
    return _line(error) if first is error else f"{_line(error)} (from {_line(first)})"


def _line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return f"{type(error).__name__}: {line[:500]}"


if __name__ == "__main__":
    main(*sys.argv[1:])
