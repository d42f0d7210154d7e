r"""CoT-Collection: 1,060 tasks with model-written rationales (``kaist-ai/CoT-Collection``, about 1.84 million rows).

The repository holds a loading script, which `datasets` refuses since version 4; the Parquet conversion of config ``en``
is at the revision ``refs/convert/parquet``. There is only a ``train`` split, so `sftkey.datasets.holdout` holds out a
fixed part of it, about 920 rows, for evaluation. Its authors allow non-commercial use only
(github.com/kaistAI/CoT-Collection, License).

- Question: ``source``, the task's instruction with its input.
- Thinking: ``rationale``.
- Answer (the Key): ``target``.

The untagged form is that of the authors' own training code: rationale, ``\n[ANSWER] ``, target
(github.com/kaistAI/CoT-Collection, CoT_Finetuning).
"""

from __future__ import annotations

from functools import partial

from sftkey.datasets.base import EMPTY_QUESTION, NO_ANSWER, ReasoningDataset, Row, make_example, required_text, stripped
from sftkey.datasets.holdout import row_is_held_out
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm

HELD_OUT_SHARE = 0.0005
"""The share of sources that are evaluated instead of trained on."""


def question(row: Row) -> str:
    """The instruction and its input; `SkippedRow` where there is none."""
    return stripped(required_text(row, "source"), EMPTY_QUESTION)


def reference(row: Row) -> str:
    """The target; `SkippedRow` where there is none."""
    return stripped(required_text(row, "target"), NO_ANSWER)


def to_example(row: Row) -> Example:
    """Turn a row of ``kaist-ai/CoT-Collection`` (``source``, ``rationale``, ``target``) into an `Example`.

    Raises:
        KeyError: The data has no such column.
        SkippedRow: A field is missing, empty or not text.
    """
    return make_example(question(row), required_text(row, "rationale").strip(), reference(row))


held_out = partial(row_is_held_out, question=question, share=HELD_OUT_SHARE)


COT_COLLECTION = ReasoningDataset(
    name="cot_collection",
    title="CoT-Collection",
    path="kaist-ai/CoT-Collection",
    config="en",
    revision="refs/convert/parquet",
    test_split=None,
    to_example=to_example,
    question=question,
    reference=reference,
    held_out=held_out,
    note="CoT-Collection has 1.8 million rows: num_epochs=1, or a part such as datasets.0.split=train[:100000]",
    columns=("source", "target", "task", "type"),
    untagged=UntaggedForm(between="\n[ANSWER] "),
)

load = COT_COLLECTION.load
