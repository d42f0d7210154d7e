"""Your own data: rows with a question, a thinking and an answer column (JSONL, Parquet or a Hub data set).

The columns are ``question``, ``thinking`` and ``answer`` unless the recipe renames them::

    datasets:
      - path: my_rows.jsonl
        type: sftkey.datasets.columns
    sftkey_columns: {question: prompt, thinking: cot, answer: target}

``sftkey_columns`` in an entry holds for that entry, before the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sftkey.datasets.base import (
    EMPTY_QUESTION,
    NO_ANSWER,
    ReasoningDataset,
    Row,
    make_example,
    required_text,
    stripped,
)
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm

COLUMNS = ("question", "thinking", "answer")


def to_example(row: Row, names: Mapping[str, str] | None = None) -> Example:
    """Turn a row into an `Example`, text verbatim.

    Args:
        row: A row with the three columns; numbers are taken as their text.
        names: The names of renamed columns, by their name in `COLUMNS`.

    Raises:
        KeyError: The data has no such column.
        SkippedRow: A field is missing or empty.
    """
    names = names or {}
    return make_example(*(required_text(row, names.get(column, column)) for column in COLUMNS))


def question(row: Row) -> str:
    """The question of a row with the default column names; raises like `to_example`."""
    return _filled(row, "question", EMPTY_QUESTION)


def reference(row: Row) -> str:
    """The answer of a row with the default column names; raises like `to_example`."""
    return _filled(row, "answer", NO_ANSWER)


def _filled(row: Row, column: str, empty: str) -> str:
    text = required_text(row, column)
    stripped(text, empty)
    return text


def with_columns(names: Mapping[str, str] | None) -> ReasoningDataset:
    """The data set of rows with the column names of ``sftkey_columns``.

    Raises:
        ValueError: `names` renames something that is not one of `COLUMNS`.
    """
    names = dict(names or {})
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown:
        raise ValueError(f"sftkey_columns: {', '.join(unknown)} unknown; its keys are {', '.join(COLUMNS)}")
    return ReasoningDataset(
        name="columns",
        path=None,
        to_example=partial(to_example, names=names),
        untagged=UntaggedForm(between="\nThe answer is ", after="."),
        columns=() if names else ("question", "answer"),
        question=None if names else question,
        reference=None if names else reference,
    )


ROWS = with_columns(None)


def load(tokenizer: Any, cfg: Any, ds_cfg: Any) -> Any:
    """Load an entry of ``datasets:``; see `ReasoningDataset.load`."""
    names = {**(cfg.sftkey_columns or {}), **columns_of(ds_cfg)}
    return with_columns(names).load(tokenizer, cfg, ds_cfg)


def with_carried_columns(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with its ``sftkey_columns`` where Axolotl's validation leaves them: it drops keys that it doesn't know."""
    carried = dict(entry)
    if names := carried.pop("sftkey_columns", None):
        carried["message_property_mappings"] = dict(names)
    return carried


def columns_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """The column names of an entry itself, as `with_carried_columns` left them; Axolotl adds two keys of messages."""
    names = entry.get("sftkey_columns") or entry.get("message_property_mappings") or {}
    return {column: name for column, name in names.items() if column in COLUMNS}
