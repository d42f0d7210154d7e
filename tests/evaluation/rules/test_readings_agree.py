"""Answers that hold two readings: a verdict only where they agree, or where one is said to be the answer."""

from __future__ import annotations

import pytest
from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.rules.equivalence import compare
from sftkey.evaluation.rules.question import asked
from sftkey.evaluation.rules.reading import read
from sftkey.evaluation.verdicts import RuleVerdict
from sftkey.format.untagged import UntaggedForm

SAME, DIFFERENT, CANT_TELL = RuleVerdict
FORM = UntaggedForm(between="\n#### ")
OPTIONS = {"A": "iron", "B": "wood", "C": "a magnet", "D": "water vapor"}


@pytest.mark.parametrize("sign", [r"\approx", "≈", r"\simeq"])
@pytest.mark.parametrize(
    ("exact", "rounded", "reference", "verdict"),
    [
        (r"\frac{1}{3}", "0.33", r"\frac13", SAME),
        (r"\sqrt{2}", "1.41", r"\sqrt{2}", SAME),
        (r"2\pi", "6.28", "6.28", SAME),
        (r"\sqrt{2}", "1.41", r"\sqrt{3}", CANT_TELL),
        (r"\frac{1}{3}", "0.33", "3", CANT_TELL),
    ],
)
def test_an_exact_value_and_its_approximation(
    sign: str, exact: str, rounded: str, reference: str, verdict: RuleVerdict
) -> None:
    for text in (f"{exact} {sign} {rounded}", f"${exact} {sign} {rounded}$"):
        assert compare(text, reference, AnswerKind.MATHS).verdict is verdict, text


@pytest.mark.parametrize(
    ("answer", "verdict"), [("forty-two (42)", SAME), ("forty-two (24)", CANT_TELL), ("twenty-four (42)", CANT_TELL)]
)
def test_a_number_in_words_and_in_brackets(answer: str, verdict: RuleVerdict) -> None:
    assert compare(answer, "42", AnswerKind.NUMBER).verdict is verdict


@pytest.mark.parametrize("right", list(OPTIONS))
@pytest.mark.parametrize("form", ["{}: {}.", "{}) - {}.", "({}) {}.", "{}: {},"])
@pytest.mark.parametrize("no", ["no", "No", "incorrect", "wrong"])
def test_a_list_of_yes_and_no(right: str, form: str, no: str) -> None:
    text = " ".join(form.format(letter, "yes" if letter == right else no) for letter in OPTIONS)
    for separator in (" ", "\n"):
        candidates = read(text.replace(". ", f".{separator}"), AnswerKind.OPTION, FORM, OPTIONS).candidates
        verdicts = {compare(one, right, AnswerKind.OPTION, OPTIONS).verdict for one in candidates}
        assert verdicts <= {SAME, CANT_TELL}, (text, candidates)


@pytest.mark.parametrize("text", ["C (iron)", "(C) iron", "The answer is C (wood).", "C: water vapor"])
def test_a_letter_with_the_text_of_another_option(text: str) -> None:
    for letter in OPTIONS:
        candidates = read(text, AnswerKind.OPTION, FORM, OPTIONS).candidates
        assert all(compare(one, letter, AnswerKind.OPTION, OPTIONS).verdict is CANT_TELL for one in candidates)


def test_a_question_without_a_word_is_none() -> None:
    assert not asked("?").given
    assert not asked(" \n").given
    assert asked("x").given
