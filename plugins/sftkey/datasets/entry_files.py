"""Which files on this machine an entry of ``datasets:`` names, in every form of ``path`` and ``data_files``."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sftkey.util.errors import UserError

FORMATS = ("json", "csv", "parquet", "arrow", "text")
"""What `path` may be instead of a place, where `data_files` names the files."""

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""How the name of a compressed file ends."""

_SUFFIXES = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv"}
_SUFFIXES |= {".parquet": "parquet", ".arrow": "arrow", ".txt": "text"}
_NO_DATA = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def local_files(entry: Mapping[str, Any]) -> list[Path]:
    """The data files of an entry that are on this machine; none where it names a Hub repository or an address."""
    if in_repository(entry):
        return []
    path = str(entry.get("path") or "")
    return [Path(file) for name in names(entry) for file in matching(name, path) if "://" not in file]


def in_repository(entry: Mapping[str, Any]) -> bool:
    """Whether ``data_files`` are files of a repository on the Hub, whatever has the same name here."""
    path = str(entry.get("path") or "")
    return bool(entry.get("data_files")) and bool(path) and path not in FORMATS and not _exists(path)


def names(entry: Mapping[str, Any]) -> list[str]:
    """What ``data_files`` names, in whichever split; ``path`` where it names none."""
    named = entry.get("data_files") or entry.get("path") or []
    if isinstance(named, Mapping):
        named = [name for files in named.values() for name in ([files] if isinstance(files, str) else files or [])]
    return [named] if isinstance(named, str) else [str(name) for name in named]


def matching(name: str, folder: str = "") -> list[str]:
    """The files that a name or a pattern stands for.

    Args:
        name: As in ``path`` or ``data_files``: an address, which stands for itself, a file, a folder or a pattern.
        folder: What it is relative to, unless it is found from the working directory.
    """
    if "://" in name:
        return [name]
    for candidate in dict.fromkeys((name, str(Path(folder) / name))):
        with suppress(OSError, ValueError):
            found = [candidate] if Path(candidate).exists() else sorted(glob.glob(candidate, recursive=True))
            if files := [file for one in found for file in _data_in(one)]:
                return files
    return []


def missing(entry: Mapping[str, Any]) -> list[str]:
    """The names of an entry that can only be here, by their beginning or suffix, and aren't."""
    # Where files are named, `path` names a repository or a format, and they may be inside that repository.
    given = [str(entry.get("path")), *names(entry)]
    sure = ("/",) if entry.get("data_files") else ("/", "./", "../")
    suffixes = () if entry.get("data_files") else (".jsonl", ".json", ".parquet", ".csv", ".arrow")
    return [
        name
        for name in dict.fromkeys(given)
        if "://" not in name
        and not glob.has_magic(name)
        and (name.startswith(sure) or name.endswith(suffixes))
        and not _exists(name)
    ]


def refuse_missing(entry: Mapping[str, Any], place: str) -> None:
    """Refuse an entry that names a file which can only be here and isn't; `place` is where the entry stands.

    Raises:
        UserError: Names the file.
    """
    for file in missing(entry):
        raise UserError(f"{place}: there is no {file}; a path is relative to the working directory")


def format_of(path: Path) -> str | None:
    """The format that a file's suffix names: json, csv, parquet, arrow or text."""
    suffix = next((s.lower() for s in reversed(path.suffixes) if s.lower() not in COMPRESSED), "")
    return _SUFFIXES.get(suffix)


def _exists(path: str) -> bool:
    with suppress(OSError, ValueError):
        return Path(path).exists()
    return False


def _data_in(place: str) -> list[str]:
    """A file itself; of a folder what `datasets` takes for data: it may be a checkout, with documents beside it."""
    folder = Path(place)
    if not folder.is_dir():
        return [place] if folder.is_file() else []
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and _is_data(path.relative_to(folder))]


def _is_data(path: Path) -> bool:
    # `save_to_disk` leaves JSON files of its own beside its Arrow files.
    hidden = path.name.startswith(".") or any(part.startswith((".", "__")) for part in path.parent.parts)
    return not hidden and path.name not in _NO_DATA and format_of(path) is not None
