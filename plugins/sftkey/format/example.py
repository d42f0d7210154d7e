"""A training example: question, thinking and answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One training example (section 2). Nothing downstream strips or rewrites its three texts.

    Attributes:
        question: The prompt ``x``, without system message or chat markup.
        thinking: The reasoning (the chain of thought).
        answer: The final answer (the "Key").
    """

    question: str
    thinking: str
    answer: str


class SkippedRow(ValueError):
    """Raised by a data set for a row that must not be trained on.

    Args:
        reason: A short phrase of a closed set, so that rows can be counted by it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
