"""Chat data with reasoning: rows with ``messages``, the form in which most reasoning data is published.

- Answer (the Key): the ``content`` of the assistant's turn that is trained, without its reasoning.
- Thinking: its ``reasoning_content``, ``reasoning`` or ``thinking``, or else the ``<think>`` block at the start of its
  ``content``; or the paper's tags in it.
- History: every message before it, rendered by the recipe's chat template: system messages, earlier turns, tool calls and
  their results, with the ``tools`` of the row. Reasoning of an earlier turn is ``reasoning_content`` beside its
  ``content``; whether it's kept or cut is the template's, as it is when a server renders the same messages.
- Question: the last message of the user in it.

``sftkey_turns`` in the recipe or the entry says which turn: ``last`` (default), or ``all``: every turn of the assistant by
itself, each after its own history. A turn without reasoning, one that calls a tool and one that is flagged as not trained
are part of later turns' history, and skipped and counted as turns.

A ``content`` that is a list of parts, as in ``[{type: text, text: ...}]``, is the text of its parts. Axolotl's own keys
name other columns, fields and roles, and the field that says whether a response is trained::

    datasets:
      - path: my_chats.jsonl
        type: sftkey.datasets.messages
        field_messages: conversations                       # default: messages
        field_tools: functions                              # default: tools
        field_thinking: cot                                 # default: the three above
        message_property_mappings: {role: from, content: value}   # default: these, where a message has no role
        roles: {user: [question], assistant: [bot]}         # beside the usual names
        message_field_training: keep                        # default: train, training, weight and loss
        drop_system_message: true                           # default: kept

The untagged form is the published one: ``<think>``, thinking, ``</think>``, answer.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from sftkey.datasets.base import ReasoningDataset
from sftkey.datasets.chat_reader import REASONING_KEYS, TURNS, ChatReader
from sftkey.datasets.conversation import TARGET_ROLES
from sftkey.datasets.think_block import THINK_CLOSE, THINK_OPEN
from sftkey.format.untagged import UntaggedForm
from sftkey.util.errors import UserError

__all__ = ["MESSAGES", "REASONING_KEYS", "ChatReader", "keys_of", "load", "reader_of", "with_reader"]

_FIELDS = {
    "messages": "field_messages",
    "thinking": "field_thinking",
    "tools": "field_tools",
    "training": "message_field_training",
    "role": "message_field_role",
    "content": "message_field_content",
}
"""What of a `ChatReader` an entry names by which key."""

_AXOLOTLS = {"role": "role", "content": "content"}
"""What Axolotl writes into an entry that names neither."""


def with_reader(reader: ChatReader) -> ReasoningDataset:
    """The data set of chat rows as `reader` reads them."""
    return ReasoningDataset(
        name="messages",
        path=None,
        to_example=reader.to_example,
        question=reader.question,
        reference=reader.reference,
        history=reader.history,
        tools=reader.tools_of,
        expand=reader.expand,
        problem=reader.first_question,
        untagged=UntaggedForm(before=f"{THINK_OPEN}\n", between=f"\n{THINK_CLOSE}\n\n"),
    )


def reader_of(ds_cfg: Mapping[str, Any], turns: Any = None) -> ChatReader:
    """The reader for an entry of ``datasets:``.

    Args:
        ds_cfg: The entry.
        turns: The recipe's ``sftkey_turns``, where the entry has none.

    Raises:
        UserError: ``message_property_mappings`` names something else than ``role`` and ``content``, ``roles`` is not
            lists of names for `TARGET_ROLES`, ``sftkey_turns`` is not one of `TURNS`, or a key isn't of its type.
    """
    given = ds_cfg.get("message_property_mappings") or {}
    if not isinstance(given, Mapping):
        raise UserError(
            f"message_property_mappings: {reprlib.repr(given)} is not a mapping such as {{role: from, content: value}}"
        )
    mappings = dict(given)
    turns = mappings.pop("sftkey_turns", None) or ds_cfg.get("sftkey_turns") or turns or TURNS[0]
    if turns not in TURNS:
        raise UserError(f"sftkey_turns: {reprlib.repr(turns)} is not one of {', '.join(TURNS)}")
    if mappings == _AXOLOTLS:
        mappings = {}
    unknown = sorted(map(str, set(mappings) - set(_AXOLOTLS)))
    if unknown:
        raise UserError(
            f"message_property_mappings: {', '.join(unknown)} unknown; its keys are role and content "
            "(the key of the reasoning is field_thinking)"
        )
    named = {part: ds_cfg.get(key) for part, key in _FIELDS.items()} | mappings
    for part, name in named.items():
        if name and not isinstance(name, str):
            key = f"message_property_mappings: {part}" if part in mappings else _FIELDS[part]
            raise UserError(f"{key}: {reprlib.repr(name)} is not a text")
    drops = ds_cfg.get("drop_system_message")
    if drops not in (None, False, True):
        raise UserError(f"drop_system_message: {reprlib.repr(drops)} is not true or false")
    return ChatReader(
        **{part: name for part, name in named.items() if name},
        roles=_roles(ds_cfg.get("roles")),
        keeps_system=not drops,
        turns=str(turns),
    )


def keys_of(reader: ChatReader) -> dict[str, Any]:
    """What an entry and its recipe say of a reader, by their keys."""
    named = {key: getattr(reader, part) for part, key in _FIELDS.items()}
    return named | {
        "roles": dict(reader.roles),
        "drop_system_message": not reader.keeps_system,
        "sftkey_turns": reader.turns,
    }


def _roles(given: Any) -> dict[str, str]:
    if not given:
        return {}
    shape = "it maps system, user, assistant or tool to lists of names in the data, such as {user: [human]}"
    if not isinstance(given, Mapping) or set(given) - set(TARGET_ROLES):
        raise UserError(f"roles: {reprlib.repr(given)}; {shape}")
    roles: dict[str, str] = {}
    for target, names in given.items():
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise UserError(f"roles: {target}: {reprlib.repr(names)}; {shape}")
        for name in names:
            if roles.setdefault(name, target) != target:
                raise UserError(f"roles: {reprlib.repr(name)} is both {roles[name]} and {target}; keep one")
    return roles


MESSAGES = with_reader(ChatReader())


def load(tokenizer: Any, cfg: Any, ds_cfg: Any) -> Any:
    """Load an entry of ``datasets:``; see `ReasoningDataset.load`."""
    return with_reader(reader_of(ds_cfg, cfg.sftkey_turns)).load(tokenizer, cfg, ds_cfg)
