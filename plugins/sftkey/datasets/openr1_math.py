r"""OpenR1-Math-220k: competition maths with DeepSeek-R1 traces (``open-r1/OpenR1-Math-220k``, Apache-2.0).

Config ``default`` has 93,733 rows, ``extended`` 131,396. There is only a ``train`` split, so `sftkey.datasets.holdout`
holds out a fixed part of it, about 940 rows of ``default``, for evaluation.

- Question: ``problem``.
- Answer (the Key): the reference ``answer``. NuminaMath 1.5, which the problems are from, writes ``proof`` or
  ``notfound`` where there is none to compare with; such rows are skipped.
- Thinking: the content of the shortest ``<think>`` block, in characters, of the ``generations`` with both
  ``correctness_math_verify`` and ``is_reasoning_complete`` true; the first of equally short ones. A missing flag is not
  true, so rows that only another judge (``correctness_llama``) accepted are skipped. The write-up after ``</think>``
  repeats the thinking and is left out.
"""

from __future__ import annotations

from functools import partial

from sftkey.datasets.base import (
    EMPTY_QUESTION,
    NO_ANSWER,
    AnswerKind,
    ReasoningDataset,
    Row,
    SkippedRow,
    make_example,
    required_list,
    required_text,
    stripped,
)
from sftkey.datasets.holdout import row_is_held_out
from sftkey.datasets.think_block import NO_THINK_BLOCK, split_think_block
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm

HELD_OUT_SHARE = 0.01
"""The share of problems that are evaluated instead of trained on."""

NO_CORRECT_GENERATION = "no correct and complete generation"

_NO_REFERENCE = frozenset({"proof", "notfound"})


def question(row: Row) -> str:
    """The problem; `SkippedRow` where there is none."""
    return stripped(required_text(row, "problem"), EMPTY_QUESTION)


def reference(row: Row) -> str:
    """The reference answer, LaTeX as published; `SkippedRow` where there is none."""
    answer = stripped(required_text(row, "answer"), NO_ANSWER)
    if answer.lower() in _NO_REFERENCE:
        raise SkippedRow(NO_ANSWER)
    return answer


def thinking(row: Row) -> str:
    """The thinking of the chosen generation, empty where every block is.

    Raises:
        SkippedRow: A column is not a list, no generation is correct and complete, or none of those has a think block.
    """
    generations = required_list(row, "generations")
    correct = required_list(row, "correctness_math_verify")
    complete = required_list(row, "is_reasoning_complete")
    chosen = [
        text
        for text, is_correct, is_complete in zip(generations, correct, complete, strict=False)
        if isinstance(text, str) and is_correct is True and is_complete is True
    ]
    if not chosen:
        raise SkippedRow(NO_CORRECT_GENERATION)
    blocks = [block[0] for block in map(split_think_block, chosen) if block is not None]
    if not blocks:
        raise SkippedRow(NO_THINK_BLOCK)
    return min(filter(None, blocks), key=len, default="")


def to_example(row: Row) -> Example:
    """Turn a row of ``open-r1/OpenR1-Math-220k`` into an `Example`.

    Raises:
        KeyError: The data has no such column.
        SkippedRow: See `question`, `reference` and `thinking`.
    """
    return make_example(question(row), thinking(row), reference(row))


OPENR1_MATH = ReasoningDataset(
    name="openr1_math",
    title="OpenR1-Math-220k",
    path="open-r1/OpenR1-Math-220k",
    config="default",
    test_split=None,
    to_example=to_example,
    question=question,
    reference=reference,
    held_out=partial(row_is_held_out, question=question, share=HELD_OUT_SHARE),
    sequence_len=16384,  # its traces were generated up to 16k tokens
    response_len=8192,
    kind=AnswerKind.MATHS,
    columns=("problem", "answer", "problem_type", "source", "uuid"),
    untagged=UntaggedForm(between="\n\nThe final answer is \\boxed{", after="}"),
)

load = OPENR1_MATH.load
