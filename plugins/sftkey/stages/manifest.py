"""Which files a folder of weights or a checkpoint holds, by size and hash, and how that differs from what is there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sftkey.util.files import file_sha256, sync


class FileRecord(BaseModel):
    """Size and SHA-256 of one file."""

    model_config = ConfigDict(strict=True, frozen=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def record_files(folder: Path, names: Iterable[str], *, durable: bool = False) -> dict[str, FileRecord]:
    """Size and hash of files, read in several threads at once.

    Args:
        folder: Where they are.
        names: Their names, relative to it.
        durable: Also wait until they, and their names, are on the disk.

    Raises:
        OSError: One can't be read.
    """
    paths = {name: folder / name for name in sorted(names)}

    def record(path: Path) -> FileRecord:
        if durable:
            sync(path)
        return FileRecord(size=path.stat().st_size, sha256=file_sha256(path))

    # hashlib lets go of the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        found = dict(zip(paths, threads.map(record, paths.values()), strict=True))
    for place in {path.parent for path in paths.values()} if durable else ():
        sync(place)
    return found


def weights_files(folder: Path) -> list[str]:
    """The files in a stage's output directory, or a checkpoint, that hold its weights or name the files that do."""
    found = (path for pattern in ("*.safetensors", "*.bin", "*.index.json") for path in folder.glob(pattern))
    return sorted(path.name for path in found if path.is_file() and path.name != "training_args.bin")


def identity(files: Mapping[str, FileRecord]) -> str:
    """One hash for a set of files: of their names and contents, whatever their order."""
    lines = (f"{record.sha256}  {name}\n" for name, record in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
