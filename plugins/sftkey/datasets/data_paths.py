"""Rewrite an entry of ``datasets:`` as Axolotl loads it, for every form of ``path`` and ``data_files`` that `datasets` takes.

Axolotl takes one local file, a folder, a repository on the Hub and ``https://``. Patterns, a format's name with files,
files relative to their folder, files by split, other addresses, and slices of a folder that `save_to_disk` wrote become
``{path: a folder, data_files: [...], ds_type: ...}``, which it hands to `datasets` as it is.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.config import DATASET_STATE_JSON_FILENAME, DATASETDICT_JSON_FILENAME

from sftkey.datasets.entry_files import FORMATS, format_of, in_repository, matching, names
from sftkey.util.errors import UserError


def loadable(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The entry in a form that Axolotl loads; unchanged where it is one already.

    Args:
        entry: The entry, checked.
        place: Where it stands, for messages.

    Raises:
        UserError: A pattern matches no file, or files are given by split and none is of the entry's split.
    """
    path = str(entry.get("path") or "")
    if isinstance(entry.get("data_files"), Mapping):
        entry = _of_one_split(entry, place)
    if in_repository(entry):
        return dict(entry)
    if entry.get("data_files"):
        files = [file for name in names(entry) for file in _resolved(name, path, place)]
        return _with_files(entry, files, path if path in FORMATS else None)
    if os.path.isdir(path):  # not of Path: a name may be too long for a file
        return _sliced(entry, Path(path))
    if os.path.exists(path) or path.startswith("https://"):
        return dict(entry)
    if path.startswith(("http://", "hf://")):
        return _with_files(entry, [path], None)
    if glob.has_magic(path):
        return _with_files(entry, _resolved(path, "", place), None)
    return dict(entry)


def _of_one_split(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Files by split: those of the entry's split, which is the only one of a list of files, ``train``, from then on."""
    split, bracket, rest = str(entry.get("split") or "train").partition("[")
    named = entry["data_files"]
    if split not in named:
        raise UserError(
            f"{place}: data_files has no split {split!r}; it has {', '.join(map(str, named))}. Set split: to one of them"
        )
    return {**entry, "split": f"train{bracket}{rest}", "data_files": named[split]}


def _resolved(name: str, folder: str, place: str) -> list[str]:
    if files := matching(name, folder):
        return files
    raise UserError(
        f"{place}: no file matches {name}; a path is relative to the working directory or to the entry's path"
    )


def _with_files(entry: Mapping[str, Any], files: list[str], kind: str | None) -> dict[str, Any]:
    local = [file for file in files if "://" not in file]
    folder = os.path.commonpath([Path(file).parent for file in local]) if local else ""
    kind = entry.get("ds_type") or kind or format_of(Path(files[0])) or "json"
    split = entry.get("split") or "train"
    return {**entry, "path": folder or ".", "data_files": files, "ds_type": kind, "split": split}


def _sliced(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A slice of a folder that `save_to_disk` wrote, which Axolotl would load whole."""
    split, bracket, rest = str(entry.get("split") or "").partition("[")
    if not bracket:
        return dict(entry)
    place = folder / split if (folder / DATASETDICT_JSON_FILENAME).is_file() else folder
    state = place / DATASET_STATE_JSON_FILENAME
    if not state.is_file():
        return dict(entry)
    names = [place / file["filename"] for file in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    return _with_files({**entry, "split": f"train[{rest}"}, [str(name) for name in names], "arrow")
