"""The tag format: what is well-formed, what isn't and why, in linear time."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sftkey.format.formats import THINKING_ANSWER
from sftkey.format.response_format import AnswerBlock, FormatFailure

THINKING = "<Thinking>{}</Thinking>"
ANSWER = "<Answer>{}</Answer>"

WELL_FORMED = [
    "<Thinking>2+2=4</Thinking><Answer>4</Answer>",
    "  <Thinking>2+2=4</Thinking>\n\n<Answer>4</Answer>\n",
    "<Thinking>\n2+2=4\n</Thinking>\n<Answer>\n4\n</Answer>",
    "<Thinking>a < b > c </thinking> <answer></Thinking><Answer>1 < 2</Answer>",
    "<Thinking><think>x</think></Thinking><Answer>4</Answer>",
    "<Thinking>\x00</Thinking><Answer>\ud800</Answer>",
]

MALFORMED = {
    FormatFailure.NO_THINKING: [
        "",
        "4",
        "<Answer>4</Answer>",
        "2+2=4</Thinking><Answer>4</Answer>",
        "</Thinking>",
        "<thinking>2+2</thinking><answer>4</answer>",
        "< Thinking>2+2</ Thinking><Answer>4</Answer>",
        "<think>2+2</think>4",
    ],
    FormatFailure.EMPTY_THINKING: [
        "<Thinking></Thinking><Answer>4</Answer>",
        "<Thinking> \n\u00a0</Thinking><Answer>4</Answer>",
        "<Thinking></Thinking>",
    ],
    FormatFailure.THINKING_CUT_OFF: [
        "<Thinking>",
        "<Thinking>2+2 is",
        "<Thinking>2+2<Answer>4</Answer>",
        "<Thinking>2+2</Thinkin",
        "<Thinking></Answer>",
    ],
    FormatFailure.NO_ANSWER: [
        "<Thinking>2+2</Thinking>",
        "<Thinking>2+2</Thinking>4",
        "<Thinking>2+2</Thinking>4</Answer>",
    ],
    FormatFailure.EMPTY_ANSWER: [
        "<Thinking>2+2</Thinking><Answer></Answer>",
        "<Thinking>2+2</Thinking><Answer> \t</Answer>",
    ],
    FormatFailure.ANSWER_CUT_OFF: [
        "<Thinking>2+2</Thinking><Answer>",
        "<Thinking>2+2</Thinking><Answer>4",
        "<Thinking>2+2</Thinking><Answer>4</Answe",
    ],
    FormatFailure.REPEATED: [
        "<Thinking>a</Thinking><Answer>4</Answer><Answer>4</Answer>",
        "<Thinking>a</Thinking><Thinking>b</Thinking><Answer>4</Answer>",
        "<Thinking>a<Thinking>b</Thinking></Thinking><Answer>4</Answer>",
        "<Thinking>a<Answer>4</Answer></Thinking>",
        "<Thinking>a<Answer>b</Thinking>4</Answer>",
        "<Thinking>a</Thinking><Answer><Thinking>4</Thinking></Answer>",
        "<Thinking>a</Thinking><Answer>4</Answer></Answer>",
        "<Answer><Answer>",
    ],
    FormatFailure.WRONG_ORDER: [
        "<Answer>4</Answer><Thinking>a</Thinking>",
        "</Thinking>a<Thinking><Answer>4</Answer>",
        "<Thinking>a</Answer></Thinking><Answer>4",
        "<Thinking>a</Thinking></Answer>4<Answer>",
        "<Answer><Thinking>a</Thinking>4</Answer>",
    ],
    FormatFailure.TEXT_OUTSIDE: [
        "Sure! <Thinking>a</Thinking><Answer>4</Answer>",
        "<Thinking>a</Thinking>so<Answer>4</Answer>",
        "<Thinking>a</Thinking><Answer>4</Answer>.",
        "<Thinking>a</Thinking><Answer>4</Answer><|im_end|>",
        "<Thinking>a</Thinking><Answer>4</Answer>\x00",
        "\u200b<Thinking>a</Thinking><Answer>4</Answer>",
    ],
}

# A text of tags, near misses, white space and words: what hypothesis would hardly find by itself.
PARTS = st.sampled_from(
    [*THINKING_ANSWER.tags, "<Thinking", "</Answer", "Answer>", "<", ">", " ", "\n", "x", "4", "\x00", "é"]
)
TEXTS = st.lists(PARTS, max_size=12).map("".join) | st.text(max_size=30)


@pytest.mark.parametrize("text", WELL_FORMED)
def test_well_formed(text):
    parsed = THINKING_ANSWER.parse(text)
    assert parsed.failure is None
    assert parsed.well_formed
    assert f"<Thinking>{parsed.thinking}</Thinking>" in text
    assert f"<Answer>{parsed.answer}</Answer>" in text


@pytest.mark.parametrize(
    ("failure", "text"), [(failure, text) for failure, texts in MALFORMED.items() for text in texts]
)
def test_malformed(failure, text):
    parsed = THINKING_ANSWER.parse(text)
    assert parsed.failure is failure
    assert not parsed.well_formed
    assert parsed.thinking is None
    assert parsed.answer is None


def test_every_failure_has_an_example():
    assert set(MALFORMED) == set(FormatFailure)


def by_one_regular_expression(text: str) -> bool:
    """Fmt again, declaratively: two blocks without any tag in them, each with something to see."""
    inside = r"((?:(?!</?(?:Thinking|Answer)>)[\s\S])*)"
    match = re.fullmatch(rf"\s*<Thinking>{inside}</Thinking>\s*<Answer>{inside}</Answer>\s*", text)
    return match is not None and all(part.strip() for part in match.groups())


@given(TEXTS)
@example("<Thinking>x</Thinking><Answer>x</Answer>")
def test_fmt_is_what_a_regular_expression_says(text):
    assert THINKING_ANSWER.parse(text).well_formed == by_one_regular_expression(text)


@given(st.lists(st.sampled_from([*THINKING_ANSWER.tags, "x", " "]), max_size=6))
def test_fmt_over_all_orders_of_tags(parts):
    text = "".join(parts)
    assert THINKING_ANSWER.parse(text).well_formed == by_one_regular_expression(text)


free_of_tags = st.text(max_size=40).filter(lambda text: text.strip() and not THINKING_ANSWER.contains_tag(text))


@given(free_of_tags, free_of_tags)
def test_what_is_rendered_is_parsed_back(thinking, answer):
    text = "".join(piece.text for piece in THINKING_ANSWER.render(thinking, answer))
    if re.findall("|".join(THINKING_ANSWER.tags), text) != list(
        THINKING_ANSWER.tags
    ):  # "<" at the end of a part may complete a tag
        return
    parsed = THINKING_ANSWER.parse(text)
    assert (parsed.failure, parsed.thinking, parsed.answer) == (None, thinking, answer)
    block = THINKING_ANSWER.find_answer_block(text)
    assert block == AnswerBlock(answer, closed=True)
    assert THINKING_ANSWER.has_thinking(text)


@pytest.mark.parametrize(
    ("text", "answer", "closed"),
    [
        ("<Thinking>a</Thinking><Answer>4</Answer>", "4", True),
        ("blah <Answer>4</Answer> blah", "4", True),
        ("<Answer>3</Answer> no: <Answer>4</Answer>", "4", True),
        ("<Answer>4", "4", False),
        ("<Answer>4</", "4", False),
        ("<Answer>4</Answer", "4", False),
        ("<Answer>4 <", "4 <", False),
        ("<Answer>4</b></Answer>", "4</b>", True),
        ("<Answer>3</Answer><Answer>4", "4", False),
        ("<Answer>4</Answer><Answer>", "4", True),
        ("<Answer>4</Answer><Answer> </Answer>", "4", True),
        ("<Answer>4<Thinking>b</Thinking>", "4", False),
        ("<Answer><Answer>4</Answer></Answer>", "4", True),
    ],
)
def test_an_answer_block_is_found_in_any_output(text, answer, closed):
    assert THINKING_ANSWER.find_answer_block(text) == AnswerBlock(answer, closed)


@pytest.mark.parametrize("text", ["", "4", "<Answer>", "<Answer></Answer>", "4</Answer>", "<answer>4</answer>"])
def test_no_answer_block(text):
    assert THINKING_ANSWER.find_answer_block(text) is None


@pytest.mark.parametrize(
    ("text", "thinks"),
    [
        ("<Thinking>a</Thinking><Answer>4</Answer>", True),
        ("<Thinking>a</Thinking>", True),
        ("x<Thinking>a</Thinking><Thinking>", True),
        ("<Thinking></Thinking><Thinking>a</Thinking>", True),
        ("<Thinking></Thinking><Answer>4</Answer>", False),
        ("<Thinking> \n</Thinking>", False),
        ("<Thinking>a", False),
        ("a</Thinking>", False),
        ("<Answer>4</Answer>", False),
        ("<Thinking>a<Answer>4</Answer></Thinking>", False),
        ("", False),
    ],
)
def test_has_thinking(text, thinks):
    assert THINKING_ANSWER.has_thinking(text) is thinks


@given(TEXTS)
def test_an_output_in_the_format_has_thinking(text):
    parsed = THINKING_ANSWER.parse(text)
    assert THINKING_ANSWER.has_thinking(text) or not parsed.well_formed
    if parsed.failure in (FormatFailure.NO_THINKING, FormatFailure.EMPTY_THINKING, FormatFailure.THINKING_CUT_OFF):
        assert not THINKING_ANSWER.has_thinking(text)


@given(TEXTS)
def test_no_tag_is_left(text):
    assert not THINKING_ANSWER.contains_tag(THINKING_ANSWER.without_tags(text))


# Quadratic time on these would be hours.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "x",
        " ",
        "</Answer",
        "<<<>",
        *THINKING_ANSWER.tags,
        "<Answer></Answer>",
        "<Thinking></Thinking>",
        "<Thinking> <Answer>",
    ],
)
def test_four_megabytes_of_anything(unit):
    text = unit * ((4 << 20) // len(unit))
    THINKING_ANSWER.parse(text)
    THINKING_ANSWER.find_answer_block(text)
    THINKING_ANSWER.has_thinking(text)
    THINKING_ANSWER.parse(f"<Thinking>{text}</Thinking><Answer>{text}</Answer>")


def test_a_megabyte():
    thinking = "x<" * 500_000
    parsed = THINKING_ANSWER.parse(f"<Thinking>{thinking}</Thinking><Answer>4</Answer>")
    assert (parsed.thinking, parsed.answer) == (thinking, "4")
    assert THINKING_ANSWER.parse("<Thinking>" * 100_000).failure is FormatFailure.REPEATED
    assert THINKING_ANSWER.find_answer_block("<Answer>" * 125_000) is None
