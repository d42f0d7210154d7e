"""What an output says: phrases, wrappers, corrections and denials permuted, on generated and on real rows."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.datasets import openbookqa
from sftkey.datasets.base import AnswerKind
from sftkey.datasets.cot_collection import COT_COLLECTION
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.openbookqa import OPENBOOKQA
from sftkey.datasets.openr1_math import OPENR1_MATH
from sftkey.evaluation.assess import assess
from sftkey.evaluation.rules.options import named
from sftkey.evaluation.rules.reading import MAX_SHOWN, read, read_thinking
from sftkey.evaluation.verdicts import RuleVerdict

ON = {"gsm8k": GSM8K, "openr1_math": OPENR1_MATH, "openbookqa": OPENBOOKQA, "cot_collection": COT_COLLECTION}
OPTIONS = {"A": "a plant", "B": "the sun", "C": "plant food", "D": "the moon"}

WRAPPERS = (
    "{}",
    "<Thinking>or 7?</Thinking>{}",
    "<think>Or 7.</think>\n\n{}",
    "<reasoning>(D), 7</reasoning>\n{}\n",
    "{}</s>",
    "<|channel|>analysis<|message|>7 or D<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "{}<|im_end|>\n",
    "<think>a</think>{}\n\nQuestion: what is 3 + 4?\nAnswer: 7\n#### 7",
    "{}\n\nUser: 7?",
    "Let me work it out.\n\n{}",
    "{}\n\nLet me know if you want 7 more examples of D.",
    "{}\n\nI hope this helps!",
)
SAY_A_NUMBER = (
    "The answer is {}.",
    "Answer: {}",
    "ANSWER: {}",
    "**Answer:** {}",
    "**Final Answer: {}**",
    "### Answer: {}",
    "The final answer is: {}",
    "So the answer must be {}.",
    "The answer should be {}",
    "The answer to the question is {}.",
    "#### {}",
    "So \\boxed{{{}}}.",
    "Hence $\\boxed{{{}}}$ in all.",
    "<answer>{}</answer>",
    "<Answer>{}</Answer>",
    "<ANSWER>\n{}\n</ANSWER>",
    "<Answer>The answer is {}.</Answer>",
    "The answer is {}, not 7.",
    "The answer is not 7, but {}.",
    "The answer is {} rather than 7.",
    "The answer is {} and not 7.",
    "The answer is 7. Wait, actually the answer is {}.",
    "First $\\boxed{{7}}$, later corrected: $\\boxed{{{}}}$.",
    "I get \\boxed{{7}}. That misses a case. Corrected, it is \\boxed{{{}}}.",
    "Correction: the answer is {}.",
    "答案：{}",
    "If the answer is 7, she has too many. The answer is {}.",
    "Therefore there are {} in all.",
    "It can't be 7, so the total is {}",
)
SAY_A_LETTER = (
    "The answer is {}.",
    "The answer is {} because it fits.",
    "The answer is {} since plants need light",
    "Answer: {}",
    "ANSWER: <{}>",
    "ANSWER: ({})",
    "answer: [{}]",
    "**ANSWER: {}**",
    "ANSWER: `{}`",
    "ANSWER: $\\mathbf{{{}}}$",
    "Final answer: **({})**",
    "### Answer: {}",
    "So the answer must be {}.",
    "The answer should be option {}.",
    "The answer is probably {}.",
    "The answer is the letter {}.",
    "The correct option is {}",
    "I would go with {}.",
    "I choose {}.",
    "So {} it is.",
    "{} is correct",
    "Option {} is right.",
    "（{}）",
    "'{}'",
    '"{}"',
    "→ {}",
    "✅ {}",
    "- {}",
    "_{}_",
    "**{}**",
    "{}!",
    "{} ✓",
    "({})",
    "{}.",
    "{})",
    "答案是{}。",
    "\\boxed{{{}}}",
    "\\boxed{{\\text{{{}}}}}",
    "The answer is\n\n{}",
    "Answer:\n\nAnswer: {}",
    "{}\n\nExplanation: it fits best.",
    "<answer>{}</answer>",
    "<Answer>{} is correct</Answer>",
    "<Answer>{} because it fits</Answer>",
    "<Answer>{}\n\nIt fits.</Answer>",
    "<Answer>{}. Explanation: it fits</Answer>",
    "<Answer>I choose {}</Answer>",
    "<Answer>Letter {}</Answer>",
)
SAY_A_LETTER_NOT_ANOTHER = (
    "The answer is {}, not {other}.",
    "The answer is {} and not {other}.",
    "The answer is ({}) rather than ({other}).",
    "I think the answer is {}, although {other} is tempting.",
    "We can rule out ({other}). So {} it is.",
    "{other} is wrong; {}",
    "My answer is {other}... wait, actually {}.",
    "The answer is {other}? No, {}.",
    "The answer isn't {other}. It's {}.",
    "Option {other}: no. Option {}: yes.",
    "Maybe \\boxed{{{other}}}. No: \\boxed{{{}}}",
    "It is not {other} but {}.",
    "{other} is incorrect. {} is correct.",
    "Eliminate {other}. The answer is {}.",
    "The answer is {}; {other} is wrong.",
    "{}\n\nExplanation: it fits; ({other}) does not.",
    "If the answer is {other}, nothing fits. The answer is {}.",
    "Instead of {other}, choose {}.",
    "The answer is {} because {other} conducts heat.",
    "<Answer>{}, not {other}</Answer>",
    "<Answer>not {other}, but {}</Answer>",
    "<Answer>{}. Explanation: {other} is wrong</Answer>",
    "Neither {other} nor E fits. The answer is {}",
)
NOT_CLEAR = (
    "{} or {other}",
    "{} and {other}",
    "{}, {other}",
    "({})({other})",
    "{} & {other}",
    "The answer is {} or {other}.",
    "Both {} and {other}.",
    "I am torn between {} and {other}.",
    "{}. a plant\n{other}. the sun",
    "Neither {} nor {other} is correct.",
)
letters = st.sampled_from(sorted(OPTIONS))
numbers = st.integers(10, 99_999) | st.integers(-99_999, -10)


def verdict(output: str, name: str, row: dict) -> RuleVerdict:
    return assess(output, row, ON[name], plain=False).rule_verdict


def gsm8k(number: int) -> dict:
    return {"question": "How many?", "answer": f"#### {number}"}


def choice(letter: str) -> dict:
    choices = {"label": list(OPTIONS), "text": list(OPTIONS.values())}
    return {"id": "1", "question_stem": "Light comes from", "choices": choices, "answerKey": letter}


@settings(deadline=None)
@given(st.sampled_from(WRAPPERS), st.sampled_from(SAY_A_NUMBER), numbers, st.integers(1, 9))
def test_a_number_in_every_phrase(wrapper, phrase, number, off):
    output = wrapper.format(phrase.format(number))
    assert verdict(output, "gsm8k", gsm8k(number)) is RuleVerdict.SAME
    assert verdict(output, "gsm8k", gsm8k(number + off)) is not RuleVerdict.SAME
    assert verdict(output, "gsm8k", gsm8k(7)) is not RuleVerdict.SAME
    assert verdict(output, "gsm8k", gsm8k(-number)) is not RuleVerdict.SAME


@settings(deadline=None)
@given(st.sampled_from(WRAPPERS), st.sampled_from(SAY_A_LETTER), letters, letters)
def test_a_letter_in_every_phrase(wrapper, phrase, letter, other):
    output = wrapper.format(phrase.format(letter))
    expected = RuleVerdict.SAME if letter == other else RuleVerdict.DIFFERENT
    assert verdict(output, "openbookqa", choice(other)) is expected


@settings(deadline=None)
@given(st.sampled_from(WRAPPERS), st.sampled_from(SAY_A_LETTER_NOT_ANOTHER), st.permutations(sorted(OPTIONS)))
def test_the_asserted_letter_beats_the_denied_one(wrapper, phrase, shuffled):
    letter, other = shuffled[:2]
    output = wrapper.format(phrase.format(letter, other=other))
    assert verdict(output, "openbookqa", choice(letter)) is RuleVerdict.SAME
    assert verdict(output, "openbookqa", choice(other)) is RuleVerdict.DIFFERENT


@settings(deadline=None)
@given(st.sampled_from(("{}", "<Answer>{}</Answer>")), st.sampled_from(NOT_CLEAR), st.permutations(sorted(OPTIONS)))
def test_several_letters_are_no_answer(wrapper, phrase, shuffled):
    letter, other = shuffled[:2]
    output = wrapper.format(phrase.format(letter, other=other))
    assert verdict(output, "openbookqa", choice(letter)) is RuleVerdict.CANT_TELL
    assert verdict(output, "openbookqa", choice(other)) is RuleVerdict.CANT_TELL


@pytest.mark.parametrize(
    "output",
    [
        "{} is wrong",
        "({}) is wrong",
        "{}. is incorrect",
        "The answer is not {}.",
        "I do not think the answer is {}.",
        "Not {}.",
        "<Answer>{} is wrong</Answer>",
        "<Answer>The answer is not {}</Answer>",
        "I would say {} is tempting",
        "{} seems right, but it isn't.",
        "One might say that the answer is {}.",
        "None of E, F and {} is correct.",
        "Is it {}?",
    ],
)
@pytest.mark.parametrize("letter", sorted(OPTIONS))
def test_a_letter_that_is_denied_is_never_right(output, letter):
    assert verdict(output.format(letter), "openbookqa", choice(letter)) is not RuleVerdict.SAME


PROSE = (
    ("She started with 20 cups and gave away 8, so she has {} left.", True),
    ("There are {} cups left (20 - 8).", True),
    ("20 - 8 = {} cups are left.", True),
    ("{} cups. She gave away 8.", True),
    ("She has {} cups.\n\nNote: this assumes that 8 were given away.", True),
    ("The answer is {} cups.\n\nNote: this assumes that 8 were given away.", True),
    ("The total is {}. She shared it with 3 friends.", True),
    ("So the answer is 7. Let me verify: 20 - 9 = 11. So it is {}.", True),
    ("So the answer is {}. Let me verify: it fits. Correct.", True),
    ("7? No, {}.", True),
    ("Her profit was ${} on sales of $20.", True),
    ("If the answer were {}, she would have 20. So the answer is 15.", False),
    ("Not {}.", False),
    ("It can't be {}.", False),
    ("The answer is not {}.", False),
    ("I don't think the answer is {}.", False),
    ("At least {}.", False),
    ("More than {}", False),
    ("{} or more", False),
    ("It's either {} or 13.", False),
    ("Ann has {} and Bob has 8.", False),
)


@pytest.mark.parametrize(("phrase", "right"), PROSE)
@pytest.mark.parametrize("wrapper", WRAPPERS[:5])
def test_prose_without_a_convention_is_never_misread(wrapper, phrase, right):
    found = verdict(wrapper.format(phrase.format(12)), "gsm8k", gsm8k(12))
    assert found in (
        (RuleVerdict.SAME, RuleVerdict.CANT_TELL) if right else (RuleVerdict.DIFFERENT, RuleVerdict.CANT_TELL)
    )
    assert verdict(wrapper.format(phrase.format(12)), "gsm8k", gsm8k(97)) is not RuleVerdict.SAME


@pytest.mark.parametrize(
    ("output", "boxes"),
    [
        (r"So \boxed{3} or \boxed{-3}.", ("3, -3",)),
        (r"The roots are \boxed{4}, \boxed{6}, \boxed{9}.", ("4, 6, 9",)),
        (r"\boxed{4} again \boxed{4}", ("4",)),
        (r"$\boxed{x=2}$, $\boxed{y=5}$", ("x=2, y=5",)),
        (r"<Answer>\boxed{1} and \boxed{2}</Answer>", ("1, 2",)),
        (r"First \boxed{3}; corrected: \boxed{4}", ("4",)),
        ("Step 1: \\boxed{3}\n\nThen more.\n\nSo \\boxed{12}", ("3, 12", "12")),
        (r"\boxed{7} dozen", ("7 dozen",)),
        (r"The answer is $\boxed{42}$.", ("42",)),
    ],
)
def test_several_boxes_are_one_answer_in_parts(output, boxes):
    for on in (OPENR1_MATH, GSM8K):
        assert read(output, on.kind, on.untagged).candidates == boxes


def test_no_answer_found_is_cant_tell_and_the_judge_sees_the_end():
    for name, row in (("gsm8k", gsm8k(12)), ("openbookqa", choice("B"))):
        output = "<Thinking>well</Thinking>" + "I really don't know. " * 400
        item = assess(output, row, ON[name], plain=False)
        assert item.rule_verdict is RuleVerdict.CANT_TELL
        assert item.extracted is None
        assert item.for_judge == output.strip()[-MAX_SHOWN:]


@pytest.mark.parametrize(
    "output", ["<think>It is 12.", "<think>It is 12.</think>", "<Thinking>It is 12.</Thinking><Answer></Answer>"]
)
def test_what_holds_no_answer_is_shown_to_no_judge(output):
    item = assess(output, gsm8k(12), GSM8K, plain=False)
    assert item.rule_verdict is RuleVerdict.DIFFERENT
    assert item.for_judge == ""
    assert item.unfinished_verdict is RuleVerdict.SAME
    assert assess(output, gsm8k(13), GSM8K, plain=False).unfinished_verdict is RuleVerdict.DIFFERENT
    assert read_thinking("It is 12.", GSM8K.kind, GSM8K.untagged) == ("12",)


@settings(deadline=None)
@given(st.sampled_from(WRAPPERS), st.sampled_from(SAY_A_NUMBER), numbers)
def test_the_judge_sees_all_that_the_rules_saw(wrapper, phrase, number):
    said = phrase.format(number)
    item = assess(wrapper.format(said), gsm8k(number), GSM8K, plain=False)
    inside = said.removeprefix("<Answer>").removesuffix("</Answer>")
    if "nswer>" not in inside.lower():
        assert inside.strip() in item.for_judge


def test_of_a_long_output_the_judge_sees_the_answer_and_the_end():
    output = "#### 38\n" + "Nothing else is needed here. " * 1_000
    item = assess(output, gsm8k(38), GSM8K, plain=False)
    assert item.rule_verdict is RuleVerdict.SAME
    assert item.for_judge.startswith("38\n[...]\n")
    assert item.for_judge.endswith("needed here.")
    assert len(item.for_judge) <= MAX_SHOWN


def test_text_after_a_block_counts_where_it_takes_the_block_back():
    row = gsm8k(12)
    assert verdict("<Answer>12</Answer> I hope it helps 3 people.", "gsm8k", row) is RuleVerdict.SAME
    assert verdict("<Answer>12</Answer> Wait, that's wrong; it's 13.", "gsm8k", row) is RuleVerdict.CANT_TELL
    assert verdict("<Answer>7</Answer> Wait, that's wrong; it's 12.", "gsm8k", row) is RuleVerdict.CANT_TELL


def test_every_real_row_in_a_sample_of_the_phrases(gsm8k_rows, openbookqa_rows):
    for place, row in enumerate(gsm8k_rows["test"]):
        number = GSM8K.reference_of(row)
        output = WRAPPERS[place % len(WRAPPERS)].format(SAY_A_NUMBER[place % len(SAY_A_NUMBER)].format(number))
        assert verdict(output, "gsm8k", row) is RuleVerdict.SAME, output
    for place, row in enumerate(openbookqa_rows):
        options = openbookqa.choices(row)
        right = row["answerKey"]
        wrong = next(letter for letter in options if letter != right)
        phrase = SAY_A_LETTER_NOT_ANOTHER[place % len(SAY_A_LETTER_NOT_ANOTHER)]
        assert verdict(phrase.format(right, other=wrong), "openbookqa", row) is RuleVerdict.SAME, phrase
        assert verdict(phrase.format(wrong, other=right), "openbookqa", row) is RuleVerdict.DIFFERENT, phrase
        text = f"It is {options[right]}, not {options[wrong]}."
        assert verdict(text, "openbookqa", row) in (RuleVerdict.SAME, RuleVerdict.CANT_TELL), text
        assert named(options[right], options)


# Quadratic time on these would be hours.
@pytest.mark.parametrize("kind", list(AnswerKind))
@pytest.mark.parametrize(
    "unit",
    [
        "not ",
        "but ",
        ", not",
        "B is right ",
        "because ",
        "wait, ",
        "no, ",
        "A or ",
        "if the answer is ",
        "答案",
        "Answer: B\n",
        "it is B ",
        "\\boxed{1} ",
        "\\boxed{\\boxed{",
        "}\\boxed{1}",
        "so 7 = ",
        "let me know",
        "\nA. x",
        "(B)",
        "vitamin D ",
        "so ",
        "neither B nor ",
        "Question: 7\n",
        "a" * 40 + " ",
        "answer to ",
        "twenty ",
        "7. ",
        "$7$ ",
        "? No, ",
    ],
)
def test_a_megabyte_of_words_is_read_in_time(kind, unit):
    on = {one.kind: one for one in ON.values()}[kind]
    start = time.perf_counter()
    read(unit * ((1 << 20) // len(unit)), kind, on.untagged, OPTIONS if kind is AnswerKind.OPTION else None)
    assert time.perf_counter() - start < 10
