"""Fmt of the untagged baselines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets.cot_collection import COT_COLLECTION
from sftkey.datasets.gsm8k import GSM8K
from sftkey.datasets.openbookqa import OPENBOOKQA
from sftkey.datasets.openr1_math import OPENR1_MATH
from sftkey.format import untagged
from sftkey.format.response_format import FormatFailure
from sftkey.format.untagged import UntaggedForm

HASHES = GSM8K.untagged
BOXED = OPENR1_MATH.untagged


@pytest.mark.parametrize(
    ("output", "form", "failure"),
    [
        ("3 + 4 = 7\n#### 7", HASHES, None),
        ("  3 + 4 = 7 \n####7 \n", HASHES, None),
        ("3 + 4 = 7\n\n  #### 7", HASHES, None),
        ("Use #### signs.\n#### 7", HASHES, None),
        ("So\n\nThe final answer is \\boxed{\\frac{1}{2}}", BOXED, None),
        ("So\nThe final answer is \\boxed{\n7\n}\n", BOXED, None),
        ("Fog needs water\nThe answer is A. a marsh", OPENBOOKQA.untagged, None),
        ("It is big\n[ANSWER] Paris", COT_COLLECTION.untagged, None),
        ("", HASHES, FormatFailure.NO_THINKING),
        (" \n", HASHES, FormatFailure.NO_THINKING),
        ("#### 7", HASHES, FormatFailure.NO_THINKING),
        ("7", HASHES, FormatFailure.NO_ANSWER),
        ("3 + 4 = 7 #### 7", HASHES, FormatFailure.NO_ANSWER),
        ("3 + 4 = 7\n####", HASHES, FormatFailure.EMPTY_ANSWER),
        ("3 + 4 = 7\n#### 7\n#### 7", HASHES, FormatFailure.REPEATED),
        ("3 + 4 = 7\n#### 7\nSo it is 7.", HASHES, FormatFailure.TEXT_OUTSIDE),
        ("<Thinking>3 + 4</Thinking>\n#### 7", HASHES, FormatFailure.TEXT_OUTSIDE),
        ("<Thinking>3 + 4</Thinking><Answer>7</Answer>", HASHES, FormatFailure.TEXT_OUTSIDE),
        ("So\nThe final answer is \\boxed{7", BOXED, FormatFailure.ANSWER_CUT_OFF),
        ("So\nThe final answer is \\boxed{7}. Done", BOXED, FormatFailure.TEXT_OUTSIDE),
        ("So\nThe final answer is \\boxed{}", BOXED, FormatFailure.EMPTY_ANSWER),
        ("So \\boxed{7}", BOXED, FormatFailure.NO_ANSWER),
        ("So the answer is Paris", COT_COLLECTION.untagged, FormatFailure.NO_ANSWER),
    ],
)
def test_forms(output, form, failure):
    parsed = untagged.parse(output, form)
    assert parsed.failure is failure
    assert (parsed.answer is None) == (failure is not None)


def test_an_answer_has_several_lines_only_where_the_reference_has():
    output = "It rains\n[ANSWER] first\nsecond"
    assert untagged.parse(output, COT_COLLECTION.untagged).failure is FormatFailure.TEXT_OUTSIDE
    assert untagged.parse(output, COT_COLLECTION.untagged, one_line=False).answer == "first\nsecond"


def test_a_form_with_a_beginning():
    form = UntaggedForm(before="<think>", between="</think>\n")
    assert untagged.parse("<think>a</think>\nb", form).failure is None
    assert untagged.parse("a</think>\nb", form).failure is FormatFailure.NO_THINKING


def test_every_real_gold_response_is_well_formed(gsm8k_rows, openbookqa_rows):
    for row in gsm8k_rows["train"] + gsm8k_rows["test"]:
        example = GSM8K.to_example(row)
        check_gold(example.thinking, example.answer, GSM8K.untagged)
    for row in openbookqa_rows:
        example = OPENBOOKQA.to_example({**row, "fact1": "fog needs water"})
        check_gold(example.thinking, example.answer, OPENBOOKQA.untagged)


@pytest.mark.parametrize("form", [GSM8K.untagged, OPENR1_MATH.untagged, OPENBOOKQA.untagged, COT_COLLECTION.untagged])
@given(
    thinking=st.text(alphabet="ab +=.\n", min_size=1).filter(str.strip),
    answer=st.text(alphabet="ab{}.", min_size=1),
)
def test_every_gold_response_is_well_formed(form, thinking, answer):
    check_gold(thinking, answer, form)


def check_gold(thinking: str, answer: str, form: UntaggedForm) -> None:
    output = "".join(piece.text for piece in form.render(thinking, answer))
    parsed = untagged.parse(output, form)
    assert (parsed.failure, parsed.answer) == (None, answer), output
    assert untagged.has_thinking(output, form)


@pytest.mark.parametrize("output", ["", "#### 7", "3 + 4 = 7", "\n#### 7"])
def test_no_thinking(output):
    assert not untagged.has_thinking(output, HASHES)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["#### ", "\n#### ", "\n", " ", " \n", "x#### ", "}"])
def test_a_megabyte_of_anything(unit):
    text = unit * ((1 << 20) // len(unit))
    for form in (HASHES, BOXED):
        untagged.parse(text, form)
        untagged.has_thinking(text, form)
