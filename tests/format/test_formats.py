"""Formats by name and spelled out: what is written is matched, and what can't be matched is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sftkey.format.formats import FORMATS, MAX_TAG, PARTS, THINK, THINKING_ANSWER, read_format
from sftkey.format.response_format import FormatFailure, ResponseFormat
from sftkey.format.segments import Segment

REASONING = {"thinking_open": "### Reasoning\n", "thinking_close": "\n### Answer\n"}
HARMONY = {
    "thinking_open": "<|channel|>analysis<|message|>",
    "thinking_close": "<|end|>",
    "answer_open": "<|start|>assistant<|channel|>final<|message|>",
}


def test_names() -> None:
    assert read_format(None) is THINKING_ANSWER
    for name, named in FORMATS.items():
        assert read_format(name) is named
        assert read_format({part: getattr(named, part) for part in PARTS}) is named


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("thinking", "'thinking' is not one of thinking_answer, think"),
        ("", "'' is not one of"),
        (1, "1 is neither a name"),
        (["think"], "is neither a name"),
        ({}, "thinking_open has to be a text to see"),
        ({**REASONING, "answer": "x"}, "has no part answer; its parts are"),
        ({**REASONING, 3: "x"}, "has no part 3"),
        ({**REASONING, "thinking_close": "  "}, "thinking_close has to be a text to see"),
        ({**REASONING, "answer_open": "\n"}, "answer_open has to be a text to see"),
        ({**REASONING, "thinking_open": 5}, "thinking_open is not a text"),
        ({**REASONING, "thinking_open": "x" * (MAX_TAG + 1)}, "thinking_open is not a text of at most 200"),
        ({**REASONING, "answer_close": "</a>"}, "answer_close needs an answer_open"),
        ({"thinking_open": "<t>", "thinking_close": "<t>"}, "'<t>' stands in '<t>' too"),
        ({"thinking_open": "<t>", "thinking_close": "</t> <t> "}, "'<t>' stands in '</t> <t>' too"),
    ],
)
def test_what_is_no_format(value: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_format(value)
    assert message in str(error.value)


written = st.text(st.sampled_from("<>/ab\n #"), min_size=1, max_size=8)
texts = st.text(st.sampled_from("<>/abx\n #1"), min_size=1, max_size=20).filter(str.strip)


@given(st.lists(written, min_size=2, max_size=4), texts, texts)
def test_what_is_written_is_matched(parts: list[str], thinking: str, answer: str) -> None:
    try:
        own = read_format(dict(zip(PARTS, parts, strict=False)))
    except ValueError:
        assume(False)
        return
    pieces = own.render(thinking, answer)
    text = "".join(piece.text for piece in pieces)
    # Where text and tags join to another tag, nobody could tell them apart.
    places = [
        len(before.text) - len(before.text.lstrip()) + sum(len(one.text) for one in pieces[:place])
        for place, before in enumerate(pieces)
        if before.segment not in (Segment.THINKING, Segment.ANSWER)
    ]
    assume([match.start() for match in re.finditer("|".join(map(re.escape, own.tags)), text)] == places)
    parsed = own.parse(text)
    assert (parsed.failure, parsed.thinking, parsed.answer) == (None, thinking, answer)
    assert own.has_thinking(text)
    assert own.parse(f" \n{text}\n").well_formed


@pytest.mark.parametrize(
    ("output", "failure"),
    [
        ("<think>\na\n</think>\n\n5", None),
        ("<think>a</think>5", None),
        ("  <think> a </think> 5 ", None),
        ("<think>a</think>5</think>", FormatFailure.REPEATED),
        ("<think>a<think>b</think>5", FormatFailure.REPEATED),
        ("a</think>5", FormatFailure.NO_THINKING),
        ("5", FormatFailure.NO_THINKING),
        ("<think>a", FormatFailure.THINKING_CUT_OFF),
        ("</think>5<think>", FormatFailure.WRONG_ORDER),
        ("<think>\n\n</think>\n\n5", FormatFailure.EMPTY_THINKING),
        ("<think>a</think>\n", FormatFailure.NO_ANSWER),
        ("Sure. <think>a</think>5", FormatFailure.TEXT_OUTSIDE),
    ],
)
def test_failures_of_think(output: str, failure: FormatFailure | None) -> None:
    assert THINK.parse(output).failure is failure


def test_an_own_format_in_the_papers_tags() -> None:
    headings, harmony = read_format(REASONING), read_format(HARMONY)
    assert headings.rewritten("### Reasoning\na\n### Answer\n5", THINKING_ANSWER) == "<Thinking>\na\n</Thinking>\n5"
    text = "".join(piece.text for piece in harmony.render("a", "5"))
    assert harmony.rewritten(text, THINKING_ANSWER) == "<Thinking>a</Thinking><Answer>5</Answer>"


def test_an_answer_without_a_closing_tag() -> None:
    harmony = read_format(HARMONY)
    assert isinstance(harmony, ResponseFormat)
    assert harmony.parse("<|channel|>analysis<|message|>a<|end|>5").failure is FormatFailure.NO_ANSWER
    opened = f"<|channel|>analysis<|message|>a<|end|>{HARMONY['answer_open']}"
    assert harmony.parse(opened).failure is FormatFailure.EMPTY_ANSWER
    assert harmony.parse(opened + "5").answer == "5"
