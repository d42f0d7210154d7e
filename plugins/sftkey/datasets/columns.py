"""Your own data: rows with a question, a thinking and an answer column (JSONL, Parquet or a Hub data set).

The columns are ``question``, ``thinking`` and ``answer`` unless the recipe renames them::

    datasets:
      - path: my_rows.jsonl
        type: sftkey.datasets.columns
    sftkey_columns: {question: prompt, thinking: cot, answer: target}

``sftkey_columns`` in an entry holds for that entry, before the recipe's. For multiple choice ``options`` names the column
of the options, or the columns of one each; without it they are those in the question's text.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from sftkey.datasets.base import (
    EMPTY_QUESTION,
    NO_ANSWER,
    AnswerKind,
    ReasoningDataset,
    Row,
    make_example,
    required_text,
    stripped,
)
from sftkey.datasets.own_options import options_of, right_option, with_options
from sftkey.format.example import Example
from sftkey.format.untagged import UntaggedForm
from sftkey.util.errors import UserError

COLUMNS = ("question", "thinking", "answer", "options")

Names = Mapping[str, Any]
"""The names of renamed columns, by their name in `COLUMNS`; of ``options`` also a list of names."""


def to_example(row: Row, names: Names | None = None) -> Example:
    """Turn a row into an `Example`, text verbatim.

    Args:
        row: A row with the three columns; numbers are taken as their text.
        names: See `Names`. With ``options`` the options are written below the question, unless they stand in it, and an
            answer that only names a position or a label of the data's own becomes the option's line.

    Raises:
        KeyError: The data has no such column.
        SkippedRow: A field is missing or empty; or the answer is none of the options.
    """
    names = names or {}
    thinking = required_text(row, names.get("thinking", "thinking"))
    if "options" not in names:
        return make_example(_text(row, "question", names), thinking, _text(row, "answer", names))
    letter, line = _right(row, names)
    given = _text(row, "answer", names)
    speaks = any(character.isalpha() for character in given) and given.strip() not in _options(row, names)[1]
    return make_example(question(row, names), thinking, given if speaks or given.strip() == letter else line)


def question(row: Row, names: Names | None = None) -> str:
    """The question of a row, with its options if they have a column; raises like `to_example`."""
    names = names or {}
    text = _text(row, "question", names)
    stripped(text, EMPTY_QUESTION)
    return with_options(text, options(row, names)) if "options" in names else text


def reference(row: Row, names: Names | None = None) -> str:
    """The answer of a row, the right option as its line; raises like `to_example`."""
    names = names or {}
    text = _text(row, "answer", names)
    stripped(text, NO_ANSWER)
    return _right(row, names)[1] if "options" in names else text


def options(row: Row, names: Names) -> dict[str, str]:
    """The options of a row, letter -> text; raises like `to_example`."""
    return _options(row, names)[0]


def _options(row: Row, names: Names) -> tuple[dict[str, str], dict[str, str]]:
    return options_of(row, names["options"])


def _right(row: Row, names: Names) -> tuple[str, str]:
    """The letter of the right option, and its line."""
    found, labels = _options(row, names)
    letter = right_option(_text(row, "answer", names), found, labels)
    return letter, f"{letter}. {found[letter]}"


def _text(row: Row, column: str, names: Names) -> str:
    return required_text(row, names.get(column, column))


def with_columns(names: Names | None) -> ReasoningDataset:
    """The data set of rows with the column names of ``sftkey_columns``.

    Raises:
        ValueError: `names` renames something that is not one of `COLUMNS`.
    """
    names = dict(names or {})
    unknown = sorted(map(str, set(names) - set(COLUMNS)))
    if unknown:
        raise ValueError(f"sftkey_columns: {', '.join(unknown)} unknown; its keys are {', '.join(COLUMNS)}")
    chosen = names.get("options", [])
    read = [names.get(column, column) for column in ("question", "answer")]
    return ReasoningDataset(
        name="columns",
        path=None,
        to_example=partial(to_example, names=names),
        untagged=UntaggedForm(between="\nThe answer is ", after="."),
        columns=tuple(dict.fromkeys([*read, *([chosen] if isinstance(chosen, str) else chosen)])),
        question=partial(question, names=names),
        reference=partial(reference, names=names),
        kind=AnswerKind.OPTION if chosen else AnswerKind.TEXT,
        options=partial(options, names=names) if chosen else None,
    )


ROWS = with_columns(None)


def load(tokenizer: Any, cfg: Any, ds_cfg: Any) -> Any:
    """Load an entry of ``datasets:``; see `ReasoningDataset.load`."""
    return with_columns(columns_of(ds_cfg, cfg.sftkey_columns)).load(tokenizer, cfg, ds_cfg)


def with_carried_columns(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with our keys where Axolotl's validation leaves them: it drops keys that it doesn't know."""
    carried = dict(entry)
    if names := carried.pop("sftkey_columns", None):
        # Its values are texts there.
        texts = {column: name if isinstance(name, str) else json.dumps(name) for column, name in dict(names).items()}
        carried["message_property_mappings"] = texts
    if turns := carried.pop("sftkey_turns", None):
        carried["message_property_mappings"] = {
            **(carried.get("message_property_mappings") or {}),
            "sftkey_turns": turns,
        }
    return carried


def columns_of(entry: Mapping[str, Any], given: Any = None) -> dict[str, Any]:
    """The column names of an entry: the recipe's, and its own as they stand or as `with_carried_columns` left them.

    Args:
        entry: The entry.
        given: The recipe's ``sftkey_columns``.

    Raises:
        UserError: They are no names.
    """
    own = entry.get("sftkey_columns")
    if not own and isinstance(carried := entry.get("message_property_mappings"), Mapping):
        own = {
            column: _listed(name) if column == "options" else name
            for column, name in carried.items()
            if column in COLUMNS
        }
    found: dict[str, Any] = {}
    for names in (given or {}, own or {}):
        if not isinstance(names, Mapping) or not all(_is_name(*item) for item in names.items()):
            raise UserError(
                f"sftkey_columns: {reprlib.repr(names)}; it maps {', '.join(COLUMNS)} to columns of the data"
            )
        found |= {column: name for column, name in names.items() if name}
    return found


def _listed(name: Any) -> Any:
    return json.loads(name) if isinstance(name, str) and name.startswith('["') else name


def _is_name(column: Any, name: Any) -> bool:
    several = column == "options" and isinstance(name, (list, tuple)) and all(isinstance(one, str) for one in name)
    return several or name is None or isinstance(name, str)
