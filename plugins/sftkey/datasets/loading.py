"""Load an entry of ``datasets:`` without a front end: its data set, and its rows by way of `datasets` alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset, load_from_disk
from datasets.config import DATASET_STATE_JSON_FILENAME, DATASETDICT_JSON_FILENAME
from datasets.exceptions import DatasetsError

from sftkey.datasets.base import ReasoningDataset
from sftkey.datasets.columns import columns_of, with_columns
from sftkey.datasets.data_files import check_data_files, format_of
from sftkey.datasets.data_paths import loadable
from sftkey.datasets.entry_files import refuse_missing
from sftkey.datasets.messages import reader_of, with_reader
from sftkey.datasets.own_data import as_recipe_says
from sftkey.datasets.registry import TYPES, find_dataset
from sftkey.util.errors import UserError
from sftkey.util.text import one_line


def entry_dataset(entry: Mapping[str, Any], cfg: Mapping[str, Any]) -> ReasoningDataset:
    """The data set of an entry's ``type``, with what the recipe says of own rows: names, kind of answers, held-out part.

    Raises:
        UserError: There is no such module, or a name is given to something that has none.
    """
    kind = str(entry.get("type"))
    if kind == f"{TYPES}columns":
        found = with_columns(columns_of(entry, cfg.get("sftkey_columns")))
    elif kind == f"{TYPES}messages":
        found = with_reader(reader_of(entry, cfg.get("sftkey_turns")))
    else:
        found = find_dataset(kind)
    return as_recipe_says(found, cfg)


def entry_rows(entry: Mapping[str, Any], place: str) -> Dataset:
    """The rows of an entry as published.

    Args:
        entry: The entry, checked.
        place: Where it stands, for messages.

    Raises:
        UserError: They can't be read, or the entry asks for a part that only Axolotl takes.
    """
    for key in ("shards", "preprocess_shards"):
        if entry.get(key):
            raise UserError(f"{place}: {key} is Axolotl's; use a slice such as split: train[:25%]")
    refuse_missing(entry, place)
    check_data_files(entry)
    entry = loadable(entry, place)
    try:
        rows = _load(entry, str(entry["path"]), str(entry.get("split") or "train"))
    except StopIteration:
        raise UserError(f"{place}: {entry['path']}: it holds no rows") from None
    except (OSError, ValueError, DatasetsError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"{place}: {entry['path']}: its rows can't be read ({type(cause).__name__}: {one_line(str(cause))})"
        ) from error
    if not isinstance(rows, Dataset):
        raise UserError(f"{place}: {entry['path']} has several splits ({', '.join(map(str, rows))}); name one in split")
    return rows


def _load(entry: Mapping[str, Any], path: str, split: str) -> Any:
    files = entry.get("data_files")
    if files and entry.get("ds_type"):
        return load_dataset(str(entry["ds_type"]), data_files=files, split=split)
    if os.path.isfile(path):
        # A file has but one split, whatever it is called.
        rest = split.partition("[")[2]
        kind = str(entry.get("ds_type") or format_of(Path(path)) or "json")
        return load_dataset(kind, data_files=path, split=f"train[{rest}" if rest else "train")
    if any(
        os.path.isfile(os.path.join(path, name)) for name in (DATASET_STATE_JSON_FILENAME, DATASETDICT_JSON_FILENAME)
    ):
        saved = load_from_disk(path)
        if not isinstance(saved, Dataset) and split not in saved:
            raise ValueError(f"there is no split {split!r}; it has {', '.join(map(str, saved))}")
        return saved if isinstance(saved, Dataset) else saved[split]
    name = {"name": str(entry["name"])} if entry.get("name") else {}
    return load_dataset(path, **name, split=split, revision=entry.get("revision"), data_files=files)
