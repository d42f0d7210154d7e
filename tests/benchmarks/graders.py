"""Other graders' verdicts on labelled outputs, by their public functions. Imports nothing of sftkey.

    PYTHON tests/benchmarks/graders.py lighteval < items.jsonl > verdicts.jsonl

An item has `data_set`, `output`, `reference`, and `options` where it is a choice; a verdict is true, false, or null where the
grader says that it can't tell. The first line has the versions. `bench_verdicts.py` calls this with the interpreter of an
environment that has the graders.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Grader = Callable[[dict[str, Any]], "bool | None"]


def math_verify() -> Grader:
    """`verify(parse(reference), parse(output))`, as its README says; the reference as a formula."""
    from math_verify import parse, verify

    return lambda item: verify(parse(f"${item['reference']}$"), parse(item["output"]))


def lighteval() -> Grader:
    """The metric that its tasks for such data use: numbers, formulas, letters; exact match of free text."""
    from lighteval.metrics.dynamic_metrics import MultilingualExtractiveMatchMetric
    from lighteval.metrics.metrics import Metrics
    from lighteval.metrics.utils.extractive_match_utils import ExprExtractionConfig, LatexExtractionConfig
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    formulas = MultilingualExtractiveMatchMetric(
        gold_extraction_target=(LatexExtractionConfig(), ExprExtractionConfig()),
        pred_extraction_target=(ExprExtractionConfig(), LatexExtractionConfig(boxed_match_priority=0)),
    )
    metrics = {
        "gsm8k": Metrics.expr_gold_metric.value.sample_level_fn,
        "openr1_math": formulas,
        "openbookqa": Metrics.gpqa_instruct_metric.value.sample_level_fn,
        "cot_collection": Metrics.exact_match.value.sample_level_fn,
    }

    def grade(item: dict[str, Any]) -> bool:
        choices = list(item["options"]) if item.get("options") else [item["reference"]]
        if item["data_set"] == "openr1_math":
            choices = [f"${item['reference']}$"]
        gold = choices.index(item["reference"]) if item.get("options") else 0
        doc = Doc(query="", choices=choices, gold_index=gold, task_name="cases")
        return bool(metrics[item["data_set"]].compute(doc, ModelResponse(text=[item["output"]])) > 0.5)

    return grade


def inspect_ai() -> Grader:
    """`match(numeric=True)`, `math()`, `choice()` behind its solver `multiple_choice()`, and `match()` for free text."""
    from inspect_ai.model import ChatMessageUser, ModelName, ModelOutput
    from inspect_ai.scorer import CORRECT, Target, choice, match, math
    from inspect_ai.solver import TaskState, multiple_choice

    scorers = {
        "gsm8k": match(numeric=True),
        "openr1_math": math(),
        "openbookqa": choice(),
        "cot_collection": match(),
    }
    solver = multiple_choice()

    async def grade(item: dict[str, Any]) -> bool:
        state = TaskState(
            model=ModelName("none/none"),
            sample_id=1,
            epoch=1,
            input="?",
            messages=[ChatMessageUser(content="?")],
            choices=list((item.get("options") or {}).values()),
            output=ModelOutput.from_content("none", item["output"]),
        )

        async def generate(state: TaskState, *_: Any, **__: Any) -> TaskState:
            return state

        if item.get("options"):
            state = await solver(state, generate)
        try:
            score = await scorers[item["data_set"]](state, Target(item["reference"]))
        except ValueError:  # it could not read the reference
            return None
        return score.value == CORRECT

    return lambda item: asyncio.run(grade(item))


GRADERS = {
    "math-verify": (math_verify, ("math-verify",)),
    "lighteval": (lighteval, ("lighteval", "math-verify")),
    "inspect_ai": (inspect_ai, ("inspect-ai",)),
}


def main(name: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    make, packages = GRADERS[name]
    grade = make()
    print(json.dumps({package: version(package) for package in packages}))
    for line in sys.stdin:
        item = json.loads(line)
        try:
            verdict = grade(item)
        except Exception as error:  # a grader that fails on an item gives no credit for it
            print(f"{name}: {type(error).__name__}: {error}"[:300], file=sys.stderr)
            verdict = False
        print(json.dumps(verdict if verdict is None else bool(verdict)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
