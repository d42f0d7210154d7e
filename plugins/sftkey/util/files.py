"""Files that a reader sees whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
