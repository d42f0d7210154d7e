"""The messages of a chat row as chat templates take them: roles, texts, reasoning, tool calls, tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sftkey.datasets.think_block import split_reasoning
from sftkey.format.example import SkippedRow

NOT_A_MESSAGE = "a message without role or content"
TWO_REASONINGS = "reasoning in two places"
NOT_TRAINED = "response not to be trained"
BAD_TOOL_CALLS = "tool calls of another form"
BAD_TOOLS = "tools of another form"
DEEPLY_NESTED = "deeply nested tools or tool calls"

TARGET_ROLES = ("system", "user", "assistant", "tool")

TOOL_CALL_ROLES = ("tool_call", "tool_calls", "function_call")
"""Roles of a message whose content is a call, or a list of calls, as JSON: ms-swift's and LLaMA-Factory's."""

ROLES: Mapping[str, str] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", *TOOL_CALL_ROLES), "assistant"),
    **dict.fromkeys(("tool", "function", "ipython", "observation", "tool_response", "tool_result"), "tool"),
}
"""The usual names of roles -> one of `TARGET_ROLES`."""

TRAINING_KEYS = ("train", "training", "weight", "loss")
"""Flags of a message that say whether it is trained: Axolotl's, OpenAI's ``weight``, ms-swift's ``loss``."""

PART_FLAGS = ("train", "weight")
"""The same of a part of a content, as Axolotl reads them."""

MAX_DEPTH = 50
"""Of tools and tool calls, in lists and mappings."""


def text(value: Any) -> str:
    """A content as text; that of a list of parts is the text of all of them.

    Raises:
        SkippedRow: A part is no text, such as an image.
    """
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


def is_trained(message: Mapping[str, Any], keys: Sequence[str], content: Any) -> bool:
    """Whether the flags of a message, and those of the parts of its content, leave all of it to be trained.

    Args:
        message: The message.
        keys: The names of its flags.
        content: Its content.

    Raises:
        SkippedRow: A flag is neither true nor false, or only some parts are trained.
    """
    if not all(_flag(message, key) for key in keys):
        return False
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, (list, tuple)) else []
    flags = {all(_flag(part, key) for key in PART_FLAGS) for part in parts}
    if len(flags) > 1:
        raise SkippedRow("a part of the response not to be trained")
    return False not in flags


def _flag(message: Mapping[str, Any], key: str) -> bool:
    flag = message.get(key)
    if flag not in (None, 0, 1):
        raise SkippedRow(f"not true or false: {key}")
    return flag is None or bool(flag)


def reasoning(message: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The reasoning beside the content of a message; empty where there is none.

    Raises:
        SkippedRow: There are two different ones.
    """
    found = {text(message.get(key)).strip() for key in keys} - {""}
    if len(found) > 1:
        raise SkippedRow(TWO_REASONINGS)
    return found.pop() if found else ""


def past_message(message: Mapping[str, Any], role: str, content: Any, thought: str) -> dict[str, Any]:
    """A message of the history, as a chat template takes it.

    An assistant's reasoning is ``reasoning_content``, whether it stands beside the content or in a think block at its
    beginning: the template keeps it or cuts it.

    Args:
        message: The message.
        role: Its role, one of `TARGET_ROLES`.
        content: Its content.
        thought: The reasoning beside it.
    """
    taken: dict[str, Any] = {"role": role, "content": text(content)}
    if role == "assistant":
        block = None if thought else split_reasoning(taken["content"])
        if block is not None and block[0]:
            thought, taken["content"] = block
        if thought:
            taken["reasoning_content"] = thought
        if calls := tool_calls(message.get("tool_calls") or message.get("function_call")):
            taken["tool_calls"] = calls
    return taken | {key: message[key] for key in ("name", "tool_call_id") if isinstance(message.get(key), str)}


def tool_calls(value: Any) -> list[dict[str, Any]]:
    """The calls of a message, or its JSON text, each as ``{type, function: {name, arguments}}`` with its other keys.

    Raises:
        SkippedRow: They have another form.
    """
    found = _read_json(value, BAD_TOOL_CALLS)
    calls = [found] if isinstance(found, Mapping) else found or []
    if not isinstance(calls, (list, tuple)):
        raise SkippedRow(BAD_TOOL_CALLS)
    return [_tool_call(call) for call in calls]


def _tool_call(call: Any) -> dict[str, Any]:
    function = call.get("function") or call if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise SkippedRow(BAD_TOOL_CALLS)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # As servers do: the protocol sends them as text, and templates write them as JSON.
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise SkippedRow(BAD_TOOL_CALLS) from None
    function = {"name": function["name"], "arguments": without_nulls(arguments if arguments is not None else {})}
    own = {} if "function" not in call else {key: value for key, value in call.items() if key != "function"}
    return {"type": "function", **without_nulls(own), "function": function}


def tools(value: Any) -> tuple[dict[str, Any], ...]:
    """The tools of a row as JSON schemas, from a list or its JSON text; one without ``function`` is a function itself.

    Raises:
        SkippedRow: They have another form.
    """
    found = _read_json(value, BAD_TOOLS)
    if not found:
        return ()
    if not isinstance(found, (list, tuple)):
        raise SkippedRow(BAD_TOOLS)
    read = []
    for tool in found:
        tool = _read_json(tool, BAD_TOOLS)
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise SkippedRow(BAD_TOOLS)
        function = {**function, "parameters": _read_json(function.get("parameters"), BAD_TOOLS)}
        read.append(without_nulls({"type": "function", "function": function}))
    return tuple(read)


def _read_json(value: Any, reason: str) -> Any:
    """What a text says as JSON, or the value itself."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise SkippedRow(reason) from None


def without_nulls(value: Any, depth: int = 0) -> Any:
    """A copy without the keys whose value is ``None``: Arrow gives every mapping of a column the keys of all of them."""
    if depth > MAX_DEPTH:
        raise SkippedRow(DEEPLY_NESTED)
    if isinstance(value, Mapping):
        return {str(key): without_nulls(held, depth + 1) for key, held in value.items() if held is not None}
    if isinstance(value, (list, tuple)):
        return [without_nulls(held, depth + 1) for held in value]
    return value


def texts_in(value: Any) -> list[str]:
    """Every text in messages or tools, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, held in value.items() for text in (str(key), *texts_in(held))]
    if isinstance(value, (list, tuple)):
        return [text for held in value for text in texts_in(held)]
    return []
