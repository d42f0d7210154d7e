"""Conversations: which turns are trained, and what their history is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.chat_reader import ChatReader
from sftkey.datasets.messages import MESSAGES, reader_of, with_reader
from sftkey.format.example import Example, SkippedRow
from sftkey.util.errors import UserError

SYSTEM = {"role": "system", "content": "Be brief."}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(answer: Any, thinking: str | None = None, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": answer, **({"reasoning_content": thinking} if thinking else {}), **keys}


def examples(row: dict[str, Any], **entry: Any) -> list[Example | str]:
    """What each turn of a row becomes: an example, or the reason why it isn't one."""
    dataset = with_reader(reader_of({"sftkey_turns": "all", **entry}))
    assert dataset.expand is not None
    found: list[Example | str] = []
    for turn in dataset.expand(row):
        try:
            found.append(dataset.to_example(turn))
        except SkippedRow as skipped:
            found.append(skipped.reason)
    return found


TWO = [SYSTEM, user("2+3?"), bot("5", "two and three"), user("And 1 more?"), bot("<think>five and one</think>6")]


def test_the_last_turn_has_its_history() -> None:
    past = (SYSTEM, user("2+3?"), bot("5", "two and three"), user("And 1 more?"))
    assert examples({"messages": TWO}, sftkey_turns="last") == [Example("And 1 more?", "five and one", "6", past)]
    assert MESSAGES.to_example({"messages": TWO}).history == past


def test_every_turn_with_reasoning_is_a_row_with_its_own_history() -> None:
    turns = [
        *TWO,
        user("Why?"),
        bot("Because."),
        user("?"),
        bot("yes", "it is", train=False),
        user("last"),
        bot("x", "y"),
    ]
    found = examples({"messages": turns, "id": 7})
    assert [one if isinstance(one, str) else one.answer for one in found] == [
        "5",
        "6",
        "no think block",
        "response not to be trained",
        "x",
    ]
    first, second, last = (one for one in found if not isinstance(one, str))
    assert first.history == (SYSTEM, user("2+3?"))
    assert second.history == (SYSTEM, user("2+3?"), bot("5", "two and three"), user("And 1 more?"))
    assert [message["content"] for message in last.history] == [
        *("Be brief.", "2+3?", "5", "And 1 more?", "6", "Why?", "Because.", "?", "yes", "last")
    ]


def test_a_conversation_that_cannot_be_read_is_skipped_once() -> None:
    for turns, reason in (
        ([*TWO, {"role": "narrator", "content": "x"}], "unknown role"),
        ([user("hello")], "last message is not the assistant's"),
        (["x", *TWO], "a message without role or content"),
        ([], "no messages"),
    ):
        assert examples({"messages": turns}) == [reason]


def test_system_messages_are_kept_or_dropped() -> None:
    row = {"messages": TWO[1:], "system": "Be brief."}
    assert examples(row) == examples({"messages": TWO})
    dropped = examples({"messages": TWO}, drop_system_message=True)
    assert dropped == examples({"messages": TWO[1:]})
    assert dropped[0] == Example("2+3?", "two and three", "5")


@pytest.mark.parametrize(
    "call", [CALL, {**CALL, "function": {"name": "add", "arguments": '{"a": 2}'}}, CALL["function"]]
)
@pytest.mark.parametrize("tools", [[ADD], json.dumps([ADD]), [ADD["function"]], [json.dumps(ADD)]])
def test_tools_and_their_results_are_history(call: Any, tools: Any) -> None:
    result = {"role": "tool", "content": "5", "tool_call_id": "c1", "name": None}
    turns = [user("2+3?"), bot(None, "I call it", tool_calls=[call]), result, bot("5", "it says so")]
    called, answered = examples({"messages": turns, "tools": tools})
    assert called == "tool calls"
    assert isinstance(answered, Example)
    assert answered.tools == (ADD,)
    assert answered.question == "2+3?"
    assert answered.history == (
        user("2+3?"),
        bot("", "I call it", tool_calls=[CALL]),
        {"role": "tool", "content": "5", "tool_call_id": "c1"},
    )


