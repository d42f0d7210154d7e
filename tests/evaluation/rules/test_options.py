"""Which option an answer names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.datasets import openbookqa
from sftkey.evaluation.rules.options import named

LUNCH = {
    "A": "make more phone calls",
    "B": "quit eating lunch out",
    "C": "buy less with monopoly money",
    "D": "have lunch with friends",
}


@pytest.mark.parametrize(
    "answer",
    [
        "B", "(B)", "[B]", "b", "(b)", "B.", "B)", "B:", "B. quit eating lunch out", "(B) quit eating lunch out",
        "B: quit eating lunch out.", "B - quit eating lunch out", "B quit eating lunch out", "quit eating lunch out",
        "Quit eating lunch out.", "QUIT  EATING\nLUNCH OUT", "the answer is B", "The correct answer is (B).",
        "Answer: B",
        "option B", "Option (B)", "choice b", "**B**", "**B. quit eating lunch out**", r"\boxed{B}", r"\text{(B)}",
        "$B$",
        "B. because eating out is dear", "(B), it saves money", " B \n",
        "The right option is: B. quit eating lunch out",
    ],
)  # fmt: skip
def test_names_option_b(answer):
    assert named(answer, LUNCH) == {"B"}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "none of them",
        "B or C",
        "A and B",
        "(A), (B)",
        "B. have lunch with friends",
        "lunch",
        "42",
        "Because",
        "\x00",
    ],
)
def test_names_no_one_option(answer):
    assert named(answer, LUNCH) is None


@pytest.mark.parametrize("answer", ["E", "(E)", "z."])
def test_a_letter_that_is_none_of_the_options(answer):
    assert named(answer, LUNCH) == frozenset()


@pytest.mark.parametrize("answer", ["F. something", "(G) eat out", "E: none"])
def test_a_label_that_is_none_of_the_options(answer):
    assert named(answer, LUNCH) == frozenset()


@pytest.mark.parametrize(("answer", "letter"), [("two", "A"), ("rocks", "D"), ("the 3", "B"), ("four", "C")])
def test_an_option_in_words_or_in_the_plural(answer, letter):
    assert named(answer, {"A": "2", "B": "3", "C": "4", "D": "a rock"}) == {letter}


def test_a_plural_beside_its_singular():
    options = {"A": "a plant", "B": "plants"}
    assert named("plants", options) == {"B"}
    assert named("plant", options) == {"A"}


def test_an_option_that_begins_with_a_word_of_one_letter():
    # "A plant" is option B's text, although it begins like option A.
    assert named("A plant", {"A": "the sun", "B": "a plant"}) == {"B"}
    assert named("a marsh", {"A": "a marsh", "B": "a tundra"}) == {"A"}
    assert named("A. a marsh", {"A": "a marsh", "B": "a tundra"}) == {"A"}


def test_options_with_the_same_text_are_one():
    options = {"A": "wind", "B": "Wind.", "C": "rain"}
    assert named("wind", options) == {"A", "B"}
    assert named("B. wind", options) == {"B"}


def test_every_real_option_is_recognised_in_every_spelling(openbookqa_rows):
    for row in openbookqa_rows:
        options = openbookqa.choices(row)
        for letter, text in options.items():
            for spelling in (
                letter,
                f"({letter})",
                f"{letter}. {text}",
                f"({letter}) {text}",
                f"The answer is {letter}. {text}",
            ):
                assert named(spelling, options) == {letter}, (row["id"], spelling)
            assert letter in (named(text, options) or ()), (row["id"], text)
        reference = named(openbookqa.reference(row), options)
        assert reference == {row["answerKey"]}


@given(st.text(max_size=80))
def test_anything_is_read(answer):
    found = named(answer, LUNCH)
    assert found is None or found <= set(LUNCH)
