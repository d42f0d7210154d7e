"""GSM8K: grade-school arithmetic (``openai/gsm8k``, config ``main``; 7,473 train and 1,319 test rows, MIT).

Thinking is the text before ``####`` without the calculator marks (``<<3+4=7>>``), the answer is the number after it.
"""

from __future__ import annotations

import re

from sftkey.datasets.base import NO_ANSWER, AnswerKind, ReasoningDataset, Row, SkippedRow, make_example, required_text
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm

_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
_MARKER = "####"


def question(row: Row) -> str:
    """The question; `SkippedRow` where the field is missing."""
    return required_text(row, "question").strip()


def reference(row: Row) -> str:
    """The number after ``####``; `SkippedRow` where there is no ``####``."""
    return _split(row)[1]


def to_example(row: Row) -> Example:
    """Turn a row of ``openai/gsm8k`` (``question``, ``answer``) into an `Example`.

    Raises:
        SkippedRow: A field is missing or empty, or no ``####`` introduces an answer.
    """
    thinking, answer = _split(row)
    return make_example(question(row), thinking, answer)


def _split(row: Row) -> tuple[str, str]:
    thinking, marker, answer = required_text(row, "answer").rpartition(_MARKER)
    if not marker:
        raise SkippedRow(NO_ANSWER)
    return _CALCULATOR_MARK.sub("", thinking).strip(), answer.strip()


GSM8K = ReasoningDataset(
    name="gsm8k",
    title="GSM8K",
    path="openai/gsm8k",
    config="main",
    to_example=to_example,
    question=question,
    reference=reference,
    sequence_len=1024,
    kind=AnswerKind.NUMBER,
    columns=("question", "answer"),
    untagged=UntaggedForm(between=f"\n{_MARKER} "),
)

load = GSM8K.load
