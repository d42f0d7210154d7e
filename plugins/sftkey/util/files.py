"""Files that a reader sees whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sftkey.util.disk import full_disk

MARKER_FILE = "sftkey_stage.json"
"""What a finished stage leaves in its output directory, written last."""


def finite(value: Any) -> Any:
    """Plain JSON types as strict JSON has them: what isn't a finite number becomes None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file so that a reader sees the old one or the whole new one, also after a power cut."""
    write_text_atomically(path, json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def write_text_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write a text file, at once or part by part, as `write_bytes_atomically` does."""
    parts = [text] if isinstance(text, str) else text
    write_bytes_atomically(path, (part.encode() for part in parts))


def write_bytes_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file part by part so that a reader sees the old one or the whole new one.

    That holds after a power cut too. What fails or is interrupted leaves no file behind.
    """
    replace_files({path: parts})


def replace_files(contents: Mapping[Path, Iterable[bytes]]) -> None:
    """Write each file as `write_bytes_atomically` does, but replace the first one only when all are written.

    What fails while they are written, a full disk say, leaves all old files as they were.

    Args:
        contents: The parts of each file. The files are replaced in this order.

    Raises:
        DiskFull: There is no room for them.
    """
    written: dict[Path, Path] = {}
    try:
        for path, parts in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written[path] = temporary = path.with_name(f".{path.name}.{os.getpid()}")
            with open(temporary, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in written.items():
            os.replace(temporary, path)
        for folder in {path.parent for path in contents}:
            sync(folder)
    except BaseException as error:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (full := full_disk(error, [path.parent for path in contents])):
            raise full from error
        raise


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # What some network file systems say of a directory.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it, read part by part."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
