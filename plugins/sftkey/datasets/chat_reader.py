"""Reads the turn of a chat row that is trained: its question, thinking, answer and history."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sftkey.datasets import conversation
from sftkey.datasets.base import EMPTY_QUESTION, NO_ANSWER, Row, SkippedRow, make_example, required_list, stripped
from sftkey.datasets.conversation import (
    NOT_A_MESSAGE,
    NOT_TRAINED,
    ROLES,
    TOOL_CALL_ROLES,
    TRAINING_KEYS,
    TWO_REASONINGS,
    past_message,
    text,
    tool_calls,
)
from sftkey.datasets.think_block import NO_THINK_BLOCK, has_think_tag, split_reasoning
from sftkey.format.example import Example

LOG = logging.getLogger(__name__)

NO_MESSAGES = "no messages"
MANY_MESSAGES = "more than 1,000 messages"
TOOL_CALLS = "tool calls"
NO_RESPONSE = "last message is not the assistant's"
NO_USER_MESSAGE = "no user message before the response"

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Where the reasoning of a message is published: DeepSeek and Qwen, OpenRouter, gpt-oss."""

TURNS = ("last", "all")
"""The values of ``sftkey_turns``."""

_MAX_MESSAGES = 1_000


@dataclass(frozen=True, slots=True)
class ChatReader:
    """Reads the question, the thinking, the answer and the history of a chat row.

    Attributes:
        messages: The column with the messages.
        thinking: The key of a message's reasoning; ``None`` for `REASONING_KEYS`.
        role: The key of a message's role; ``None`` for ``role``, or ``from`` where there is none.
        content: The key of a message's text; ``None`` for ``content``, or ``value`` where there is none.
        training: The key of a message that says whether it is trained; ``None`` for `TRAINING_KEYS`.
        roles: Names of roles in the data -> one of `TARGET_ROLES`, beside the usual ones.
        tools: The column with the tools.
        system: The column with a system message, where the messages have none.
        keeps_system: Whether system messages are part of the history.
        turns: Which turns are trained: one of `TURNS`.
    """

    messages: str = "messages"
    thinking: str | None = None
    role: str | None = None
    content: str | None = None
    training: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    tools: str = "tools"
    system: str = "system"
    keeps_system: bool = True
    turns: str = "last"

    def expand(self, row: Row) -> Iterator[Row]:
        """The rows that a conversation stands for: itself, or with ``turns: all`` one up to each turn of the assistant."""
        messages: Any = row.get(self.messages)
        try:
            if self.turns == "last" or not isinstance(messages, (list, tuple)) or len(messages) > _MAX_MESSAGES:
                raise SkippedRow(NO_MESSAGES)
            ends = [end for end, message in enumerate(messages, 1) if self._role(message) == "assistant"]
        except SkippedRow:
            ends = []
        if not ends:
            yield row  # for itself, or for the reason why it is skipped
        for end in ends:
            yield {**row, self.messages: messages[:end]}

    def question(self, row: Row) -> str:
        """The last message of the user; raises like `to_example`."""
        messages, roles = self._turn(row)
        last = len(roles) - 1 - roles[::-1].index("user")
        return stripped(text(self._content(messages[last])), EMPTY_QUESTION)

    def reference(self, row: Row) -> str:
        """The response without its reasoning, if any; raises like `to_example`."""
        content = text(self._content(self._turn(row)[0][-1]))
        block = split_reasoning(content)
        return stripped(content if block is None else block[1], NO_ANSWER)

    def history(self, row: Row) -> tuple[dict[str, Any], ...]:
        """The messages before the response; empty where that is the user's alone. Raises like `to_example`."""
        messages, roles = self._turn(row)
        kept = [self._past(message, role) for message, role in zip(messages[:-1], roles, strict=False)]
        alone = row.get(self.system)
        if roles[0] != "system" and isinstance(alone, str) and alone.strip():
            kept.insert(0, {"role": "system", "content": alone})
        if not self.keeps_system:
            kept = [message for message in kept if message["role"] != "system"]
        elif kept[0]["role"] == "system":
            _warn_of_system_message()
        return () if [message["role"] for message in kept] == ["user"] and not self.tools_of(row) else tuple(kept)

    def tools_of(self, row: Row) -> tuple[dict[str, Any], ...]:
        """The tools of a row; raises like `to_example`."""
        return conversation.tools(row.get(self.tools))

    def first_question(self, row: Row) -> str:
        """The first message of the user, which all turns of a conversation share; raises like `to_example`."""
        messages, roles = self._turn(row)
        return text(self._content(messages[roles.index("user")]))

    def to_example(self, row: Row) -> Example:
        """Turn a chat row into an `Example` of its last turn.

        Raises:
            KeyError: The data has no such column.
            SkippedRow: There is no such turn, it or a message before it isn't text, a text is empty, or the reasoning is
                missing, in two places, or not one block at the start of the response.
        """
        messages, _ = self._turn(row)
        response = messages[-1]
        if response.get("tool_calls") or response.get("function_call") or self._is_call(response):
            raise SkippedRow(TOOL_CALLS)
        content = self._content(response)
        keys = (self.training,) if self.training else TRAINING_KEYS
        if not conversation.is_trained(response, keys, content):
            raise SkippedRow(NOT_TRAINED)
        thinking, answer = self._reasoning(response), text(content)
        if thinking:
            if has_think_tag(answer):
                raise SkippedRow(TWO_REASONINGS)
        else:
            block = split_reasoning(answer)
            if block is None:
                raise SkippedRow(NO_THINK_BLOCK)
            thinking = block[0]
        return make_example(self.question(row), thinking, self.reference(row), self.history(row), self.tools_of(row))

    def _past(self, message: Mapping[str, Any], role: str) -> dict[str, Any]:
        content = self._content(message)
        if self._is_call(message):
            return past_message({**message, "tool_calls": tool_calls(content)}, role, "", self._reasoning(message))
        return past_message(message, role, content, self._reasoning(message))

    def _reasoning(self, message: Mapping[str, Any]) -> str:
        named = REASONING_KEYS if self.thinking is None else (self.thinking,)
        return conversation.reasoning(message, [key for key in named if key != self.content])

    def _content(self, message: Mapping[str, Any]) -> Any:
        return message.get(_key(message, self.content, "content", "value"))

    def _is_call(self, message: Mapping[str, Any]) -> bool:
        role = str(message.get(_key(message, self.role, "role", "from")))
        return role.lower() in TOOL_CALL_ROLES and role not in self.roles

    def _turn(self, row: Row) -> tuple[Sequence[Mapping[str, Any]], list[str]]:
        """The messages up to the response, and their roles."""
        messages = required_list(row, self.messages)
        if not messages:
            raise SkippedRow(NO_MESSAGES)
        if len(messages) > _MAX_MESSAGES:
            raise SkippedRow(MANY_MESSAGES)
        roles = [self._role(message) for message in messages]
        if roles[-1] != "assistant":
            raise SkippedRow(NO_RESPONSE)
        if "user" not in roles:
            raise SkippedRow(NO_USER_MESSAGE)
        return messages, roles

    def _role(self, message: Any) -> str:
        if not isinstance(message, Mapping):
            raise SkippedRow(NOT_A_MESSAGE)
        role = message.get(_key(message, self.role, "role", "from"))
        if not isinstance(role, str):
            raise SkippedRow(NOT_A_MESSAGE)
        calls = message.get("tool_calls") or message.get("function_call")
        if _key(message, self.content, "content", "value") not in message and not calls:
            raise SkippedRow(NOT_A_MESSAGE)
        known = self.roles.get(role) or ROLES.get(role.lower())
        if known is None:
            raise SkippedRow("unknown role")
        return known


def _key(message: Mapping[str, Any], named: str | None, usual: str, other: str) -> str:
    """The key that is named, or the usual one, or ShareGPT's where the message has that alone."""
    return named or (other if message.get(usual) is None and message.get(other) is not None else usual)


@cache
def _warn_of_system_message() -> None:
    """Say once per process what system messages do."""
    LOG.warning(
        "the data has system messages; each takes the place of the recipe's own prompt in its row, as a request's does when "
        "the model is served (drop_system_message: true in the entry leaves them out)"
    )
