"""What the evaluation knows about each data set: what its answers are and how an output is assessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sftkey.datasets import openbookqa
from sftkey.datasets.base import ReasoningDataset, Row
from sftkey.datasets.columns import with_columns
from sftkey.datasets.registry import dataset
from sftkey.evaluation.rules.answers import AnswerKind, extract
from sftkey.evaluation.rules.equivalence import compare
from sftkey.evaluation.verdicts import Item, RuleVerdict
from sftkey.format import tags, untagged


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A data set as it is evaluated.

    Attributes:
        dataset: Where its rows come from, with `question` and `reference`.
        kind: What its answers are.
        columns: The columns that evaluation reads; only these are logged with an item.
        options: For multiple choice, a row's options, letter -> text.
    """

    dataset: ReasoningDataset
    kind: AnswerKind
    columns: tuple[str, ...]
    options: Callable[[Row], Mapping[str, str]] | None = None

    def question(self, row: Row) -> str:
        """The question as in training.

        Raises:
            SkippedRow: The row has none.
        """
        assert self.dataset.question is not None
        return self.dataset.question(row)

    def reference(self, row: Row) -> str:
        """The reference answer.

        Raises:
            SkippedRow: The row has none.
        """
        assert self.dataset.reference is not None
        return self.dataset.reference(row)


@cache
def benchmark(name: str) -> Benchmark:
    """Look a benchmark up.

    Args:
        name: The data set's name in `sftkey.datasets.registry`, or ``columns`` for own rows.

    Raises:
        KeyError: The data set has no benchmark.
    """
    kind, columns, options = _KINDS[name]
    return Benchmark(with_columns(None) if name == "columns" else dataset(name), kind, columns, options)


_KINDS: dict[str, tuple[AnswerKind, tuple[str, ...], Callable[[Row], Mapping[str, str]] | None]] = {
    "gsm8k": (AnswerKind.NUMBER, ("question", "answer"), None),
    "openr1_math": (AnswerKind.MATHS, ("problem", "answer", "problem_type", "source", "uuid"), None),
    "openbookqa": (
        AnswerKind.OPTION,
        ("id", "question_stem", "choices", "answerKey"),
        openbookqa.choices,
    ),
    "cot_collection": (AnswerKind.TEXT, ("source", "target", "task", "type"), None),
    # The user's own rows, for a task of their own: tests/demo/tasks shows one.
    "columns": (AnswerKind.TEXT, ("question", "answer"), None),
}


def assess(output: Any, row: Row, on: Benchmark, *, plain: bool) -> Item:
    """Look at one output: its format, its answer, and what the rules say about it. The judge comes later.

    Args:
        output: What the model wrote; anything but a text counts as no output.
        row: The row that was asked.
        on: The benchmark that the row is from.
        plain: Whether the expected format is the data set's own untagged form instead of the tags.

    Returns:
        The item. Bounded in time and memory whatever the output is.
    """
    text = output if isinstance(output, str) else ""
    reference = on.reference(row)
    form = on.dataset.untagged
    if plain:
        parsed = untagged.parse(text, form, one_line="\n" not in reference)
        thinking_valid = untagged.has_thinking(text, form)
    else:
        parsed = tags.parse(text)
        thinking_valid = tags.has_thinking(text)
    options = on.options(row) if on.options is not None else None
    extraction = extract(text, on.kind, form, options)
    verdict, detail, over_limit = RuleVerdict.DIFFERENT, "no answer in the output", False
    if extraction.text is not None:
        comparison = compare(extraction.text, reference, on.kind, options)
        verdict, detail, over_limit = comparison.verdict, comparison.detail, comparison.over_limit
    return Item(
        question=on.question(row),
        reference=reference,
        extracted=extraction.text,
        extraction=extraction.rule,
        rule_verdict=verdict,
        rule_detail=detail,
        over_limit=over_limit,
        format_failure=parsed.failure,
        thinking_valid=thinking_valid,
    )
