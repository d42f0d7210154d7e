"""A training example: question, thinking and answer, and the conversation before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""A message as chat templates take it: ``role``, ``content``, and perhaps ``reasoning_content`` and ``tool_calls``."""


@dataclass(frozen=True, slots=True)
class Example:
    """One training example (section 2). Nothing downstream strips or rewrites its three texts.

    Attributes:
        question: The prompt ``x``, without system message or chat markup; in a conversation the last message of the user.
        thinking: The reasoning (the chain of thought).
        answer: The final answer (the "Key").
        history: Every message before the response, the question among them; empty where that is the only one.
        tools: The tools that the conversation may use, as JSON schemas.
    """

    question: str
    thinking: str
    answer: str
    history: tuple[Message, ...] = field(default=(), hash=False)
    tools: tuple[Message, ...] = field(default=(), hash=False)

    @property
    def messages(self) -> list[Message]:
        """The messages that the response answers."""
        return messages_of(self.question, self.history)


def messages_of(question: str, history: Sequence[Message] = ()) -> list[Message]:
    """The messages of a prompt: the history, or the question alone where there is none."""
    return list(history) or [{"role": "user", "content": question}]


class SkippedRow(ValueError):
    """Raised by a data set for a row that must not be trained on.

    Args:
        reason: A short phrase of a closed set, so that rows can be counted by it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
