"""What conversations seem to be, in whatever form they are published, and that the proposal reads them."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.messages import reader_of
from sftkey.recipes.chat_proposal import propose_chat, unusable
from sftkey.recipes.proposal import propose

FORMS = {
    "openai": ("messages", "role", "content", "user", "assistant"),
    "sharegpt": ("conversations", "from", "value", "human", "gpt"),
    "odd keys": ("dialogue", "speaker", "text", "User", "Assistant"),
    "odd roles": ("chat", "role", "content", "user", "bot"),
}
REASONING = ("block", "open block", "tags", "reasoning_content", "thinking", "rationale")


def chat(
    form: str, reasoning: str, turns: int, number: int, *, parts: bool = False, every: bool = True
) -> dict[str, Any]:
    """A conversation about a number, which each of its answers is one greater than."""
    column, role, content, user, assistant = FORMS[form]
    messages: list[dict[str, Any]] = []
    for turn in range(turns):
        asked, told, thought = f"What is {number + turn} + 1?", str(number + turn + 1), f"I add 1 to {number + turn}."
        message: dict[str, Any] = {role: assistant}
        if not every and turn < turns - 1:
            said = told
        elif reasoning == "block":
            said = f"<think>\n{thought}\n</think>\n\n{told}"
        elif reasoning == "open block":
            said = f"{thought}\n</think>\n\n{told}"
        elif reasoning == "tags":
            said = f"<Thinking>{thought}</Thinking><Answer>{told}</Answer>"
        else:
            said, message[reasoning] = told, thought
        written = [{"type": "text", "text": said}] if parts else said
        messages += [{role: user, content: asked}, message | {content: written}]
    return {"id": str(number), column: messages}


@pytest.mark.parametrize(("form", "reasoning", "turns", "parts"), product(FORMS, REASONING, (1, 2), (False, True)))
def test_every_form_is_read_by_what_is_proposed(form: str, reasoning: str, turns: int, parts: bool) -> None:
    rows = [chat(form, reasoning, turns, number, parts=parts) for number in range(12)]
    found = propose_chat(rows)
    assert found is not None
    assert (found.column, found.kind) == (FORMS[form][0], "number")
    assert found.turns == ("all" if turns == 2 else "")
    assert found.thinks == (reasoning in ("block", "open block"))
    reader = reader_of(found.entry, found.turns)
    examples = [reader.to_example(turn) for row in rows for turn in reader.expand(row)]
    assert len(examples) == turns * len(rows)
    first, last = examples[0], examples[-1]
    assert (first.question, first.thinking, first.answer) == ("What is 0 + 1?", "I add 1 to 0.", "1")
    asked = 11 + turns - 1
    assert (last.question, last.answer) == (f"What is {asked} + 1?", str(asked + 1))
    if turns == 2:
        assert last.history[1] == {"role": "assistant", "content": "12", "reasoning_content": "I add 1 to 11."}


def test_the_last_turn_alone_where_earlier_ones_have_no_reasoning() -> None:
    found = propose_chat([chat("openai", "thinking", 3, number, every=False) for number in range(12)])
    assert found is not None
    assert found.turns == "last"


@pytest.mark.parametrize(
    ("answer", "kind"), [("B", "option"), ("x^2 + y", "maths"), ("Because it is so.", "text"), ("42 kg", "number")]
)
def test_the_kind_is_that_of_what_the_last_turn_answers(answer: str, kind: str) -> None:
    asked = "Which one?\nA. this\nB. that" if kind == "option" else "How much?"
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answer, "reasoning": "Hm."},
    ]
    found = propose_chat([{"messages": messages}] * 3)
    assert found is not None
    assert found.kind == kind
    said = propose_chat([{"messages": messages}], "text")
    assert said is not None
    assert said.kind == "text"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (
            [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}],
            "(3 no think block): a response needs its reasoning as reasoning_content, in a <think> block or",
        ),
        (
            [{"role": "x", "content": "1?"}, {"role": "y", "content": "1", "thinking": "t"}],
            "(3 unknown role): .* messages has the roles x, y and the keys role, content, thinking",
        ),
        ([{"role": "assistant", "content": "<think>t</think>1"}], "(3 no user message before the response)"),
    ],
)
def test_what_can_not_be_trained_on_is_said(messages: list[dict[str, Any]], message: str) -> None:
    rows = [{"messages": messages}] * 3
    assert propose_chat(rows) is None
    said = unusable(rows)
    assert said is not None
    assert all(part in said for part in message.split(".* "))
    assert "\n" not in said


def test_columns_of_texts_are_no_conversations() -> None:
    rows = [{"question": "1?", "steps": ["I add."], "meta": [{"name": "x"}], "empty": []}] * 3
    assert propose_chat(rows) is None
    assert unusable(rows) is None
    assert propose_chat([]) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "thinking", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(["messages", "conversations", "y"]), JSON, max_size=2), max_size=4))
def test_any_rows_are_read_or_not(data: list[dict[str, Any]]) -> None:
    found = propose_chat(data)
    assert found is None or found.column in ("messages", "conversations", "y")
    said = unusable(data)
    assert said is None or "\n" not in said


def test_a_list_that_the_answers_do_not_name_is_no_column_of_options() -> None:
    rows = [
        {"problem": f"{n} + 1?", "solution": f"I add 1 to {n}.", "answer": str(n + 1), "topics": ["algebra", "sums"]}
        for n in range(12)
    ]
    found = propose(rows, {})
    assert "options" not in found.columns
    assert found.kind == "number"
    messages = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "<think>t</think>1"}]
    assert "options" not in propose([{**row, "topics": messages} for row in rows], {}).columns
    assert propose([{**row, "topics": ["x", row["answer"]]} for row in rows], {}).columns["options"] == "topics"
