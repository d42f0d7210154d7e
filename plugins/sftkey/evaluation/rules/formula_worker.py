"""The process that compares formulas; started by `sftkey.evaluation.rules.formula_process`."""

from __future__ import annotations

from typing import Any

from sftkey.evaluation.rules.limits import MAX_MEMORY, MAX_SECONDS
from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.util.bounded_worker import Answer, serve


def _load() -> Answer:
    from sftkey.evaluation.rules import formulas
    from sftkey.evaluation.rules.question import Asked

    formulas.compare(r"\sqrt{2}+x", r"x+\sqrt{3}")  # imports and the parsers' tables, before the clock runs

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        request["asked"] = Asked(**request["asked"])
        try:
            verdict, detail = formulas.compare(**request)
        except MemoryError:
            raise
        except Exception as error:  # whatever SymPy and math-verify raise at what isn't a formula
            return {"verdict": RuleVerdict.CANT_TELL.value, "detail": f"no reading: {type(error).__name__}"}
        return {"verdict": verdict.value, "detail": detail}

    return answer


if __name__ == "__main__":
    serve(_load, seconds=MAX_SECONDS, memory=MAX_MEMORY)
