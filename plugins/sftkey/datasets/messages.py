"""Chat data with reasoning: rows with ``messages``, the form in which most reasoning data is published.

Conversations of one turn are used: a user message and the assistant's response, perhaps after a system message. Longer
conversations and tool calls are skipped and counted. A system message is left out, with one warning, because training and
evaluation use the recipe's own prompt.

- Question: the user's message.
- Thinking: the response's ``reasoning_content``, ``reasoning`` or ``thinking``, or else the ``<think>`` block at the start of
  its ``content``.
- Answer (the Key): the rest of ``content``.

A ``content`` that is a list of parts, as in ``[{type: text, text: ...}]``, is the text of its parts. Axolotl's own keys
name other columns, fields and roles, and the field that says whether a response is trained::

    datasets:
      - path: my_chats.jsonl
        type: sftkey.datasets.messages
        field_messages: conversations                       # default: messages
        field_thinking: cot                                 # default: the three above
        message_property_mappings: {role: from, content: value}
        roles: {user: [question], assistant: [bot]}         # beside the usual names
        message_field_training: train                       # false: the row is skipped and counted

The untagged form is the published one: ``<think>``, thinking, ``</think>``, answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sftkey.datasets.base import (
    EMPTY_QUESTION,
    NO_ANSWER,
    ReasoningDataset,
    Row,
    SkippedRow,
    make_example,
    required_list,
    stripped,
)
from sftkey.datasets.think_block import NO_THINK_BLOCK, THINK_CLOSE, THINK_OPEN, has_think_tag, split_think_block
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm
from sftkey.util.errors import UserError

LOG = logging.getLogger(__name__)

NO_MESSAGES = "no messages"
NOT_A_MESSAGE = "a message without role or content"
MANY_TURNS = "more than one turn"
TOOL_CALLS = "tool calls"
NO_RESPONSE = "last message is not the assistant's"
NO_USER_MESSAGE = "no user message before the response"
TWO_REASONINGS = "reasoning in two places"
NOT_TRAINED = "response not to be trained"

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Where the reasoning of a message is published: DeepSeek and Qwen, OpenRouter, gpt-oss."""

TARGET_ROLES = ("system", "user", "assistant", "tool")

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "ipython"), "tool"),
}


@dataclass(frozen=True, slots=True)
class ChatReader:
    """Reads the question, the thinking and the answer of a chat row.

    Attributes:
        messages: The column with the messages.
        thinking: The key of a message's reasoning; ``None`` for `REASONING_KEYS`.
        role: The key of a message's role.
        content: The key of a message's text.
        training: The key of a message that says whether it is trained; ``None`` where all are.
        roles: Names of roles in the data -> one of `TARGET_ROLES`, beside the usual ones.
    """

    messages: str = "messages"
    thinking: str | None = None
    role: str = "role"
    content: str = "content"
    training: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)

    def question(self, row: Row) -> str:
        """The user's message; raises like `to_example`."""
        user, _ = self._turn(row)
        return stripped(_text(user[self.content]), EMPTY_QUESTION)

    def reference(self, row: Row) -> str:
        """The response without its reasoning, if any; raises like `to_example`."""
        _, assistant = self._turn(row)
        content = _text(assistant[self.content])
        block = split_think_block(content)
        return stripped(content if block is None else block[1], NO_ANSWER)

    def to_example(self, row: Row) -> Example:
        """Turn a chat row into an `Example`.

        Raises:
            KeyError: The data has no such column.
            SkippedRow: The row is not one turn, a text is empty, or the reasoning is missing, in two places, or not one
                block at the start of the response.
        """
        _, assistant = self._turn(row)
        if not self._is_trained(assistant):
            raise SkippedRow(NOT_TRAINED)
        thinking, content = self._reasoning(assistant), _text(assistant[self.content])
        if thinking.strip():
            if has_think_tag(content):
                raise SkippedRow(TWO_REASONINGS)
        else:
            block = split_think_block(content)
            if block is None:
                raise SkippedRow(NO_THINK_BLOCK)
            thinking = block[0]
        return make_example(self.question(row), thinking.strip(), self.reference(row))

    def _is_trained(self, message: Mapping[str, Any]) -> bool:
        flag = message.get(self.training) if self.training else None
        if flag not in (None, 0, 1):
            raise SkippedRow(f"not true or false: {self.training}")
        return flag is None or bool(flag)

    def _reasoning(self, message: Mapping[str, Any]) -> str:
        keys = REASONING_KEYS if self.thinking is None else (self.thinking,)
        found = {text.strip() for text in (_text(message.get(key)) for key in keys if key != self.content)} - {""}
        if len(found) > 1:
            raise SkippedRow(TWO_REASONINGS)
        return found.pop() if found else ""

    def _turn(self, row: Row) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The user's message and the response of a row that holds nothing else but a system message."""
        messages = required_list(row, self.messages)
        if not messages:
            raise SkippedRow(NO_MESSAGES)
        roles = [self._role(message) for message in messages]
        if "tool" in roles or any(message.get("tool_calls") for message in messages):
            raise SkippedRow(TOOL_CALLS)
        if roles[-1] != "assistant":
            raise SkippedRow(NO_RESPONSE)
        if roles[0] == "system":
            _warn_of_system_message()
            messages, roles = messages[1:], roles[1:]
        if roles == ["assistant"]:
            raise SkippedRow(NO_USER_MESSAGE)
        if roles != ["user", "assistant"]:
            raise SkippedRow(MANY_TURNS)
        return messages[0], messages[1]

    def _role(self, message: Any) -> str:
        if not isinstance(message, Mapping) or self.content not in message:
            raise SkippedRow(NOT_A_MESSAGE)
        role = message.get(self.role)
        if not isinstance(role, str):
            raise SkippedRow(NOT_A_MESSAGE)
        known = self.roles.get(role) or _ROLES.get(role.lower())
        if known is None:
            raise SkippedRow("unknown role")
        return known


