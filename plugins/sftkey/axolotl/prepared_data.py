"""Look at data before Axolotl does: files that can't be read, prepared data that a killed run left half-written.

Axolotl takes any file in a folder of prepared data for prepared data. After a kill -9 while it is being saved, which
takes minutes for large data sets, every later run would end with an error of `datasets`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from axolotl.utils.data.lock import LOCK_FILE_NAME
from datasets.config import DATASET_INFO_FILENAME, DATASET_STATE_JSON_FILENAME
from filelock import FileLock

from sftkey.datasets.data_files import check_data_files
from sftkey.recipes.load import data_entries
from sftkey.util.errors import UserError


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
    # Axolotl saves and opens prepared data under this lock.
    with FileLock(prepared / LOCK_FILE_NAME):
        removed = [path for path in sorted(prepared.iterdir()) if path.is_dir() and not is_whole(path)]
        for path in removed:
            shutil.rmtree(path)
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


def is_whole(folder: Path) -> bool:
    """Whether `datasets.Dataset.save_to_disk` came to its end: it writes its two JSON files after all data files."""
    state, info = _json(folder / DATASET_STATE_JSON_FILENAME), _json(folder / DATASET_INFO_FILENAME)
    if not isinstance(state, dict) or not isinstance(info, dict):
        return False
    return all((folder / file["filename"]).is_file() for file in state.get("_data_files", []))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
