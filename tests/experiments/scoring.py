"""Test items -> outputs -> records, with the project's own format, answers, equivalence and Score. Rules only, no judge."""

from __future__ import annotations

from typing import Any

from sftkey.evaluation.assess import assess
from sftkey.evaluation.generation import complete
from sftkey.evaluation.verdicts import Record, decide
from sftkey.format.methods import Method

from experiments.data import Data, test_prompts
from experiments.settings import Settings

OUTPUT_KEPT = 2_000
"""Characters of an output that are kept with its record."""


def evaluate(model: Any, tokenizer: Any, data: Data, method: Method, items: int, settings: Settings) -> list[Record]:
    """Generate for the first `items` test rows and assess the outputs.

    Args:
        model: A trained model.
        tokenizer: Its tokenizer, with the chat template of `method`.
        data: The rows.
        method: The method of the last stage: decides the prompt and the expected format.
        items: How many test rows.
        settings: The experiment.

    Returns:
        One record per item, in order: what lm-eval's sample log has for it, and ``output``, ``tokens``, ``finished``.
    """
    completions = complete(
        model,
        tokenizer,
        test_prompts(data, tokenizer, method, items),
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.generation_batch,
    )
    records = []
    for row, completion in zip(data.test[:items], completions, strict=True):
        record = decide(assess(completion.text, row, data.dataset, plain=not method.tagged))
        record |= {
            "output": completion.text[:OUTPUT_KEPT],
            "tokens": completion.tokens,
            "finished": completion.finished,
        }
        records.append(record)
    return records
