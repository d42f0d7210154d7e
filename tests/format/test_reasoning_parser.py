"""Thinking and answer come apart the same way whole, streamed and by transformers' own parser."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sftkey.format.formats import FORMATS, read_format, texts_of
from sftkey.format.reasoning_parser import PAPER, Parts, Splitter
from sftkey.format.response_format import ResponseFormat
from sftkey.format.response_template import response_template

FORMATS_TRIED = [
    *FORMATS.values(),
    read_format(
        {"thinking_open": "[T]\n", "thinking_close": "\n\n[/T]\n", "answer_open": "[A] ", "answer_close": " [/A]\n"}
    ),
    read_format({"thinking_open": "### Reasoning\n", "thinking_close": "\n### Answer\n"}),
    read_format({"thinking_open": "<r>", "thinking_close": "</r>", "answer_open": "\nAnswer: "}),
]
ANCHOR, END = "<|im_start|>assistant\n", "<|im_end|>"
PROMPT = f"<|im_start|>user\nHow much?{END}\n{ANCHOR}"


texts = st.text(alphabet="ab \n<>[]/TA#é", max_size=12)
formats = st.sampled_from(FORMATS_TRIED)
outputs = st.one_of(
    st.tuples(formats, st.lists(st.sampled_from([*"ab<\n /[", " "]), max_size=20).map("".join)),
    formats.flatmap(
        lambda one: st.tuples(
            st.just(one),
            st.lists(st.one_of(st.sampled_from([*one.tags, *texts_of(one).values()]), texts), max_size=7).map("".join),
        )
    ),
)


def test_without_a_format_it_is_the_papers() -> None:
    assert texts_of(FORMATS["thinking_answer"]) == PAPER


@settings(deadline=None, max_examples=50)
@given(one=formats, thinking=texts, answer=texts)
def test_what_is_written_is_read(one: ResponseFormat, thinking: str, answer: str) -> None:
    text = "".join(piece.text for piece in one.render(thinking, answer))
    parsed = one.parse(text)
    if not parsed.well_formed:
        return
    assert Splitter(**texts_of(one)).split(text)[:2] == (parsed.thinking, parsed.answer)


@settings(deadline=None, max_examples=50)
@example(pair=(FORMATS_TRIED[2], "[T]\na\n\n[A] b"))
@given(pair=outputs)
def test_a_stream_never_takes_anything_back(pair: tuple[ResponseFormat, str]) -> None:
    one, text = pair
    splitter = Splitter(**texts_of(one))
    shown = Parts("", "", False)
    for length in range(len(text) + 1):
        parts = splitter.split(text[:length], finished=False)
        assert parts.thinking.startswith(shown.thinking)
        assert parts.answer.startswith(shown.answer)
        shown = parts
    whole = splitter.split(text)
    assert whole.thinking.startswith(shown.thinking)
    assert whole.answer.startswith(shown.answer)


@settings(deadline=None, max_examples=50)
@given(pair=outputs)
def test_nothing_of_an_output_is_lost(pair: tuple[ResponseFormat, str]) -> None:
    one, text = pair
    parts = Splitter(**texts_of(one)).split(text)
    for tag in one.tags:
        text = text.replace(tag, " ")
    for tag in one.tags:
        parts = Parts(parts.thinking.replace(tag, " "), parts.answer.replace(tag, " "), parts.ended)
    assert "".join((parts.thinking + parts.answer).split()) == "".join(text.split())


@settings(deadline=None, max_examples=50)
@given(one=formats, thinking=st.text("ab<é", min_size=1), answer=st.text("ab<é", min_size=1), held=st.integers(0, 3))
def test_transformers_splits_them_too(one: ResponseFormat, thinking: str, answer: str, held: int) -> None:
    chat_parsing = pytest.importorskip("transformers.utils.chat_parsing")
    template = response_template(one, ANCHOR, [END, "<|endoftext|>"])
    written = "".join(piece.text for piece in one.render(thinking, answer))
    if not one.parse(written).well_formed:
        return
    opened = one.thinking_open if held == 1 else ""
    expected = {"role": "assistant", "thinking": thinking, "content": answer}
    for end in ("", END, f"{END}<|endoftext|><|endoftext|>"):
        parsed = chat_parsing.parse_response(written[len(opened) :] + end, template, prefix=PROMPT + opened)
        assert parsed == expected
    parser = chat_parsing.ResponseParser(template, prefix=PROMPT)
    for character in written + END:
        parser.feed(character)
    assert parser.finalize()[0] == expected
    # Earlier turns of the conversation are not the response.
    history = f"{PROMPT}{written}{END}\n{PROMPT}"
    assert chat_parsing.parse_response(f"no tags{END}", template, prefix=history)["content"] == "no tags"
    empty = PROMPT + one.thinking_open + one.thinking_close
    unthought = one.answer_open + answer + one.answer_close + END
    assert chat_parsing.parse_response(unthought, template, prefix=empty) == {"role": "assistant", "content": answer}


@pytest.mark.parametrize("one", [one for one in FORMATS_TRIED if one.answer_open], ids=lambda one: one.thinking_open)
@pytest.mark.parametrize("thinking", ["a", "a\n", "a\n\n", "a "])
def test_a_thinking_that_only_an_answer_ends_is_verbatim(one: ResponseFormat, thinking: str) -> None:
    chat_parsing = pytest.importorskip("transformers.utils.chat_parsing")
    output = f"{one.thinking_open}{thinking}{one.answer_open.lstrip()}b{one.answer_close}"
    assert Splitter(**texts_of(one)).split(output) == Parts(thinking, "b", True)
    template = response_template(one, ANCHOR, [END])
    parsed = chat_parsing.parse_response(output + END, template, prefix=PROMPT)
    assert parsed == {"role": "assistant", "thinking": thinking, "content": "b"}


@pytest.mark.parametrize(
    ("output", "thinking", "answer"),
    [
        ("18", "", "18"),
        ("<Answer>18</Answer>", "", "18"),
        ("<Thinking>a", "a", ""),
        ("<Thinking>a<Answer>18</Answer>", "a", "18"),
        ("<Thinking>a</Thinking>18", "a", "18"),
        ("<Thinking>a</Thinking><Answer>18</Ans", "a", "18</Ans"),
        ("<Thinking>a</Thinking><Answer>18</Answer> and more", "a", "18</Answer> and more"),
        ("So <Thinking>a</Thinking>", "", "So <Thinking>a</Thinking>"),
    ],
)
def test_outputs_that_are_not_in_the_format(output: str, thinking: str, answer: str) -> None:
    assert Splitter(**PAPER).split(output)[:2] == (thinking, answer)
