"""A text that only denies an answer is never said to give it, whatever words deny it."""

import itertools

import pytest
from sftkey.datasets.registry import dataset
from sftkey.evaluation.assess import assess
from sftkey.evaluation.verdicts import RuleVerdict

OPTIONS = {"label": list("ABCD"), "text": ["a thermometer", "a ruler", "a balance", "a stopwatch"]}
ROWS = {
    "gsm8k": ({"question": "?", "answer": "#### 14"}, ("14",)),
    "openr1_math": ({"problem": "?", "answer": "14"}, ("14", "$14$")),
    "cot_collection": ({"source": "?", "target": "14"}, ("14",)),
    "openbookqa": (
        {"id": "1", "question_stem": "?", "choices": OPTIONS, "answerKey": "C"},
        ("C", "a balance"),
    ),
}
SUBJECTS = ("The answer", "It", "The total", "The correct option")
DENIALS = (
    "cannot be", "can't be", "can not be", "won't be", "couldn’t be", "isn't", "is not", "could never be", "is anything but",
    "is hardly", "is unlikely to be", "doubtfully is",
)  # fmt: skip
QUESTIONS = ("Is the answer {}?", "Could it be {}?", "Do we get {}?", "Perhaps {}?")
REPLIES = ("No.", "Nope.", "Certainly not.", "Never.", "I doubt it.", "That's wrong.", "It isn't.")
OTHERS = (
    "Anything but {}.", "All but {}.", "Everything except {}.", "Any of them but {}.", "Other than {}.", "{} is out.",
    "{} fails.", "{} can be ruled out.", "{} doesn't fit.", "Avoid {}.", "I reject {}.", "{}: incorrect", "{} - wrong",
    "{} excluded.", "{} ruled out.", "{} eliminated", "{} rejected.", "{} discarded!", "{} dismissed.",
)  # fmt: skip
TEXTS = (
    *(f"{subject} {denial} {{}}." for subject, denial in itertools.product(SUBJECTS, DENIALS)),
    *(f"{question} {reply}" for question, reply in itertools.product(QUESTIONS, REPLIES)),
    *OTHERS,
)


def verdict(name: str, output: str) -> RuleVerdict:
    return assess(output, ROWS[name][0], dataset(name), plain=False).rule_verdict


@pytest.mark.parametrize("name", ROWS)
def test_what_is_only_denied_is_not_the_answer(name: str) -> None:
    wrong = [
        output
        for text, answer in itertools.product(TEXTS, ROWS[name][1])
        for output in (text.format(answer), f"<Thinking>Steps.</Thinking><Answer>{text.format(answer)}</Answer>")
        if verdict(name, output) is RuleVerdict.SAME
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ROWS)
def test_what_is_said_instead_counts(name: str) -> None:
    for answer, other in zip(ROWS[name][1], {"openbookqa": ("B", "a ruler")}.get(name, ("15", "$15$")), strict=False):
        for text in ("The answer is {}, not {}.", "The answer is not {1}, but {0}.", "The answer isn't {1}. It's {0}."):
            if name == "cot_collection":
                continue
            said = text.format(answer, other)
            assert verdict(name, said) is RuleVerdict.SAME, said


@pytest.mark.parametrize("said", ["A beats C.", "A fits better than C.", "A wins over C.", "A over C."])
def test_a_letter_before_a_verb_is_no_article(said: str) -> None:
    assert verdict("openbookqa", said) is not RuleVerdict.SAME


@pytest.mark.parametrize("said", ["14-", "14 -", "14—", "14 ×", "14^"])
def test_a_number_with_a_hanging_operator_is_unfinished(said: str) -> None:
    output = f"<Thinking>Steps.</Thinking><Answer>{said}</Answer>"
    assert verdict("gsm8k", output) is RuleVerdict.CANT_TELL
