"""Look at data before Axolotl does: files that can't be read, prepared data that is half-written or damaged.

Axolotl takes any file in a folder of prepared data for prepared data. After a kill -9 while it is being saved, which
takes minutes for large data sets, every later run would end with an error of `datasets`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
from axolotl.utils.data.lock import LOCK_FILE_NAME
from axolotl.utils.logging import get_logger
from datasets.config import DATASET_INFO_FILENAME, DATASET_STATE_JSON_FILENAME
from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from sftkey.datasets.data_files import check_data_files
from sftkey.recipes.load import data_entries
from sftkey.stages.manifest import FileName, FileRecord, differences, record_files
from sftkey.util.errors import UserError
from sftkey.util.files import write_atomically
from sftkey.util.sources import UnreadableFile, read_json

LOG = get_logger(__name__)

ROWS_FILE = "sftkey_rows.json"
"""Beside the prepared data: how many rows of each data set were used, and skipped for which reason."""

_FILES = "sftkey_files.json"
"""In a folder of prepared data: size and hash of each file."""

_RECORDS = TypeAdapter(dict[FileName, FileRecord])


def remove_half_written(prepared: str | Path) -> list[Path]:
    """Remove the data sets in a folder of prepared data that aren't whole, while nobody else is saving there.

    Args:
        prepared: ``dataset_prepared_path``; other runs may use it at the same time.

    Returns:
        The folders that were removed.
    """
    prepared = Path(prepared)
    if not prepared.is_dir():
        return []
    removed = []
    # Axolotl saves and opens prepared data under this lock.
    with FileLock(prepared / LOCK_FILE_NAME):
        without_counts = _damaged_counts(prepared / ROWS_FILE)
        for path in sorted(prepared.iterdir()):
            if path.is_dir() and (damage := without_counts or _damage(path)):
                LOG.warning("removing %s, whose data is prepared again: %s", path, damage)
                shutil.rmtree(path)
                removed.append(path)
        if without_counts:
            (prepared / ROWS_FILE).unlink()
    return removed


def check_unprepared_data(cfg: Any) -> None:
    """Read the data files of a recipe whose data isn't prepared yet, so that what is wrong with one is a line.

    Args:
        cfg: The recipe after `sftkey.axolotl.preparation.prepare_recipe`.

    Raises:
        UserError: A file can't be read as rows.
    """
    prepared = Path(cfg["dataset_prepared_path"])
    if prepared.is_dir() and any(path.is_dir() and is_whole(path) for path in prepared.iterdir()):
        return
    for place, entry in data_entries(cfg):
        try:
            check_data_files(entry)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error.__cause__


def vouch_for(prepared: str | Path) -> None:
    """Note size and hash of the files of each data set in a folder of prepared data, where it isn't noted yet."""
    prepared = Path(prepared)
    if not prepared.is_dir():
        return
    with FileLock(prepared / LOCK_FILE_NAME):
        for folder in prepared.iterdir():
            if folder.is_dir() and not (folder / _FILES).exists() and is_whole(folder):
                names = [path.name for path in folder.iterdir() if path.is_file()]
                records = record_files(folder, names, durable=True)
                write_atomically(folder / _FILES, _RECORDS.dump_python(records))


def is_whole(folder: Path) -> bool:
    """Whether `datasets.Dataset.save_to_disk` came to its end: it writes its two JSON files after all data files."""
    return not _unfinished(folder)


def _damage(folder: Path) -> str:
    """What of a data set isn't as it was saved; empty where all of it is."""
    if unfinished := _unfinished(folder):
        return unfinished
    if not (folder / _FILES).exists():
        return ""
    try:
        return "; ".join(differences(folder, _RECORDS.validate_python(read_json(folder / _FILES), strict=True)))
    except (UnreadableFile, ValidationError) as error:
        return f"{_FILES}: {str(error).splitlines()[0]}"


def _damaged_counts(path: Path) -> str:
    """What is wrong with the counts of its rows; they are only known when data is prepared."""
    try:
        counts = read_json(path) if path.exists() else {}
    except UnreadableFile as error:
        return f"{path.name}: {error}"
    return "" if all(isinstance(one, dict) for one in counts.values()) else f"{path.name} holds no counts of rows"


def _unfinished(folder: Path) -> str:
    for name in (DATASET_STATE_JSON_FILENAME, DATASET_INFO_FILENAME):
        if not isinstance(_json(folder / name), dict):
            return f"{name} is missing or holds no object: it was cut off while being saved"
    files = _json(folder / DATASET_STATE_JSON_FILENAME).get("_data_files")
    if not isinstance(files, list) or not all(isinstance(file, dict) and "filename" in file for file in files):
        return f"{DATASET_STATE_JSON_FILENAME} lists no data files"
    return "; ".join(filter(None, (_torn(folder / str(file["filename"])) for file in files)))


def _torn(path: Path) -> str:
    """Whether an Arrow file ends too early; only its headers are read."""
    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            for _ in stream:
                pass
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, pyarrow.ArrowException) as error:
        return f"{path.name}: {str(error).splitlines()[0]}"
    return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
