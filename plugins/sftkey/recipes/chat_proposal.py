"""What conversations of one's own seem to be: their column and keys, which turns are trained, what the last one answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sftkey.datasets.chat_reader import ChatReader
from sftkey.datasets.conversation import ROLES
from sftkey.datasets.first_row import first_row
from sftkey.datasets.messages import reader_of
from sftkey.datasets.registry import TYPES, naming_keys
from sftkey.datasets.think_block import has_think_tag
from sftkey.format.example import SkippedRow
from sftkey.recipes.proposal import THINKING, kind_of
from sftkey.util.text import one_line, visible

CHATS = f"{TYPES}messages"
_ROLE_KEYS = ("role", "from", "author", "speaker", "sender")


@dataclass(frozen=True)
class ChatProposal:
    """What conversations seem to be.

    Attributes:
        column: The column of the messages.
        entry: Keys of an entry of ``datasets:``, as far as their defaults don't hold.
        turns: As ``sftkey_turns``; empty where each has one turn of the assistant.
        kind: What the last turn answers, as ``sftkey_answers``.
        thinks: Whether the reasoning is a ``<think>`` block of the response, and not beside it.
    """

    column: str
    entry: Mapping[str, Any]
    turns: str
    kind: str
    thinks: bool


def propose_chat(rows: Sequence[Mapping[str, Any]], kind: str | None = None) -> ChatProposal | None:
    """Propose how conversations are read.

    Args:
        rows: The first rows.
        kind: The kind of the last turns' answers, where the user says it.

    Returns:
        ``None`` where no column holds conversations that end with an answer after reasoning.
    """
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _messages(value))
    found = [one for name in names if (one := _of_column(rows, name, kind)) is not None]
    return max(found, key=lambda one: one[0], default=(0, None))[1]


def _of_column(rows: Sequence[Mapping[str, Any]], name: str, kind: str | None) -> tuple[int, ChatProposal] | None:
    entry = _entry(name, [message for row in rows for message in _messages(row.get(name))])
    reader = reader_of(entry)
    usable = [row for row in rows if _usable(reader, row)]
    if not usable:
        return None
    every = replace(reader, turns="all")
    several = [each for row in usable if len(each := list(every.expand(row))) > 1]
    more = sum(sum(_usable(every, turn) for turn in each) > 1 for each in several)
    turns = "" if not several else "all" if more * 2 > len(several) else "last"
    kind = kind or kind_of([reader.question(row) for row in usable], [reader.reference(row) for row in usable])
    thinks = sum(has_think_tag(str(row[name][-1])) for row in usable) * 2 > len(usable)
    return len(usable), ChatProposal(name, entry, turns, kind, thinks)


def unusable(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why no conversation in the rows is trained on, in one line; ``None`` where there are none."""
    for name in rows[0] if rows else ():
        messages = [message for row in rows for message in _messages(row.get(name))]
        if not any(key in message for message in messages for key in _ROLE_KEYS):
            continue
        reader, reasons = reader_of(_entry(name, messages)), Counter[str]()
        for row in rows:
            try:
                reader.to_example(row)
            except SkippedRow as skipped:
                reasons[skipped.reason] += 1
            except KeyError:
                reasons["no such column"] += 1
        counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
        return (
            f"{one_line(visible(name))} holds conversations, and none can be trained on ({counted}): a response needs its "
            f"reasoning as reasoning_content, in a <think> block or in the paper's tags; {first_row(rows)}. A recipe with "
            f"type: {CHATS} can say more: {naming_keys(CHATS)}"
        )
    return None


def _messages(value: Any) -> list[Mapping[str, Any]]:
    """The messages that a value holds, if it is a list of nothing else."""
    listed = value if isinstance(value, (list, tuple)) else ()
    return list(listed) if all(isinstance(one, Mapping) for one in listed) else []


def _usable(reader: ChatReader, row: Mapping[str, Any]) -> bool:
    try:
        reader.to_example(row)
    except (SkippedRow, KeyError):
        return False
    return True


def _entry(name: str, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys that say what the column, the keys of a message and the roles are called, where they aren't the usual ones."""
    keys = list(dict.fromkeys(key for message in messages for key, value in message.items() if value is not None))
    role = next((key for key in _ROLE_KEYS if key in keys), None)
    entry: dict[str, Any] = {} if name == "messages" else {"field_messages": name}
    if role is None:
        return entry
    content = next((key for key in ("content", "value", "text", "message", "utterance") if key in keys), None)
    if content is not None and {"role": role, "content": content} not in (
        {"role": "role", "content": "content"},
        {"role": "from", "content": "value"},
    ):
        entry["message_property_mappings"] = {"role": role, "content": content}
    usual = ("reasoning_content", "reasoning", "thinking")
    if not set(usual) & set(keys) and (own := next((key for key in THINKING if key in keys), None)):
        entry["field_thinking"] = own
    return entry | _roles([str(message.get(role)) for message in messages])


def _roles(said: Sequence[str]) -> dict[str, Any]:
    """Of unusual names that of the assistant, or of the user, where only one is missing and only one is there."""
    unknown = list(dict.fromkeys(one for one in said if one.lower() not in ROLES))
    missing = [role for role in ("user", "assistant") if role not in {ROLES.get(one.lower()) for one in said}]
    return {"roles": {missing[0]: unknown}} if len(missing) == len(unknown) == 1 else {}
