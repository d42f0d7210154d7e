"""Which files a folder of weights or a checkpoint holds, by size and hash, and how that differs from what is there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sftkey.util.files import file_sha256, sync

_Result = TypeVar("_Result")


class FileRecord(BaseModel):
    """Size and SHA-256 of one file."""

    model_config = ConfigDict(strict=True, frozen=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("names no file inside the folder")
    return name


FileName = Annotated[str, Field(max_length=1000), AfterValidator(_inside)]
"""Relative to the folder, with slashes."""


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

    found = _in_threads(record, paths)
    for place in {path.parent for path in paths.values()} if durable else ():
        sync(place)
    return found


def differences(folder: Path, records: Mapping[str, FileRecord]) -> list[str]:
    """How files differ from their records; each of them is read once, unless its size tells already."""

    def difference(path: Path) -> str:
        record = records[path.relative_to(folder).as_posix()]
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return "no regular file"
            if status.st_size != record.size:
                return f"{status.st_size:,} bytes, saved with {record.size:,}"
            return "" if file_sha256(path) == record.sha256 else "its content is not what was saved"
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"can't be read: {error.strerror}"

    found = _in_threads(difference, {name: folder / name for name in sorted(records)})
    return [f"{name}: {what}" for name, what in found.items() if what]


def _in_threads(function: Callable[[Path], _Result], paths: Mapping[str, Path]) -> dict[str, _Result]:
    # hashlib lets go of the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return dict(zip(paths, threads.map(function, paths.values()), strict=True))


def weights_files(folder: Path) -> list[str]:
    """The files in a stage's output directory, or a checkpoint, that hold its weights or name the files that do."""
    found = (path for pattern in ("*.safetensors", "*.bin", "*.index.json") for path in folder.glob(pattern))
    return sorted(path.name for path in found if path.is_file() and path.name != "training_args.bin")


def identity(files: Mapping[str, FileRecord]) -> str:
    """One hash for a set of files: of their names and contents, whatever their order."""
    lines = (f"{record.sha256}  {name}\n" for name, record in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
