"""The chat templates: whatever the messages hold comes out verbatim, and the generation markers are where they should be."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from sftkey.format import templates
from transformers.utils.chat_template_utils import render_jinja_template

# What Jinja, JSON and this package's own way of filling in the templates could trip over.
PARTS = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    '"',
    "'",
    "\\",
    "\n",
    "\r\n",
    "\u2028",
    "\x00",
    "é",
    "𝟙",
    "\\u0041",
    "\\x41",
    "a",
]
PLACEHOLDERS = ["__START__", "__END__", "__SYSTEM_PROMPT__", "__THINKING_OPEN__"]
texts = st.one_of(st.text(max_size=30), st.lists(st.sampled_from([*PARTS, *PLACEHOLDERS]), max_size=8).map("".join))


def render(template: str, messages: list[dict[str, Any]], prompt: bool = False) -> tuple[str, list[str]]:
    """The rendered messages, and the stretches inside generation markers."""
    rendered, spans = render_jinja_template(
        conversations=[messages],
        chat_template=template,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=True,
    )
    return rendered[0], [rendered[0][start:end] for start, end in spans[0]]


@given(system=texts, question=texts)
def test_system_message_and_question_are_verbatim(system: str, question: str) -> None:
    template = templates.chat_template(templates.TAGGED, system)
    expected = f"system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    message = {"role": "user", "content": question}
    assert render(template, [message], prompt=True) == (f"<|im_start|>{expected}", [])
    # A system message of the conversation takes the place of the default one.
    other = templates.chat_template(templates.TAGGED)
    assert render(other, [{"role": "system", "content": system}, message], prompt=True)[0] == f"<|im_start|>{expected}"


@given(question=texts, thinking=texts, answer=texts)
def test_generation_markers_enclose_what_sft_tag_trains(question: str, thinking: str, answer: str) -> None:
    turn = [
        {"role": "user", "content": question},
        {"role": "assistant", "reasoning_content": thinking, "content": answer},
    ]
    tagged = f"<Thinking>{thinking}</Thinking><Answer>{answer}</Answer><|im_end|>"
    text, trained = render(templates.chat_template(templates.TAGGED), turn * 2)
    assert trained == [tagged, tagged]
    system = f"<|im_start|>system\n{templates.system_prompt()}<|im_end|>\n"
    assert text == system + f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{tagged}\n" * 2


@pytest.mark.parametrize("name", templates.TEMPLATES)
def test_an_answer_without_reasoning_stays_as_it_is(name: str) -> None:
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "as it is"}]
    text, trained = render(templates.chat_template(name), turn)
    assert trained == ["as it is<|im_end|>"]
    assert text.endswith("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nas it is<|im_end|>\n")
    assert ("system" in text) == (name == templates.TAGGED)


def test_what_is_no_template() -> None:
    with pytest.raises(ValueError, match="'chatml' is not one of thinking_answer, thinking_answer_plain"):
        templates.chat_template("chatml")
    with pytest.raises(ValueError, match="has no system message; remove default_system_message"):
        templates.chat_template(templates.PLAIN, "x")


def as_parts(text: str, cuts: list[int]) -> list[Any]:
    bounds = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    return [{"type": "text", "text": piece} for piece in pieces]


@pytest.mark.parametrize("name", templates.TEMPLATES)
@given(system=texts, question=texts, thinking=texts, answer=texts, cuts=st.lists(st.integers(0, 30), max_size=3))
def test_what_servers_send_renders_as_what_was_trained(
    name: str, system: str, question: str, thinking: str, answer: str, cuts: list[int]
) -> None:
    template = templates.chat_template(name)
    trained = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "reasoning_content": thinking},
        {"role": "user", "content": answer},
    ]
    expected = render(templates.turns_template(name), trained, prompt=True)
    assert render(template, trained, prompt=True) == expected
    parts = [{**message, "content": as_parts(message["content"], cuts)} for message in trained]
    assert render(template, parts, prompt=True) == expected
    for key in ("reasoning", "thinking"):
        sent = [dict(message) for message in parts]
        sent[2][key] = sent[2].pop("reasoning_content")
        sent[2] |= {"reasoning_content": None, "tool_calls": None, "name": None}
        assert render(template, sent, prompt=True) == expected
        # An empty list is no tool, and what the server sets of its own accord says nothing.
        with_defaults, _ = render_jinja_template(
            [sent], chat_template=template, add_generation_prompt=True, tools=[], documents=None, enable_thinking=True
        )
        assert with_defaults == [expected[0]]


@pytest.mark.parametrize("close", ["</Answer>", ""])
@given(thinking=texts, answer=texts)
def test_an_answer_that_brings_its_tags_gets_no_second_ones(thinking: str, answer: str, close: str) -> None:
    def response(content: str) -> list[dict[str, Any]]:
        return [{"role": "assistant", "content": content, "reasoning_content": thinking}]

    sent = response(f"<Answer>{answer}{close}")
    assert render(templates.chat_template(templates.TAGGED), sent) == render(
        templates.chat_template(templates.TAGGED), response(answer)
    )
    # Without thinking beside it, or for a model without tags, the content is the response as it is.
    alone = [{"role": "assistant", "content": sent[0]["content"]}]
    for name, messages in ((templates.TAGGED, alone), (templates.PLAIN, sent)):
        assert render(templates.chat_template(name), messages)[1] == [f"{sent[0]['content']}<|im_end|>"]


@pytest.mark.parametrize("name", templates.TEMPLATES)
@pytest.mark.parametrize("content", [None, [], ""])
def test_no_content_is_an_empty_one(name: str, content: Any) -> None:
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}]
    assert render(templates.chat_template(name), turn)[1] == ["<|im_end|>"]
    assert render(templates.chat_template(name), [turn[0], {"role": "assistant"}])[1] == ["<|im_end|>"]


TOOL = {"type": "function", "function": {"name": "add", "description": "d", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize("name", templates.TEMPLATES)
@pytest.mark.parametrize(
    ("message", "options", "said"),
    [
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, {}, "only parts of the type text"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "input_audio"}]}, {}, "only parts of the type text"),
        ({"content": [{"type": "text"}]}, {}, "only parts of the type text"),
        ({"content": [["a"]]}, {}, "only parts of the type text"),
        ({"content": {"type": "text", "text": "a"}}, {}, "neither a text nor a list"),
        ({"content": 18}, {}, "neither a text nor a list"),
        ({"content": "a"}, {"tools": [TOOL]}, "tools: this chat template has no form for them"),
        ({"content": "a"}, {"documents": [{"title": "t", "text": "x"}]}, "documents: this chat template has no form"),
        ({"role": "tool", "content": "3"}, {}, "tool calls: this chat template has no form"),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {},
            "tool calls: this chat template has no form",
        ),
        ({"role": "assistant", "function_call": CALL["function"]}, {}, "tool calls: this chat template has no form"),
    ],
)
def test_what_was_not_trained_is_refused_and_never_dropped(
    name: str, message: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "user", **message}]
    with pytest.raises(TemplateError, match=said):
        render_jinja_template([messages], chat_template=templates.chat_template(name), **options)


def test_without_thinking_the_response_begins_with_an_empty_thought() -> None:
    question = [{"role": "user", "content": "q"}]
    for name, thought in ((templates.TAGGED, "<Thinking></Thinking>"), (templates.PLAIN, "")):
        template = templates.chat_template(name)
        prompt, _ = render(template, question, prompt=True)
        options = {"chat_template": template, "enable_thinking": False}
        assert render_jinja_template([question], add_generation_prompt=True, **options)[0] == [prompt + thought]
        assert render_jinja_template([question], **options)[0] == [render(template, question)[0]]


def test_a_stage_is_known_by_what_was_trained_alone() -> None:
    # The digests that markers of earlier versions hold.
    digests = {name: sha256(templates.turns_template(name).encode()).hexdigest() for name in templates.TEMPLATES}
    assert digests == {
        "thinking_answer": "0796c93079206098c9b9caa58f6d01dfe842629e68bd044797ee2914fb42822c",
        "thinking_answer_plain": "1c2186bd55f5a53ca3f94c1aa546a1b5cad653c09a56614e8c35a22347ed8136",
    }


KEYS = ("reasoning_content", "reasoning", "thinking")
turns = st.lists(
    st.tuples(texts, st.none() | texts, texts, st.sampled_from(KEYS), st.lists(st.integers(0, 30), max_size=2)),
    max_size=5,
)


@pytest.mark.parametrize("name", templates.TEMPLATES)
@settings(deadline=None)
@given(past=turns, question=texts)
def test_a_history_keeps_the_thinking_of_the_turns_that_have_one(name: str, past: list[Any], question: str) -> None:
    sent: list[dict[str, Any]] = [{"role": "system", "content": "s"}]
    expected = "<|im_start|>system\ns<|im_end|>\n"
    for asked, thinking, answer, key, cuts in past:
        sent.append({"role": "user", "content": as_parts(asked, cuts)})
        sent.append({"role": "assistant", "content": as_parts(answer, cuts) or None})
        response = answer
        if thinking is not None:
            sent[-1][key] = as_parts(thinking, cuts)
            # What brings its answer's tags gets no second ones, which another test is about.
            inner = (
                answer.removeprefix("<Answer>").removesuffix("</Answer>") if answer.startswith("<Answer>") else answer
            )
            response = answer if name == templates.PLAIN else f"<Thinking>{thinking}</Thinking><Answer>{inner}</Answer>"
        expected += f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{response}<|im_end|>\n"
    sent.append({"role": "user", "content": question})
    expected += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert render(templates.chat_template(name), sent, prompt=True)[0] == expected
