"""Chat data: reasoning in its own key or in a think block, one turn, under other column names."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets import chat_reader
from sftkey.datasets.messages import MESSAGES, REASONING_KEYS, ChatReader, reader_of
from sftkey.format.example import Example, SkippedRow
from sftkey.util.errors import UserError

EXAMPLE = Example("What is 2+3?", "2 and 3 make 5.", "It is 5.")

SYSTEM = {"role": "system", "content": "You are a calculator."}
USER = {"role": "user", "content": "What is 2+3?"}
THINK = {"role": "assistant", "content": "<think>\n2 and 3 make 5.\n</think>\n\nIt is 5."}
SEPARATE = {"role": "assistant", "content": "It is 5.", "reasoning_content": "2 and 3 make 5."}


def chat(*turns: Any) -> dict[str, Any]:
    return {"messages": list(turns)}


def assistant(content: Any, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


def reason(row: dict[str, Any], reader: ChatReader | None = None) -> str:
    with pytest.raises(SkippedRow) as skipped:
        (reader or ChatReader()).to_example(row)
    return skipped.value.reason


@pytest.mark.parametrize(
    "response",
    [
        THINK,
        SEPARATE,
        assistant("2 and 3 make 5.</think>It is 5."),
        assistant("<think>2 and 3 make 5.</think>It is 5.", reasoning_content=None),
        assistant("<think>2 and 3 make 5.</think>It is 5.", reasoning_content=" "),
        assistant([{"type": "text", "text": "<think>2 and 3 make 5.</think>"}, {"type": "text", "text": "It is 5."}]),
        assistant(["It is ", "5."], reasoning_content=["2 and 3 ", "make 5."]),
        assistant("It is 5.", reasoning_content="2 and 3 make 5.", tool_calls=[], name=None),
    ],
)
@pytest.mark.parametrize("before", [[], [SYSTEM], [{"role": "developer", "content": "x"}]])
def test_one_turn_with_reasoning(before: list[Any], response: dict[str, Any]) -> None:
    example = MESSAGES.to_example(chat(*before, USER, response))
    history = tuple({"role": "system", "content": message["content"]} for message in before)
    assert example == replace(EXAMPLE, history=(*history, USER) if before else ())


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], "no messages"),
        ([SYSTEM], "last message is not the assistant's"),
        ([USER], "last message is not the assistant's"),
        ([USER, THINK, USER], "last message is not the assistant's"),
        ([THINK], "no user message before the response"),
        ([SYSTEM, THINK], "no user message before the response"),
        ([USER] * 1000 + [THINK], "more than 1,000 messages"),
        ([USER, {**THINK, "tool_calls": [{"name": "add"}]}], "tool calls"),
        ([USER, "It is 5."], "a message without role or content"),
        ([{"content": "hello"}, THINK], "a message without role or content"),
        ([USER, {"role": "assistant"}], "a message without role or content"),
        ([{"role": "narrator", "content": "x"}, THINK], "unknown role"),
        ([USER, assistant("It is 5.")], "no think block"),
        ([USER, assistant("<think>2 and 3 make 5.")], "no think block"),
        ([USER, assistant("Well, <think>2 and 3</think>It is 5.")], "no think block"),
        ([USER, assistant("<think>2</think><think>3</think>It is 5.")], "no think block"),
        ([USER, assistant(None)], "no think block"),
        ([USER, assistant("<think>2+3</think>It is 5.", reasoning_content="2+3")], "reasoning in two places"),
        ([USER, assistant("<think>\n</think>It is 5.")], "empty thinking"),
        ([USER, assistant("<think>2 and 3 make 5.</think>\n")], "no answer"),
        ([USER, assistant(None, reasoning_content="2 and 3 make 5.")], "no answer"),
        ([{"role": "user", "content": " "}, THINK], "empty question"),
        ([{"role": "user", "content": [{"type": "image", "url": "x.png"}]}, THINK], "not text: content"),
        ([USER, assistant(5)], "not text: content"),
    ],
)
def test_other_rows_are_skipped_by_reason(turns: list[Any], expected: str) -> None:
    assert reason(chat(*turns)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "missing field: messages"), ("hello", "not a list: messages"), ({}, "not a list: messages")],
)
def test_messages_that_are_no_list(value: Any, expected: str) -> None:
    assert reason({"messages": value}) == expected


def test_a_missing_column_is_an_error_of_the_recipe() -> None:
    with pytest.raises(KeyError, match="no column 'messages' in the data; it has: conversations"):
        MESSAGES.to_example({"conversations": [USER, THINK]})


def test_keys_of_the_recipe_rename_what_is_read() -> None:
    entry = {
        "path": "my_chats.jsonl",
        "field_messages": "conversations",
        "field_thinking": "reasoning",
        "message_property_mappings": {"role": "from", "content": "value"},
    }
    reader = reader_of(entry)
    assert reader == ChatReader(messages="conversations", thinking="reasoning", role="from", content="value")
    turns = [
        {"from": "human", "value": USER["content"]},
        {"from": "gpt", "value": "It is 5.", "reasoning": EXAMPLE.thinking},
    ]
    assert reader.to_example({"conversations": turns}) == EXAMPLE


def test_an_entry_without_keys_reads_the_usual_names() -> None:
    assert reader_of({"field_messages": None, "message_property_mappings": None}) == ChatReader()


def test_an_unknown_mapping_is_refused() -> None:
    with pytest.raises(UserError, match=r"message_property_mappings: reasoning unknown.*field_thinking"):
        reader_of({"message_property_mappings": {"role": "from", "reasoning": "cot"}})


def test_system_messages_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    chat_reader._warn_of_system_message.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            MESSAGES.to_example(chat(SYSTEM, USER, THINK))
    assert [record.message.split(";")[0] for record in caplog.records] == ["the data has system messages"]


def test_question_and_reference_need_no_reasoning() -> None:
    row = chat(USER, assistant(" It is 5. "))
    assert MESSAGES.question is not None
    assert MESSAGES.reference is not None
    assert (MESSAGES.question(row), MESSAGES.reference(row)) == (EXAMPLE.question, EXAMPLE.answer)


def test_the_untagged_form_is_the_published_one() -> None:
    text = "".join(piece.text for piece in MESSAGES.untagged.render(EXAMPLE.thinking, EXAMPLE.answer))
    assert text == THINK["content"]


_text = st.text(st.sampled_from("ab<>/ \n"), max_size=12)


@given(_text, _text)
def test_both_places_of_reasoning_give_the_same_example(thinking: str, answer: str) -> None:
    joined, separate = (
        chat(USER, assistant(f"<think>{thinking}</think>{answer}")),
        chat(USER, assistant(answer, reasoning_content=thinking)),
    )
    if thinking.strip() and answer.strip():
        expected = Example(str(USER["content"]), thinking.strip(), answer.strip())
        assert MESSAGES.to_example(joined) == MESSAGES.to_example(separate) == expected
    else:
        for row in (joined, separate):
            assert reason(row) in {"empty thinking", "no answer", "no think block"}


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), inner)
    ),
    max_leaves=8,
)
_turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", 3]), "content": _values},
    optional={"reasoning_content": _values, "tool_calls": _values},
)


@given(st.lists(_turns | _values, max_size=4))
def test_any_row_gives_an_example_or_a_reason(turns: list[Any]) -> None:
    row = chat(*turns)
    try:
        example = MESSAGES.to_example(row)
    except SkippedRow:
        return
    assert MESSAGES.question is not None
    assert MESSAGES.reference is not None
    assert (MESSAGES.question(row), MESSAGES.reference(row)) == (example.question, example.answer)


def test_its_rows_for_evaluation_are_a_test_split() -> None:
    assert MESSAGES.evaluation_split == "test"


@pytest.mark.parametrize("key", REASONING_KEYS)
def test_reasoning_is_read_under_its_published_names(key: str) -> None:
    assert MESSAGES.to_example(chat(USER, assistant("It is 5.", **{key: EXAMPLE.thinking}))) == EXAMPLE


def test_the_same_reasoning_twice_is_one_and_two_are_too_many() -> None:
    twice = {"reasoning": EXAMPLE.thinking, "reasoning_content": f" {EXAMPLE.thinking}\n", "thinking": None}
    assert MESSAGES.to_example(chat(USER, assistant("It is 5.", **twice))) == EXAMPLE
    assert reason(chat(USER, assistant("It is 5.", reasoning="a", thinking="b"))) == "reasoning in two places"
    named = ChatReader(thinking="reasoning")
    assert named.to_example(chat(USER, assistant("It is 5.", reasoning=EXAMPLE.thinking, thinking="b"))) == EXAMPLE


@pytest.mark.parametrize(
    ("flag", "expected"),
    [(False, "response not to be trained"), (0, "response not to be trained"), ("no", "not true or false: train")],
)
def test_a_response_that_is_flagged_is_not_trained(flag: Any, expected: str) -> None:
    reader = reader_of({"message_field_training": "train"})
    assert reason(chat({**USER, "train": True}, {**SEPARATE, "train": flag}), reader) == expected
    for trained in (True, 1, None):
        assert reader.to_example(chat({**USER, "train": False}, {**SEPARATE, "train": trained})) == EXAMPLE
    assert reader.to_example(chat(USER, SEPARATE)) == EXAMPLE
    # Evaluation asks every question, trained or not.
    assert reader.question(chat(USER, {**SEPARATE, "train": flag})) == EXAMPLE.question


def test_roles_of_the_data_are_named_beside_the_usual_ones() -> None:
    reader = reader_of({"roles": {"user": ["Asker"], "assistant": ["bot"]}})
    for asker, bot in (("Asker", "bot"), ("human", "gpt"), ("Asker", "assistant")):
        assert reader.to_example(chat({**USER, "role": asker}, {**SEPARATE, "role": bot})) == EXAMPLE
    assert reason(chat({**USER, "role": "asker"}, SEPARATE), reader) == "unknown role"


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"human": ["user"]}, "maps system, user, assistant or tool"),
        ({"user": "human"}, "roles: user: 'human'"),
        ({"user": ["a"], "assistant": ["a"]}, "'a' is both user and assistant"),
        (["user"], "maps system, user"),
    ],
)
def test_roles_of_another_shape_are_refused(roles: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        reader_of({"roles": roles})


def test_old_names_of_role_and_content_are_read() -> None:
    entry = {"message_field_role": "from", "message_field_content": "value"}
    assert reader_of(entry) == ChatReader(role="from", content="value")
