"""The rows that the task of own data asks about: the evaluated stage's test file, or the part that its recipe held out."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from sftkey.datasets.base import ReasoningDataset
from sftkey.datasets.columns import with_columns
from sftkey.datasets.entry_shapes import check_entry_shapes
from sftkey.datasets.loading import entry_dataset, entry_rows
from sftkey.datasets.messages import MESSAGES, reader_of
from sftkey.datasets.own_data import KINDS, as_recipe_says
from sftkey.datasets.registry import OWN_DATA, TYPES
from sftkey.evaluation.documents import documents
from sftkey.evaluation.trained_model import ANSWERS, STAGE, recipe_of
from sftkey.util.errors import UserError
from sftkey.util.files import MARKER_FILE
from sftkey.util.text import one_line, shorten

OWN = "own"
"""What a task's ``dataset`` is where the evaluated model's recipe says it."""

_PLACES = (STAGE, "peft", "lora_local_path", "pretrained", "model", "tokenizer")
_MAX_NAME = 1024
_MAX_MESSAGE = 2_000


@dataclass(frozen=True)
class OwnRows:
    """The rows of a user's own data that are evaluated.

    Attributes:
        name: The path of the training data.
        on: How they are read.
        rows: The rows, chosen.
    """

    name: str
    on: ReasoningDataset
    rows: Dataset


def model_arguments(manager: type) -> Mapping[str, Any]:
    """What lm-eval was told of the model: its task manager, of the class `manager`, is among the callers.

    It gives that to tasks that have no class of their own, and to no others.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller: Any = frame.f_locals.get("self")
        if isinstance(caller, manager):
            return getattr(caller, "metadata", None) or {}
        frame = frame.f_back
    return {}


def data_of_task(config: Mapping[str, Any], find: Callable[[str], ReasoningDataset]) -> ReasoningDataset:
    """The data set that a task's file names, with the columns and the kind of own rows that it gives.

    Raises:
        UserError: There is no such data set, or it has no such columns or kind.
    """
    name, columns = str(config["dataset"]), config.get("columns")
    if columns and name != "columns":
        raise UserError(f"task {config.get('task')}: columns: only own rows, of dataset: columns, have other names")
    try:
        return as_recipe_says(with_columns(columns) if columns else find(name), {}, config.get("answers"))
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, UserError) else UserError(f"task {config.get('task')}: {error}") from error


def rows_of_model(arguments: Mapping[str, Any]) -> OwnRows:
    """The rows for an evaluated model.

    Args:
        arguments: What lm-eval was told of the model (``pretrained``, ``peft``, ...), and its ``--metadata``.

    Raises:
        UserError: None of them names the output directory of a stage; or see `own_rows`.
    """
    for key in _PLACES:
        recipe = recipe_of(arguments.get(key))
        if recipe is not None:
            return own_rows(recipe, str(Path(str(arguments[key])) / MARKER_FILE), arguments.get(ANSWERS))
    raise UserError(
        "task sftkey_own: it asks about the rows that a stage's own recipe names, and no argument of the model is the output "
        f'directory of a stage; use `sftkey eval OUTPUT_DIR`, or add --metadata \'{{"{STAGE}": "OUTPUT_DIR"}}\''
    )


def own_rows(recipe: Mapping[str, Any], where: str, kind: str | None = None) -> OwnRows:
    """The rows that a recipe's own data are evaluated on: those of ``test_datasets``, or the part that is held out.

    Args:
        recipe: The recipe, which may be a stranger's: code that it names isn't imported.
        where: Where it stands, for messages.
        kind: The kind of the answers in place of the recipe's.

    Raises:
        UserError: It has none, they can't be read, a column is missing, or no row is left.
    """
    kind = kind or recipe.get(ANSWERS)
    if kind is not None and kind not in KINDS:
        raise UserError(f"{where}: {ANSWERS}: {reprlib.repr(kind)} is not one of {', '.join(KINDS)}")
    training = _own_entries(recipe, "datasets", where)
    tests = _own_entries(recipe, "test_datasets", where)
    if not training and not tests:
        raise UserError(f"{where}: it has no rows of its own (type {' or '.join(TYPES + name for name in OWN_DATA)})")
    if not tests and not recipe.get("sftkey_held_out"):
        raise UserError(
            f"{where}: no row of {training[0].get('path')} is held out of training; set sftkey_held_out: 0.1, or name a file "
            "of other rows in test_datasets, before training"
        )
    entries = tests or training
    place = "test_datasets" if tests else "datasets"
    try:
        found = [entry_dataset(entry, {**recipe, ANSWERS: kind}) for entry in entries]
        longest = recipe.get("sequence_len")
        # The question is in a sequence, too.
        response_len = max(1, longest * 3 // 4) if type(longest) is int and longest > 0 else found[0].response_len
        on = replace(found[0], name=OWN, response_len=response_len)
        read = [_read_as(one, entry) for one, entry in zip(found, entries, strict=True)]
        if any(one != read[0] for one in read):
            raise UserError(f"{where}: {place}: its files have different columns; give them the same, or name one file")
        parts = [entry_rows(entry, f"{where}: {place}[{index}]") for index, entry in enumerate(entries)]
        rows = parts[0] if len(parts) == 1 else concatenate_datasets([_read(part, on) for part in parts])
        chosen = documents(rows, on)
    except (TypeError, AttributeError, KeyError, ValueError, UserError) as error:
        said = str(error) if str(error).startswith(where) else f"{where}: {place}: {error}"
        raise UserError(one_line(shorten(said, _MAX_MESSAGE))) from error
    named = str((training or tests)[0].get("path"))
    return OwnRows(one_line(named)[:_MAX_NAME], on, chosen)


def _own_entries(recipe: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    given = recipe.get(key) or []
    if not isinstance(given, list) or not all(isinstance(entry, Mapping) for entry in given):
        raise UserError(f"{where}: {key}: it is no list of entries")
    for index, entry in enumerate(given):
        check_entry_shapes(entry, f"{where}: {key}[{index}]")
    return [entry for entry in given if str(entry.get("type")).removeprefix(TYPES) in OWN_DATA]


def _read_as(on: ReasoningDataset, entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the rows of two entries that are read alike share; which turns are trained isn't asked."""
    return on.name, on.columns, replace(reader_of(entry), turns="last") if on.name == MESSAGES.name else None


def _read(rows: Dataset, on: ReasoningDataset) -> Dataset:
    return rows.select_columns(list(on.columns)) if on.columns else rows