@cache
def _warn_of_system_message() -> None:
    """Say once per process that system messages are left out."""
    LOG.warning(
        "the data has system messages; they are left out, because training and evaluation use the recipe's own prompt "
        "(with a tagged method, default_system_message: in the recipe sets another one)"
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return "".join(map(_part, parts))


def _part(part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        part = part.get("text")
    if not isinstance(part, str):
        raise SkippedRow("not text: content")
    return part


def with_reader(reader: ChatReader) -> ReasoningDataset:
    """The data set of chat rows as `reader` reads them."""
    return ReasoningDataset(
        name="messages",
        path=None,
        to_example=reader.to_example,
        question=reader.question,
        reference=reader.reference,
        untagged=UntaggedForm(before=f"{THINK_OPEN}\n", between=f"\n{THINK_CLOSE}\n\n"),
    )


def reader_of(ds_cfg: Mapping[str, Any]) -> ChatReader:
    """The reader for an entry of ``datasets:``.

    Raises:
        UserError: ``message_property_mappings`` names something else than ``role`` and ``content``, or ``roles`` is not
            lists of names for `TARGET_ROLES`.
    """
    named = {part: ds_cfg.get(f"message_field_{part}") for part in ("role", "content")}  # their old names
    mappings = dict(ds_cfg.get("message_property_mappings") or {})
    unknown = sorted(set(mappings) - set(named))
    if unknown:
        raise UserError(
            f"message_property_mappings: {', '.join(unknown)} unknown; its keys are role and content "
            "(the key of the reasoning is field_thinking)"
        )
    named |= {
        "messages": ds_cfg.get("field_messages"),
        "thinking": ds_cfg.get("field_thinking"),
        "training": ds_cfg.get("message_field_training"),
        **mappings,
    }
    return ChatReader(**{part: str(name) for part, name in named.items() if name}, roles=_roles(ds_cfg.get("roles")))


def _roles(given: Any) -> dict[str, str]:
    if not given:
        return {}
    shape = "it maps system, user, assistant or tool to lists of names in the data, such as {user: [human]}"
    if not isinstance(given, Mapping) or set(given) - set(TARGET_ROLES):
        raise UserError(f"roles: {given!r}; {shape}")
    roles: dict[str, str] = {}
    for target, names in given.items():
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise UserError(f"roles: {target}: {names!r}; {shape}")
        for name in names:
            if roles.setdefault(name, target) != target:
                raise UserError(f"roles: {name!r} is both {roles[name]} and {target}; keep one")
    return roles


MESSAGES = with_reader(ChatReader())


def load(tokenizer: Any, cfg: Any, ds_cfg: Any) -> Any:
    """Load an entry of ``datasets:``; see `ReasoningDataset.load`."""
    return with_reader(reader_of(ds_cfg)).load(tokenizer, cfg, ds_cfg)
