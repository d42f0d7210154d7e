"""OpenBookQA: elementary science, four choices (``allenai/openbookqa``; 4,957 / 500 / 500 rows, Apache-2.0).

- Question: the stem, then one line for each choice, as in ``A. wind``.
- Thinking: ``fact1``, the science fact that the question was written from. Only the config ``additional`` has it.
- Answer (the Key): the right choice as its line in the question, letter and text, as in ``A. wind``.
"""

from __future__ import annotations

from sftkey.datasets.base import AnswerKind, ReasoningDataset, Row, make_example, required_text
from sftkey.datasets.choices import choices, question_with_choices, right_choice
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm


def question(row: Row) -> str:
    """The stem and the lettered choices; see `question_with_choices`."""
    return question_with_choices(row, "question_stem")


reference = right_choice


def to_example(row: Row) -> Example:
    """Turn a row of ``allenai/openbookqa``, config ``additional``, into an `Example`.

    Raises:
        KeyError: The data has no such column; ``fact1`` is missing from the config ``main``.
        SkippedRow: See `question_with_choices` and `right_choice`; or the fact is empty.
    """
    if "fact1" not in row:
        raise KeyError(
            "no column 'fact1' in the data; OpenBookQA has it in the config additional only: set name: additional"
        )
    return make_example(question(row), required_text(row, "fact1").strip(), reference(row))


OPENBOOKQA = ReasoningDataset(
    name="openbookqa",
    title="OpenBookQA",
    path="allenai/openbookqa",
    config="additional",
    to_example=to_example,
    question=question,
    reference=reference,
    sequence_len=1024,
    response_len=512,
    kind=AnswerKind.OPTION,
    columns=("id", "question_stem", "choices", "answerKey"),
    options=choices,
    untagged=UntaggedForm(between="\nThe answer is "),
)

load = OPENBOOKQA.load
