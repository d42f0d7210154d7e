"""What a stage reads, by content: the local files of its data sets, and the weights in a folder."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftkey.datasets.entry_files import local_files
from sftkey.datasets.registry import TYPES
from sftkey.stages.manifest import FileRecord, identity, record_files, weights_files
from sftkey.stages.marker import MARKER_FILE, DataContent, Marker
from sftkey.util.files import file_sha256


def data_content(entry: Mapping[str, Any]) -> DataContent:
    """What an entry of ``datasets:`` holds now, as far as its files are on this machine; empty for data on the Hub."""
    paths = sorted(set(local_files(entry)))
    code = _code(str(entry.get("type")))
    if not paths:
        return DataContent(code=code) if code else DataContent()
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    digest, size = hashlib.sha256(), 0
    for path in paths:
        status = path.stat()
        size += status.st_size
        # A single file may have another name: what it is called is in the settings.
        name = path.relative_to(folder).as_posix() if len(paths) > 1 else ""
        digest.update(
            f"{_sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)}  {name}\n".encode()
        )
    found = DataContent(files=len(paths), size=size, sha256=digest.hexdigest())
    return found.model_copy(update={"code": code}) if code else found


@lru_cache(maxsize=10_000)
def _sha256(path: Path, size: int, modified: int, changed: int, inode: int) -> str:
    """The hash of a file as it is now; stages of one command share their data."""
    return file_sha256(path)


def _code(kind: str) -> str | None:
    """The hash of a data set's own module, as it was imported; ``None`` for this package's, for which its version stands."""
    if "." not in kind or kind.startswith(TYPES):
        return None
    file = getattr(sys.modules.get(kind), "__file__", None)
    return file_sha256(Path(file)) if file and Path(file).is_file() else None


def weights_in(folder: str | Path, *, read: bool = True) -> str | None:
    """The identity of the weights in a folder; ``None`` where there are none, or they would have to be read.

    Args:
        folder: A finished stage, a checkpoint or a model.
        read: Whether they may be read; else only a marker that is newer than they are says what they are.
    """
    folder = Path(folder)
    names = weights_files(folder) if folder.is_dir() else []
    if not names:
        return None
    marker = folder / MARKER_FILE
    recorded = Marker.read(folder)
    if recorded and recorded.weights and _older(folder, names, marker) and recorded.weights.keys() == set(names):
        return identity(recorded.weights)
    return identity(record_files(folder, names)) if read else None


def changed_weights(output_dir: Path, marker: Marker) -> list[str]:
    """The files of a finished stage's weights that aren't what it finished with; those that are gone don't count."""
    names = [name for name in weights_files(output_dir) if name in marker.weights]
    if not names or _older(output_dir, names, output_dir / MARKER_FILE):
        return []
    now: dict[str, FileRecord] = record_files(output_dir, names)
    return [name for name in names if now[name] != marker.weights[name]]


def _older(folder: Path, names: list[str], marker: Path) -> bool:
    """Whether no file was written, copied or renamed into its place since the marker was."""
    written = marker.stat().st_ctime_ns
    return all((folder / name).stat().st_ctime_ns <= written for name in names)
