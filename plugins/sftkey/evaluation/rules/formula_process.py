"""Compare formulas in bounded time and memory, from any thread.

math-verify's own time limit is a signal, which works in the main thread only and can't interrupt a long C call such as
``9**9**9``. So a process of its own compares formulas.
"""

from __future__ import annotations

import atexit
from dataclasses import asdict, replace

from sftkey.evaluation.rules.limits import MAX_SECONDS, OverLimit, check_formula
from sftkey.evaluation.rules.question import Asked
from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.util.bounded_process import BoundedProcess
from sftkey.util.bounded_worker import OVER_LIMIT
from sftkey.util.extras import needs

_GRACE = 30.0
"""Seconds of the clock beyond the process's own limit, which is of processor time, until it is killed."""


class FormulaProcess(BoundedProcess):
    """Compares formulas one by one in a process that starts when it is first needed. Threads may share it."""

    what = "compares formulas"
    module = "sftkey.evaluation.rules.formula_worker"

    def _start(self) -> None:
        needs("math_verify", "eval")  # which the process imports
        super()._start()

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
        reply = self.ask({**arguments, "asked": asdict(asked)}, MAX_SECONDS + _GRACE)
        if reply is None:
            raise OverLimit("the comparison was killed: too much time or memory")
        if OVER_LIMIT in reply:
            raise OverLimit(f"the comparison took {reply[OVER_LIMIT]}")
        return RuleVerdict(reply["verdict"]), reply["detail"]


FORMULAS = FormulaProcess()
"""The one that the tasks share."""

atexit.register(FORMULAS.close)
