"""Multiple choice as most data sets publish it: columns ``choices`` (``label`` and ``text``) and ``answerKey``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftkey.datasets.base import EMPTY_QUESTION, NO_ANSWER, Row, SkippedRow, required_text, required_value, stripped

MALFORMED_CHOICES = "malformed choices"
KEY_NOT_AMONG_CHOICES = "answer key is none of the choices"


def choices(row: Row) -> dict[str, str]:
    """The choices of a row: letter -> text, in order; `SkippedRow` unless two or more have a letter each and a text."""
    value = required_value(row, "choices")
    if not isinstance(value, Mapping):
        raise SkippedRow(MALFORMED_CHOICES)
    letters, texts = _texts(value.get("label")), _texts(value.get("text"))
    if len(letters) != len(texts) or len(set(letters)) != len(letters) or len(letters) < 2:
        raise SkippedRow(MALFORMED_CHOICES)
    return dict(zip(letters, texts, strict=True))


def question_with_choices(row: Row, column: str) -> str:
    """The text in `column` and the lettered choices, one line each; `SkippedRow` where either is missing or malformed."""
    stem = stripped(required_text(row, column), EMPTY_QUESTION)
    return "\n".join([stem, *(_line(letter, text) for letter, text in choices(row).items())])


def right_choice(row: Row) -> str:
    """The right choice as its line in the question; `SkippedRow` where the answer key is missing or none of them."""
    letter = stripped(required_text(row, "answerKey"), NO_ANSWER)
    text = choices(row).get(letter)
    if text is None:
        raise SkippedRow(KEY_NOT_AMONG_CHOICES)
    return _line(letter, text)


def _line(letter: str, text: str) -> str:
    return f"{letter}. {text}"


def _texts(values: Any) -> list[str]:
    """The stripped texts of a list, empty unless every entry is a text that says something."""
    if not isinstance(values, (list, tuple)):
        return []
    texts = [value.strip() if isinstance(value, str) else "" for value in values]
    return texts if all(texts) else []
