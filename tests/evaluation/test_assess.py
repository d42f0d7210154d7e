"""One output of each data set, from its text to what the rules say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.datasets.registry import DATASETS, dataset
from sftkey.evaluation.assess import assess
from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.format.formats import THINK, read_format
from sftkey.format.response_format import FormatFailure

ROWS = {
    "gsm8k": {"question": " 3 + 4? ", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    "openr1_math": {"problem": "Half of one?", "answer": r"\frac{1}{2}", "uuid": "1"},
    # The config main: without the fact that training needs as its thinking.
    "openbookqa": {
        "id": "1",
        "question_stem": "There is fog around",
        "choices": {"text": ["a marsh", "a tundra"], "label": ["A", "B"]},
        "answerKey": "A",
    },
    # As published: without the explanation that training needs.
    "commonsenseqa": {
        "id": "1",
        "question": "Where is a marsh?",
        "choices": {"text": ["wet lands", "desert"], "label": ["A", "B"]},
        "answerKey": "A",
    },
    "cot_collection": {"source": "Capital of France?", "target": "Paris", "task": "t", "type": "CoT"},
}
RIGHT = {
    "gsm8k": "$7",
    "openr1_math": "0.5",
    "openbookqa": "a marsh",
    "cot_collection": "paris.",
    "commonsenseqa": "(A)",
}
WRONG = {"gsm8k": "8", "openr1_math": "2", "openbookqa": "B", "cot_collection": "no", "commonsenseqa": "desert"}
PLAIN = {
    "gsm8k": "3 + 4 is\n#### {}",
    "openr1_math": "One half.\n\nThe final answer is \\boxed{{{}}}",
    "openbookqa": "Fog needs water\nThe answer is {}",
    "commonsenseqa": "Marshes are wet\nThe answer is {}",
    "cot_collection": "It is big\n[ANSWER] {}",
}


def test_every_data_set_is_found_by_its_name():
    assert all(dataset(name).name == name and dataset(name).columns for name in DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_right_answer_in_tags(name):
    item = assess(f"<Thinking>well</Thinking><Answer>{RIGHT[name]}</Answer>", ROWS[name], dataset(name), plain=False)
    assert item.rule_verdict is RuleVerdict.SAME
    assert item.extraction == "answer block"
    assert item.format_failure is None
    assert item.thinking_valid
    assert item.question == dataset(name).question_of(ROWS[name])


@pytest.mark.parametrize("name", DATASETS)
def test_a_right_answer_in_the_untagged_form(name):
    output = PLAIN[name].format(RIGHT[name])
    plain = assess(output, ROWS[name], dataset(name), plain=True)
    assert plain.rule_verdict is RuleVerdict.SAME
    assert plain.format_failure is None
    assert plain.thinking_valid
    # The same output is right, but not in the format, where tags are expected.
    tagged = assess(output, ROWS[name], dataset(name), plain=False)
    assert tagged.rule_verdict is RuleVerdict.SAME
    assert tagged.format_failure is FormatFailure.NO_THINKING
    assert not tagged.thinking_valid


@pytest.mark.parametrize("name", DATASETS)
def test_a_wrong_answer_in_the_right_format(name):
    item = assess(f"<Thinking>well</Thinking><Answer>{WRONG[name]}</Answer>", ROWS[name], dataset(name), plain=False)
    assert item.rule_verdict is not RuleVerdict.SAME
    assert item.format_failure is None


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("output", ["", None, 7, "   "])
def test_no_output_is_wrong_and_goes_to_no_judge(name, output):
    for plain in (False, True):
        item = assess(output, ROWS[name], dataset(name), plain=plain)
        assert item.rule_verdict is RuleVerdict.DIFFERENT
        assert item.extracted is None
        assert item.format_failure is FormatFailure.NO_THINKING


def test_an_answer_of_several_lines_is_well_formed_where_the_reference_has_several():
    row = {"source": "List two.", "target": "one\ntwo"}
    item = assess("Well.\n[ANSWER] one\ntwo", row, dataset("cot_collection"), plain=True)
    assert item.format_failure is None
    assert item.rule_verdict is RuleVerdict.SAME


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("unit", ["9", "<Answer>", "{", "\x00", "the answer is (A) ", "#### 9\n"])
def test_a_megabyte_of_output(name, unit):
    output = unit * ((1 << 20) // len(unit))
    for plain in (False, True):
        item = assess(output, ROWS[name], dataset(name), plain=plain)
        assert item.rule_verdict is not RuleVerdict.SAME or "(A)" in unit


# The first output pays for what is loaded then.
@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_output_is_assessed(output):
    for name in ("gsm8k", "openbookqa", "cot_collection"):
        assess(output, ROWS[name], dataset(name), plain=True)
        assess(output, ROWS[name], dataset(name), plain=False)


HEADINGS = read_format({"thinking_open": "### Reasoning\n", "thinking_close": "\n### Answer\n"})
ENDED = read_format({"thinking_open": "{t}", "thinking_close": "{/t}", "answer_open": "{a}", "answer_close": "{/a}"})


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(("written", "opened"), [(THINK, ""), (THINK, "<think>\n"), (HEADINGS, ""), (ENDED, "{t}")])
def test_answers_in_other_formats(name, written, opened):
    for said in (RIGHT[name], WRONG[name]):
        tagged = f"<Thinking>well</Thinking><Answer>{said}</Answer>"
        verdict = assess(tagged, ROWS[name], dataset(name), plain=False).rule_verdict
        output = "".join(piece.text for piece in written.render("well", said)).removeprefix(opened)
        item = assess(output, ROWS[name], dataset(name), plain=False, response_format=written, opened=opened)
        assert (item.rule_verdict, item.format_failure, item.thinking_valid) == (verdict, None, True)
    cut_off = assess("wel", ROWS[name], dataset(name), plain=False, response_format=written, opened=opened)
    failure = FormatFailure.THINKING_CUT_OFF if opened else FormatFailure.NO_THINKING
    assert cut_off.format_failure is failure


def test_the_papers_tags_are_no_format_of_a_model_that_thinks():
    output = "<Thinking>well</Thinking><Answer>7</Answer>"
    item = assess(output, ROWS["gsm8k"], dataset("gsm8k"), plain=False, response_format=THINK)
    assert (item.format_failure, item.rule_verdict) == (FormatFailure.NO_THINKING, RuleVerdict.SAME)
