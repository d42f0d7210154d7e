"""CommonsenseQA with human explanations: everyday knowledge, five choices (9,741 train and 1,221 validation rows).

The questions are CommonsenseQA 1.11 (``tau/commonsense_qa``, MIT), the explanations the open-ended ones of CoS-E 1.11
(github.com/salesforce/cos-e, BSD-3-Clause), which the published data set lacks. To train, join them by ``id`` into a
column ``explanation`` of a file of your own, and name that file as ``path``. Evaluation needs no explanation and reads the
published validation split, whose questions CoS-E explains as well; the test split has no answer keys.

- Question: the question, then one line for each choice, as in ``A. bank``.
- Thinking: ``explanation``, written by people: short, uneven, in about half of the rows with the answer's text in it.
  Rows with one of `FILLERS` are skipped.
- Answer (the Key): the right choice as its line in the question, letter and text, as in ``A. bank``.
"""

from __future__ import annotations

from sftkey.datasets.base import AnswerKind, ReasoningDataset, Row, SkippedRow, make_example, required_text
from sftkey.datasets.choices import choices, question_with_choices, right_choice
from sftkey.datasets.holdout import problem_key
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm

FILLER_EXPLANATION = "explanation that says nothing of the question"

FILLERS = (
    "Rivers flow trough valleys.",
    "Health complications",
    "Gritting your teeth",
    "This word is most relavant",
    "This word was most relevant.",
    "This word is more relevant",
    "This word is more relevent",
    "This option is better to this task.",
    "This is better option",
    "This is better answer",
    "That's typically what happens",
)
"""The explanations, spelt as in CoS-E, that ten or more unrelated questions share: 1,324 of its 10,962 rows."""

_FILLER_KEYS = frozenset(map(problem_key, FILLERS))


def question(row: Row) -> str:
    """The question and the lettered choices; see `question_with_choices`."""
    return question_with_choices(row, "question")


def to_example(row: Row) -> Example:
    """Turn a row with ``question``, ``choices``, ``answerKey`` and ``explanation`` into an `Example`.

    Raises:
        KeyError: The data has no such column; ``explanation`` is missing from ``tau/commonsense_qa``.
        SkippedRow: See `question_with_choices` and `right_choice`; or the explanation is empty or a filler.
    """
    if "explanation" not in row:
        raise KeyError(
            "no column 'explanation' in the data; the published CommonsenseQA has none: join those of CoS-E 1.11 by id "
            "and set path: to your file"
        )
    thinking = required_text(row, "explanation").strip()
    if problem_key(thinking) in _FILLER_KEYS:
        raise SkippedRow(FILLER_EXPLANATION)
    return make_example(question(row), thinking, right_choice(row))


COMMONSENSEQA = ReasoningDataset(
    name="commonsenseqa",
    title="CommonsenseQA",
    path="tau/commonsense_qa",
    test_split="validation",
    to_example=to_example,
    question=question,
    reference=right_choice,
    sequence_len=1024,
    response_len=512,
    note="CommonsenseQA is published without explanations: join those of CoS-E 1.11 by id, and name the file with "
    "datasets.0.path=my_rows.jsonl",
    kind=AnswerKind.OPTION,
    columns=("id", "question", "choices", "answerKey"),
    options=choices,
    untagged=UntaggedForm(between="\nThe answer is "),
)

load = COMMONSENSEQA.load