def test_sharegpt_and_its_calls() -> None:
    turns = [
        {"from": "human", "value": "2+3?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
        {"from": "observation", "value": "5"},
        {"from": "gpt", "value": "<think>it says so</think>5"},
    ]
    entry = {"field_messages": "conversations", "message_property_mappings": {"role": "role", "content": "content"}}
    _, answered = examples({"conversations": turns, "tools": json.dumps([ADD])}, **entry)
    assert isinstance(answered, Example)
    assert answered.history == (user("2+3?"), bot("", tool_calls=[CALL]), {"role": "tool", "content": "5"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tools": "{"}, "tools of another form"),
        ({"tools": 5}, "tools of another form"),
        ({"tools": [{"type": "function"}]}, "tools of another form"),
        ({"messages": [user("?"), bot("", tool_calls=[5]), *TWO[-2:]]}, "tool calls of another form"),
        ({"messages": [user("?"), bot("", tool_calls=[{"function": {"name": "a", "arguments": "{"}}]), *TWO[-2:]]},
         "tool calls of another form"),
        ({"messages": [user([{"type": "image_url", "image_url": "x"}]), *TWO[2:]]}, "not text: content"),
    ],
)  # fmt: skip
def test_what_cannot_be_history_is_a_reason(row: dict[str, Any], reason: str) -> None:
    assert examples({"messages": TWO, **row}, sftkey_turns="last") == [reason]


@pytest.mark.parametrize("key", ["train", "training", "weight", "loss"])
@pytest.mark.parametrize("flag", [True, False, 1, 0, None, 0.5])
def test_flags_of_a_message(key: str, flag: Any) -> None:
    (found,) = examples({"messages": [user("?"), bot("a", "b", **{key: flag})]})
    if flag == 0.5:
        assert found == f"not true or false: {key}"
    else:
        assert found == (
            "response not to be trained" if flag in (False, 0) and flag is not None else Example("?", "b", "a")
        )


def test_flags_of_parts() -> None:
    def parts(*flags: Any) -> list[Any]:
        return [{"type": "text", "text": "x", "train": flag} for flag in flags]

    reasons = {(False,): "response not to be trained", (True, False): "a part of the response not to be trained"}
    for flags in ((True,), (None, 1), (False,), (True, False)):
        (found,) = examples({"messages": [user("?"), bot(parts(*flags), "b")]})
        assert found == reasons.get(flags, Example("?", "b", "x" * len(flags)))


def test_mappings_of_arrow_lose_the_keys_that_they_never_had() -> None:
    padded = {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "of_another_tool": None}},
    }
    (found,) = examples({"messages": TWO, "tools": [padded]}, sftkey_turns="last")
    assert isinstance(found, Example)
    assert found.tools == (ADD,)


def test_the_recipes_value_holds_where_the_entry_has_none() -> None:
    assert reader_of({}, "all").turns == "all"
    assert reader_of({"sftkey_turns": "last"}, "all").turns == "last"
    assert reader_of({"message_property_mappings": {"sftkey_turns": "all"}}) == ChatReader(turns="all")
    with pytest.raises(UserError, match="sftkey_turns: 'first' is not one of last, all"):
        reader_of({}, "first")


_turn = st.sampled_from(["system", "user", "assistant", "tool", "call"])


@given(st.lists(_turn, max_size=9), st.data())
def test_all_turns_of_a_conversation_share_what_splits_them(roles: list[str], data: st.DataObject) -> None:
    turns = []
    for number, role in enumerate(roles):
        turn: dict[str, Any] = {"role": "assistant" if role == "call" else role, "content": f"text {number}"}
        if role == "call":
            turn["tool_calls"] = [CALL]
        if role == "assistant" and data.draw(st.booleans()):
            turn["reasoning_content"] = f"thought {number}"
        turns.append(turn)
    row = {"messages": turns}
    dataset = with_reader(ChatReader(turns="all"))
    assert dataset.expand is not None
    expanded = list(dataset.expand(row))
    ends = [number for number, role in enumerate(roles, 1) if role in ("assistant", "call")]
    assert [len(one["messages"]) for one in expanded] == (ends or [len(turns)])
    problems = set()
    for one in expanded:
        try:
            example = dataset.to_example(one)
        except SkippedRow:
            continue
        problems.add(dataset.problem_of(one))
        assert [message["content"] for message in example.messages] == [
            message["content"] for message in one["messages"][:-1]
        ]
        assert (dataset.question_of(one), dataset.reference_of(one)) == (example.question, example.answer)
    assert len(problems) <= 1
