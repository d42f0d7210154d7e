"""The chat templates: whatever the messages hold comes out verbatim, and the generation markers are where they should be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
