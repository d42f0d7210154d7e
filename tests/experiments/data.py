"""Rows -> training sequences of a method, and test prompts: with the masks and skips of the project's core."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sftkey.datasets import columns, registry
from sftkey.datasets.base import AnswerKind, ReasoningDataset, make_example
from sftkey.format.example import Example, SkippedRow
from sftkey.format.methods import Method
from sftkey.training.rows import RowTokenizer
from sftkey.training.tokenization import ExampleTokenizer, TokenizedExample
from sftkey.training.tokenizers import encode

from experiments.settings import InputError, Settings

Row = Mapping[str, Any]

NO_FACT = "No fact is given."
"""The thinking of OpenBookQA rows without ``fact1``: the format stays, but nothing is thought."""


@dataclass
class Data:
    """The rows of an experiment.

    Attributes:
        dataset: How a row becomes an example, and how an output is assessed.
        train: Rows to train on.
        test: Rows that have a question and a reference, in the order of the file.
        left_out: Test rows that have none, by reason.
        sha256: Of the rows in both files, as far as they are used.
        notes: What a reader of the results has to know about the data.
        skipped: Training rows that can't be used, by method and reason; filled by `training_examples`.
    """

    dataset: ReasoningDataset
    train: list[Row]
    test: list[Row]
    left_out: Counter[str] = field(default_factory=Counter)
    sha256: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a JSONL file.

    Raises:
        InputError: A line is not a JSON object; names file and line.
    """
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: a row has to be a JSON object, found {type(row).__name__}")
            rows.append(row)
    return rows


def load_data(settings: Settings) -> Data:
    """Read the rows of an experiment.

    Raises:
        InputError: A file isn't JSONL, a column is missing, or no test row can be asked.
    """
    kind = AnswerKind(settings.answers) if settings.answers else None
    dataset = columns.with_columns(None) if settings.dataset == "columns" else registry.dataset(settings.dataset)
    train = read_rows(settings.train_file)[: settings.rows]
    notes = []
    if dataset.name == "openbookqa" and train and "fact1" not in train[0]:
        dataset = replace(dataset, to_example=_without_fact)
        notes.append(
            f"The rows have no fact1, so the model answers without a fact: the thinking of every row is {NO_FACT!r} and "
            "carries no information."
        )
    data = Data(dataset.with_kind(kind), train, [], notes=notes)
    test = read_rows(settings.test_file)
    data.sha256 = {"train": _sha256(train), "test": _sha256(test)}
    for row in test:
        try:
            data.dataset.question_of(row)
            data.dataset.reference_of(row)
        except SkippedRow as skipped:
            data.left_out[skipped.reason] += 1
        except KeyError as error:
            raise InputError(f"{settings.test_file}: {error.args[0]}") from error
        else:
            data.test.append(row)
    if not data.test:
        raise InputError(
            f"{settings.test_file}: no row has a question and a reference answer; {_reasons(data.left_out)}"
        )
    return data


def _sha256(rows: list[Row]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _reasons(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in skipped.items()) or "it holds no rows"


def _without_fact(row: Row) -> Example:
    from sftkey.datasets import openbookqa

    return make_example(openbookqa.question(row), NO_FACT, openbookqa.reference(row))


def example_tokenizer(data: Data, tokenizer: Any, method: Method) -> ExampleTokenizer:
    """The tokenization of a method; `tokenizer` carries its chat template."""
    return ExampleTokenizer(tokenizer, method, data.dataset.untagged)


def training_examples(data: Data, tokenizer: Any, method: Method, settings: Settings) -> list[TokenizedExample]:
    """The training rows of a method; what is skipped is counted in ``data.skipped``.

    Raises:
        InputError: No row is left, or a column is missing.
    """
    try:
        results = RowTokenizer(data.dataset, example_tokenizer(data, tokenizer, method), settings.sequence_len)(
            data.train
        )
    except KeyError as error:
        raise InputError(f"{settings.train_file}: {error.args[0]}") from error
    examples = [result for result in results if not isinstance(result, str)]
    data.skipped[method.name] = dict(Counter(result for result in results if isinstance(result, str)))
    if not examples:
        raise InputError(f"{settings.train_file}: no row can be trained on; {_reasons(data.skipped[method.name])}")
    return examples


def test_prompts(data: Data, tokenizer: Any, method: Method, items: int) -> list[list[int]]:
    """The prompts of the first `items` test rows, as token ids."""
    tokenize = example_tokenizer(data, tokenizer, method)
    return encode(tokenizer, [tokenize.prompt(data.dataset.question_of(row)) for row in data.test[:items]])


def usable_rows(data: Data, tokenizer: Any, method: Method, limit: int, *, test: bool) -> list[tuple[Row, Example]]:
    """The first `limit` rows of a file that have a thinking and are safe to tokenise: what a diagnosis looks at.

    Test rows need no thinking to be asked, so those without one, or without the column, are passed over.
    """
    passed_over = (SkippedRow, KeyError) if test else (SkippedRow,)
    rows = RowTokenizer(data.dataset, example_tokenizer(data, tokenizer, method), sys.maxsize, evaluation=test)
    usable: list[tuple[Row, Example]] = []
    for row in data.test if test else data.train:
        if len(usable) == limit:
            break
        with suppress(*passed_over):
            usable.append((row, rows.example(row)))
    return usable
