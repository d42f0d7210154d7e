"""Assesses one output against its row: the format, the answer, and what the rules say about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftkey.datasets.base import ReasoningDataset, Row
from sftkey.evaluation.rules.equivalence import Comparison, compare
from sftkey.evaluation.rules.reading import read, read_thinking
from sftkey.evaluation.verdicts import Item, RuleVerdict
from sftkey.format import untagged
from sftkey.format.formats import FORMATS, THINKING_ANSWER
from sftkey.format.response_format import ResponseFormat


def assess(
    output: Any,
    row: Row,
    on: ReasoningDataset,
    *,
    plain: bool,
    response_format: ResponseFormat = THINKING_ANSWER,
    opened: str = "",
) -> Item:
    """Look at one output: its format, its answer, and what the rules say about it. The judge comes later.

    Args:
        output: What the model wrote; anything but a text counts as no output.
        row: The row that was asked.
        on: The data set that the row is from.
        plain: Whether the expected format is the data set's own untagged form instead of the tags.
        response_format: The expected format where it isn't plain.
        opened: What the prompt held of the response already.

    Returns:
        The item. Bounded in time and memory whatever the output is.
    """
    text = opened + output if isinstance(output, str) else ""
    reference = on.reference_of(row)
    form = on.untagged
    if plain:
        parsed = untagged.parse(text, form, one_line="\n" not in reference)
        thinking_valid = untagged.has_thinking(text, form)
        thinking = parsed.thinking
    else:
        parsed = response_format.parse(text)
        thinking_valid = response_format.has_thinking(text)
        thinking = response_format.thinking_in(text)
    options = on.options(row) if on.options is not None else None
    question = on.question_of(row)
    if response_format.name not in FORMATS:
        text = response_format.rewritten(text, THINKING_ANSWER)
    reading = read(text, on.kind, form, options)
    unfinished = None
    if reading.shown:
        decided = agreed([compare(one, reference, on.kind, options, question) for one in reading.candidates])
    else:
        decided = Comparison(RuleVerdict.DIFFERENT, "no answer in the output")
        thought = read_thinking(reading.unfinished, on.kind, form, options)
        unfinished = agreed([compare(one, reference, on.kind, options, question) for one in thought]).verdict
    return Item(
        question=question,
        reference=reference,
        extracted=reading.candidates[-1] if reading.candidates else None,
        extraction=reading.rule,
        rule_verdict=decided.verdict,
        rule_detail=decided.detail,
        over_limit=decided.over_limit,
        format_failure=parsed.failure,
        thinking_valid=thinking_valid,
        shown_to_judge="" if reading.shown in reading.candidates[-1:] else reading.shown,
        unfinished_verdict=unfinished,
        thinking_right=on.thinking_right(row, thinking or "") if on.thinking_right is not None else None,
    )


def agreed(comparisons: Sequence[Comparison]) -> Comparison:
    """The verdict on the likeliest candidate, the last one, where that on no other one contradicts it; else can't tell."""
    if not comparisons:
        return Comparison(RuleVerdict.CANT_TELL, "no answer found")
    last = comparisons[-1]
    if len({one.verdict for one in comparisons} - {RuleVerdict.CANT_TELL}) < 2:
        return last
    over_limit = any(one.over_limit for one in comparisons)
    return Comparison(RuleVerdict.CANT_TELL, "the output can be read in several ways", over_limit)
