"""Assesses one output against its row: the format, the answer, and what the rules say about it."""

from __future__ import annotations

from typing import Any

from sftkey.datasets.base import ReasoningDataset, Row
from sftkey.evaluation.rules.answers import extract
from sftkey.evaluation.rules.equivalence import compare
from sftkey.evaluation.verdicts import Item, RuleVerdict
from sftkey.format import tags, untagged


def assess(output: Any, row: Row, on: ReasoningDataset, *, plain: bool) -> Item:
    """Look at one output: its format, its answer, and what the rules say about it. The judge comes later.

    Args:
        output: What the model wrote; anything but a text counts as no output.
        row: The row that was asked.
        on: The data set that the row is from.
        plain: Whether the expected format is the data set's own untagged form instead of the tags.

    Returns:
        The item. Bounded in time and memory whatever the output is.
    """
    text = output if isinstance(output, str) else ""
    reference = on.reference_of(row)
    form = on.untagged
    if plain:
        parsed = untagged.parse(text, form, one_line="\n" not in reference)
        thinking_valid = untagged.has_thinking(text, form)
    else:
        parsed = tags.parse(text)
        thinking_valid = tags.has_thinking(text)
    options = on.options(row) if on.options is not None else None
    extraction = extract(text, on.kind, form, options)
    verdict, detail, over_limit = RuleVerdict.DIFFERENT, "no answer in the output", False
    if extraction.text is not None:
        comparison = compare(extraction.text, reference, on.kind, options)
        verdict, detail, over_limit = comparison.verdict, comparison.detail, comparison.over_limit
    return Item(
        question=on.question_of(row),
        reference=reference,
        extracted=extraction.text,
        extraction=extraction.rule,
        rule_verdict=verdict,
        rule_detail=detail,
        over_limit=over_limit,
        format_failure=parsed.failure,
        thinking_valid=thinking_valid,
    )
