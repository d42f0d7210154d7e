"""Which parts of an output can hold its answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.evaluation.rules.regions import Where, find_regions

THINKING = (
    ("<Thinking>", "</Thinking>"),
    ("<think>", "</think>"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ('<think lang="en">', "</think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("", "</think>"),  # the prompt opened it
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysisSo, ", "assistantfinal"),
)
ANSWERS = (
    "<Answer>{}</Answer>",
    "<answer>{}</answer>",
    "<ANSWER>{}</ANSWER>",
    "<final_answer>{}</final_answer>",
    "< answer >{}</ answer >",
)
ENDS = (
    "",
    "</s>",
    "<|im_end|>",
    "<|im_end|>\n<|im_start|>user\nAnd 11?",
    "<|eot_id|><|start_header_id|>user<|end_header_id|>11?",
    "<|return|>",
    "<end_of_turn>\n<start_of_turn>user\n11?",
    "\n\nUser: and 11?",
    "\nHuman: and 11?\nAssistant: 11",
    "</s>[INST] 11? [/INST] 11",
)
NEW_QUESTIONS = (
    "\n\nQuestion: what is 5+6?\n",
    "\nQ: 5+6?\nA: ",
    "\n\n**Question 2:** 5+6?\n",
    "\n### Problem: 5+6?\n",
    "\n\nTask: 11?\n",
    "\nNext question: 5+6?",
    "\n\n问题：5+6?\n",
)
texts = st.text(alphabet="ab 12.,\n", max_size=30)


def found(output: str) -> list[str]:
    return [region.text.strip() for region in find_regions(output).found]


@settings(deadline=None)
@given(st.sampled_from(THINKING), texts, st.sampled_from(ENDS), texts.filter(str.strip))
def test_what_follows_the_thinking(tags, thinking, end, answer):
    opened, closed = tags
    assert found(f"{opened}{thinking}12{closed}{answer}{end}") == [answer.strip()]


@settings(deadline=None)
@given(st.sampled_from(THINKING[:11]), st.sampled_from(ANSWERS), texts, st.sampled_from((*ENDS, *NEW_QUESTIONS)))
def test_an_answer_block_in_any_case(tags, block, thinking, end):
    opened, closed = tags
    output = f"{opened}{thinking}{closed}{block.format('12')}{end}"
    regions = find_regions(output).found
    assert [(region.text, region.where) for region in regions if region.where is not Where.TEXT] == [
        ("12", Where.BLOCK)
    ]


@settings(deadline=None)
@given(st.sampled_from([tags for tags in THINKING if tags[0]]), texts, st.sampled_from(ENDS[:1]))
def test_thinking_that_never_ends_holds_no_answer(tags, thinking, end):
    regions = find_regions(f"{tags[0]}The answer is 12. {thinking}{end}")
    assert regions.found == ()
    assert "The answer is 12. " in regions.unfinished


@pytest.mark.parametrize(("opened", "closed"), [tags for tags in THINKING if tags[0]])
@pytest.mark.parametrize("after", ["", "<Answer></Answer>", " \n", "<answer> </answer>", "<Answer>\n"])
def test_nothing_after_the_thinking_holds_no_answer(opened, closed, after):
    if "channel" in opened + closed or opened.startswith("analysis"):
        after = after.replace("<Answer>\n", "")
    regions = find_regions(f"{opened}The answer is 12.{closed}{after}")
    assert regions.found == ()
    assert "12" in regions.unfinished


@pytest.mark.parametrize("question", NEW_QUESTIONS)
@pytest.mark.parametrize("second", ["<Thinking>b</Thinking><Answer>11</Answer>", "<Answer>11</Answer>", "11", ""])
def test_a_new_question_ends_the_output(question, second):
    assert found(f"<Thinking>a</Thinking><Answer>12</Answer>{question}{second}") == ["12"]


def test_a_second_thinking():
    first, second = "<Thinking>a</Thinking><Answer>12</Answer>", "<think>b</think><Answer>11</Answer>"
    # After other text it belongs to another question; else the model may have thought again.
    assert found(f"{first}\nNow the next one.\n{second}") == ["12"]
    assert found(first + second) == ["12", "11"]
    assert found("<think>a</think>12<think>b</think>11") == ["12", "11"]
    assert found("<think>a</think>It is 12.<think>and b") == ["It is 12."]


@pytest.mark.parametrize(
    ("output", "regions"),
    [
        ("", []),
        ("12", ["12"]),
        ("<|im_start|>assistant\n12", ["12"]),
        ("<think>maybe <answer>5</answer></think>12", ["12"]),
        ("<think>so <answer>12</answer></think>", ["12"]),
        ("<Thinking>so<Answer>12", ["12"]),
        ("<Thinking>so<Answer>12</An", ["12"]),
        ("<think>so<answer>12</ans", ["12"]),
        ("<Answer>12</Answer>\nI hope this helps.", ["12", "I hope this helps."]),
        ("The answer is 12.<think>let me check: 11", ["The answer is 12."]),
        ("<Answer>12</s></Answer>", ["12"]),
        ("<solution>12</solution>", ["12"]),
        ("if 3 < 4 and x > 5 then 12", ["if 3 < 4 and x > 5 then 12"]),
        ("the <b>answer</b> is 12", ["the <b>answer</b> is 12"]),
    ],
)
def test_by_hand(output, regions):
    assert found(output) == regions


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *(tag for tags in THINKING for tag in tags),
                *ENDS,
                *NEW_QUESTIONS,
                "<Answer>",
                "</answer>",
                "12",
                " ",
                "x",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_regions_are_parts_of_the_output(output):
    regions = find_regions(output)
    for region in regions.found:
        assert region.text.strip()
        assert all(line in output for line in region.text.split("\n"))


@pytest.mark.parametrize(
    "unit",
    [
        "<think>",
        "</think>",
        "<answer>",
        "</Answer>",
        "<",
        "<think ",
        "<|channel|>",
        "<|channel|>final<|message|>",
        "<|im_end|>",
        "Question:",
        "\nQuestion:",
        "\n",
        "\n ",
        " ",
        "[",
        "◁",
        "<answer><think>",
        "</think><think>a",
        "analysis",
        "assistant final",
        "# ",
        "\n# ",
        "\nUser:",
    ],
)
def test_a_megabyte_of_marks_is_read_in_time(unit):
    output = unit * ((1 << 20) // len(unit))
    start = time.perf_counter()
    find_regions(output)
    find_regions("x" + output + "12")
    assert time.perf_counter() - start < 10  # quadratic time would be hours
