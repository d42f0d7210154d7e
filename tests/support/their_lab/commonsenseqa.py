"""CommonsenseQA with a human explanation in each row."""

from sftkey.datasets.base import AnswerKind, ReasoningDataset, make_example, required_text
from sftkey.format.untagged import UntaggedForm


def options(row):
    """Letter -> text."""
    return dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))


def question(row):
    """The question and its choices, one line each."""
    lines = [f"{letter}. {text}" for letter, text in options(row).items()]
    return "\n".join([required_text(row, "question"), *lines])


def reference(row):
    """The right choice."""
    return f"{row['answerKey']}. {options(row)[row['answerKey']]}"


def to_example(row):
    """The explanation is the thinking."""
    return make_example(question(row), required_text(row, "explanation"), reference(row))


THEIRS = ReasoningDataset(
    name="their_commonsenseqa",
    path=None,
    to_example=to_example,
    untagged=UntaggedForm(between="\nThe answer is "),
    kind=AnswerKind.OPTION,
    options=options,
    question=question,
    reference=reference,
)

load = THEIRS.load
