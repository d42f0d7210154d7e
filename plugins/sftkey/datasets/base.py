"""A data set: where it is published, how a row becomes an `Example`, its form without tags."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

from sftkey.format.example import Example, Message, SkippedRow, messages_of
from sftkey.format.untagged import UntaggedForm
from sftkey.util.errors import UserError, install_short_error_hook

EMPTY_QUESTION = "empty question"
EMPTY_THINKING = "empty thinking"
NO_ANSWER = "no answer"
MISSING_FIELD = "missing field"

_MOST_ZEROS = 20

Row = Mapping[str, Any]


class AnswerKind(Enum):
    """The kind of a data set's answers, which decides how they are found and compared."""

    NUMBER = "number"
    MATHS = "maths"
    OPTION = "option"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class ReasoningDataset:
    """One data set with reasoning and a final answer. Only the first four fields are required.

    Attributes:
        name: Short name, as in ``--dataset`` and in task names.
        path: The Hub repository, ``None`` for the user's own data.
        to_example: Turns a row as published into an `Example`, or raises `SkippedRow`.
        untagged: Its own form, for the untagged methods.
        title: The name in papers; empty where it is `name`.
        config: Configuration name on the Hub.
        train_split: The split for training.
        test_split: The split for evaluation; ``None`` where that is a held-out part of the train split.
        revision: The Hub revision, where it isn't the default one.
        held_out: For data without a test split, whether a row belongs to the evaluated part; never raises for a row
            that has the columns.
        sequence_len: The ``sequence_len`` of its recipes, in tokens.
        response_len: The most tokens of an output in evaluation.
        note: What the writer of a recipe has to know before training on it.
        kind: The kind of its answers.
        columns: The columns that evaluation reads; only these are logged with an item. Empty for all.
        options: For multiple choice, the options of a row: letter -> text.
        question: The ``question`` of `to_example` alone, for evaluation on rows without a thinking; ``None`` for that
            of `to_example`.
        reference: The ``answer`` of `to_example` alone, likewise. Both raise `SkippedRow` where there is none.
        history: The ``history`` of `to_example` alone, likewise; ``None`` where there is never one.
        tools: The ``tools`` of `to_example` alone, likewise.
        expand: The rows that a row as published stands for, one for each turn that is trained; ``None`` where that is itself.
        problem: The text by which a row is held out; ``None`` for its question. Turns of one conversation share it.
        thinking_right: Whether a thinking, empty where an output has none, is right for a row; ``None`` where that can't be
            told. It never raises, whatever the thinking is.
    """

    name: str
    path: str | None
    to_example: Callable[[Row], Example]
    untagged: UntaggedForm
    title: str = ""
    config: str | None = None
    train_split: str = "train"
    test_split: str | None = "test"
    revision: str | None = None
    held_out: Callable[[Row], bool] | None = None
    sequence_len: int = 2048
    response_len: int = 1024
    note: str = ""
    kind: AnswerKind = AnswerKind.TEXT
    columns: tuple[str, ...] = ()
    options: Callable[[Row], Mapping[str, str]] | None = None
    question: Callable[[Row], str] | None = None
    reference: Callable[[Row], str] | None = None
    history: Callable[[Row], tuple[Message, ...]] | None = None
    tools: Callable[[Row], tuple[Message, ...]] | None = None
    expand: Callable[[Row], Iterator[Row]] | None = None
    problem: Callable[[Row], str] | None = None
    thinking_right: Callable[[Row, str], bool | None] | None = None

    @property
    def evaluation_split(self) -> str | None:
        """The split with the rows for evaluation; ``None`` where nothing tells them from the training rows."""
        return self.test_split or (self.train_split if self.held_out is not None else None)

    def question_of(self, row: Row) -> str:
        """The question of a row; raises like `to_example`, but needs no thinking where `question` is set."""
        return self.to_example(row).question if self.question is None else self.question(row)

    def reference_of(self, row: Row) -> str:
        """The reference answer of a row; raises like `to_example`, but needs no thinking where `reference` is set."""
        return self.to_example(row).answer if self.reference is None else self.reference(row)

    def messages_of(self, row: Row, question: str) -> list[Message]:
        """The messages of a row's prompt, of which `question` is the last one of the user; raises like `to_example`."""
        return messages_of(question, self.history(row) if self.history is not None else ())

    def problem_of(self, row: Row) -> str:
        """The text by which a row is held out; raises like `to_example`."""
        return self.question_of(row) if self.problem is None else self.problem(row)

    def with_kind(self, kind: AnswerKind | None) -> ReasoningDataset:
        """The same data set with another kind of answers, for the user's own rows; ``None`` changes nothing.

        Raises:
            ValueError: The data set is published, or `kind` is multiple choice and there are no options.
        """
        if kind in (None, self.kind):
            return self
        if self.path is not None:
            raise ValueError(f"the answers of {self.name} are of the kind {self.kind.value}")
        if kind is AnswerKind.OPTION and self.options is None:
            raise ValueError("own rows have no options; their answers are number, maths or text")
        return replace(self, kind=kind)

    def load(self, tokenizer: Any, cfg: Any, ds_cfg: Any) -> Any:
        """Load an entry of ``datasets:``; Axolotl calls this for ``type: sftkey.datasets.<name>``.

        Args:
            tokenizer: The recipe's tokenizer, with its chat template.
            cfg: The recipe, validated.
            ds_cfg: The entry of ``datasets:``.

        Returns:
            The front end's result: with `sftkey.SFTKeyPlugin` an Axolotl dataset strategy.

        Raises:
            UserError: The recipe lacks the plugin, so that no front end is in use.
        """
        if _front_end is None or not cfg.sftkey_method:
            install_short_error_hook()  # the missing plugin would have done this
            raise UserError(
                f"datasets: type {ds_cfg.type} needs the plugin; add `plugins: [sftkey.SFTKeyPlugin]` and `sftkey_method:`"
            )
        return _front_end(self, tokenizer, cfg, ds_cfg)


