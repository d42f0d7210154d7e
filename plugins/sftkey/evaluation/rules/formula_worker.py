"""The process that compares formulas: one JSON line in, one out. Started by `sftkey.evaluation.rules.formula_process`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from sftkey.evaluation.rules.limits import MAX_MEMORY, MAX_SECONDS
from sftkey.evaluation.verdicts import RuleVerdict


class _OutOfTime(BaseException):
    """Not an `Exception`: sympy and math-verify catch those."""


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise _OutOfTime


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not every platform has or allows it
        import resource

        # What the libraries take is there already.
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    """Answer requests until standard input ends."""
    # Replies go to a private copy of standard output, so that nothing that a library prints can pass for one.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    from sftkey.evaluation.rules import formulas
    from sftkey.evaluation.rules.question import Asked

    formulas.compare(r"\sqrt{2}+x", r"x+\sqrt{3}")  # imports and the parsers' tables, before the clock runs
    _limit_memory()
    signal.signal(signal.SIGPROF, _interrupt)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        request["asked"] = Asked(**request["asked"])
        verdict, over_limit = RuleVerdict.CANT_TELL, False
        try:
            try:
                signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
                verdict, detail = formulas.compare(**request)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except _OutOfTime:
            detail, over_limit = f"more than {MAX_SECONDS:g} s", True
        except MemoryError:
            detail, over_limit = f"more than {MAX_MEMORY >> 20} MiB", True
        except Exception as error:  # whatever SymPy and math-verify raise at what isn't a formula
            detail = f"no reading: {type(error).__name__}"
        reply = {"verdict": verdict.value, "detail": detail, "over_limit": over_limit}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
