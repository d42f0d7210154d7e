"""OpenBookQA: elementary science, four choices (``allenai/openbookqa``; 4,957 / 500 / 500 rows, Apache-2.0).

- Question: the stem, then one line for each choice, as in ``A. wind``.
- Thinking: ``fact1``, the science fact that the question was written from. Only the config ``additional`` has it.
- Answer (the Key): the right choice as its line in the question, letter and text, as in ``A. wind``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkey.datasets.base import (
    EMPTY_QUESTION,
    NO_ANSWER,
    AnswerKind,
    ReasoningDataset,
    Row,
    SkippedRow,
    make_example,
    required_text,
    required_value,
    stripped,
)
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm

MALFORMED_CHOICES = "malformed choices"
KEY_NOT_AMONG_CHOICES = "answer key is none of the choices"


def choices(row: Row) -> dict[str, str]:
    """The choices of a row: letter -> text, in order.

    Raises:
        SkippedRow: They aren't at least two, each with its own letter and a text.
    """
    value = required_value(row, "choices")
    if not isinstance(value, Mapping):
        raise SkippedRow(MALFORMED_CHOICES)
    letters, texts = _texts(value.get("label")), _texts(value.get("text"))
    if len(letters) != len(texts) or len(set(letters)) != len(letters) or len(letters) < 2:
        raise SkippedRow(MALFORMED_CHOICES)
    return dict(zip(letters, texts, strict=True))


def question(row: Row) -> str:
    """The stem and the lettered choices, one line each.

    Raises:
        SkippedRow: The stem or the choices are missing, empty or malformed.
    """
    stem = stripped(required_text(row, "question_stem"), EMPTY_QUESTION)
    return "\n".join([stem, *(_line(letter, text) for letter, text in choices(row).items())])


def reference(row: Row) -> str:
    """The right choice: its letter and its text.

    Raises:
        SkippedRow: There is no answer key, or it is none of the choices.
    """
    letter = stripped(required_text(row, "answerKey"), NO_ANSWER)
    text = choices(row).get(letter)
    if text is None:
        raise SkippedRow(KEY_NOT_AMONG_CHOICES)
    return _line(letter, text)


def to_example(row: Row) -> Example:
    """Turn a row of ``allenai/openbookqa``, config ``additional``, into an `Example`.

    Raises:
        KeyError: The data has no such column; ``fact1`` is missing from the config ``main``.
        SkippedRow: See `question` and `reference`; or the fact is empty.
    """
    if "fact1" not in row:
        raise KeyError(
            "no column 'fact1' in the data; OpenBookQA has it in the config additional only: set name: additional"
        )
    return make_example(question(row), required_text(row, "fact1").strip(), reference(row))


def _line(letter: str, text: str) -> str:
    return f"{letter}. {text}"


def _texts(values: Any) -> list[str]:
    """The stripped texts of a list, empty unless every entry is a text that says something."""
    if not isinstance(values, (list, tuple)):
        return []
    texts = [value.strip() if isinstance(value, str) else "" for value in values]
    return texts if all(texts) else []


OPENBOOKQA = ReasoningDataset(
    name="openbookqa",
    title="OpenBookQA",
    path="allenai/openbookqa",
    config="additional",
    to_example=to_example,
    question=question,
    reference=reference,
    sequence_len=1024,
    kind=AnswerKind.OPTION,
    columns=("id", "question_stem", "choices", "answerKey"),
    options=choices,
    untagged=UntaggedForm(between="\nThe answer is "),
)

load = OPENBOOKQA.load