FrontEnd = Callable[[ReasoningDataset, Any, Any, Any], Any]
_front_end: FrontEnd | None = None


def use_front_end(load: FrontEnd) -> None:
    """Set what `ReasoningDataset.load` calls, with the data set and its three arguments."""
    global _front_end
    _front_end = load


def required_value(row: Row, column: str) -> Any:
    """The value of a column that every row must have.

    Raises:
        KeyError: The data has no such column: an error of the recipe, not of the row.
        SkippedRow: The row has no value there.
    """
    if column not in row:
        raise KeyError(f"no column {column!r} in the data; it has: {', '.join(sorted(map(str, row)))}")
    value = row[column]
    if value is None:
        raise SkippedRow(f"{MISSING_FIELD}: {column}")
    return value


def required_list(row: Row, column: str) -> Sequence[Any]:
    """The list in a column; raises like `required_value`, and `SkippedRow` for anything but a list."""
    value = required_value(row, column)
    if not isinstance(value, (list, tuple)):
        raise SkippedRow(f"not a list: {column}")
    return value


def required_text(row: Row, column: str) -> str:
    """The text in a column, or a number or date as text; raises like `required_value`, and `SkippedRow` for anything else."""
    value = required_value(row, column)
    if isinstance(value, date):  # which Arrow makes of texts such as 2024-01-31
        return value.isoformat().removesuffix("T00:00:00")
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        if not math.isfinite(value):
            # pandas writes a missing number as NaN.
            raise SkippedRow(f"{MISSING_FIELD}: {column}")
        return _as_written(value)
    if not isinstance(value, str):
        raise SkippedRow(f"not text: {column}")
    return value


def _as_written(number: int | float | Decimal) -> str:
    """A number as people write it: ``18`` for 18.0, to which one missing value in the column turns all whole numbers."""
    if isinstance(number, int):
        return str(number)
    # The shortest digits that mean this number, without an exponent unless it needs many zeros.
    exact = Decimal(repr(number)) if isinstance(number, float) else number
    if not exact:
        return "0"
    if not -_MOST_ZEROS <= exact.adjusted() <= _MOST_ZEROS:
        return str(number)
    text = f"{exact:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def stripped(text: str, reason_if_empty: str) -> str:
    """`text` without the white space around it; raises `SkippedRow` where nothing is left."""
    text = text.strip()
    if not text:
        raise SkippedRow(reason_if_empty)
    return text


def make_example(
    question: str, thinking: str, answer: str, history: tuple[Message, ...] = (), tools: tuple[Message, ...] = ()
) -> Example:
    """Build an `Example`, skipping the rows from which nothing can be learned.

    Raises:
        SkippedRow: The question, the thinking or the answer is empty or only white space. A format with an empty
            block scores Fmt 0, so it must not be taught either.
    """
    for text, reason_if_empty in ((question, EMPTY_QUESTION), (answer, NO_ANSWER), (thinking, EMPTY_THINKING)):
        stripped(text, reason_if_empty)
    return Example(question, thinking, answer, history, tools)
