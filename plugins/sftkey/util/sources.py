"""Read files that others wrote: within bounds, with `UnreadableFile` as the only error, and a record of each file."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 256 * 2**20
MAX_LINE_BYTES = 16 * 2**20
MAX_LINES = 2_000_000


class UnreadableFile(ValueError):
    """A file can't be used; the message says why, without the path."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that the report was made from or had to leave out.

    Attributes:
        path: Where it is.
        kind: ``marker``, ``run file``, ``training log``, ``results``, ``samples`` or ``answer probabilities``.
        size: Bytes.
        modified: When it was last written, UTC.
        skipped: Why it was left out; ``None`` where it was used.
    """

    path: Path
    kind: str
    size: int
    modified: datetime
    skipped: str | None = None


@dataclass
class Ledger:
    """Every file that was opened, used or not, and notes for the report's reader: full sentences, in order."""

    files: list[SourceFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> list[SourceFile]:
        """The files that were left out."""
        return [file for file in self.files if file.skipped is not None]

    def used(self, path: Path, kind: str) -> None:
        """Record a file that was read and used."""
        self._record(path, kind, None)

    def skip(self, path: Path, kind: str, reason: str) -> None:
        """Record a file that was left out, and why."""
        self._record(path, kind, reason)

    def note(self, text: str) -> None:
        """Record a sentence for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)

    def _record(self, path: Path, kind: str, skipped: str | None) -> None:
        size, modified = 0, 0.0
        with suppress(OSError):
            status = path.stat()
            size, modified = status.st_size, status.st_mtime
        self.files.append(SourceFile(path, kind, size, datetime.fromtimestamp(modified, UTC), skipped))


def _size(path: Path) -> int:
    """Bytes of a regular file: a pipe would be waited for, a device has no end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile("not a regular file")
    return status.st_size


def _object(content: bytes, keep_surrogates: bool = False) -> dict[str, Any]:
    """The JSON object that a file or a line of it holds; by default question marks replace what UTF-8 can't encode."""
    try:
        found = json.loads(content.decode("utf-8"))
        # Lone surrogates: JSON can escape them, no output file can hold them.
        if not keep_surrogates and b"\\ud" in content.lower():
            found = json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise UnreadableFile("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise UnreadableFile(f"not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise UnreadableFile(f"holds {type(found).__name__} where an object is expected")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        UnreadableFile: It isn't a regular file, can't be opened, is larger than `MAX_JSON_BYTES`, or isn't one JSON
            object in UTF-8.
    """
    try:
        size = _size(path)
        if size > MAX_JSON_BYTES:
            raise UnreadableFile(f"{size:,} bytes, more than the {MAX_JSON_BYTES:,} that are read")
        return _object(path.read_bytes())
    except OSError as error:
        raise UnreadableFile(f"can't be read: {error.strerror or error}") from None


def read_json_lines(
    path: Path, *, keep_surrogates: bool = False
) -> Iterator[tuple[int, dict[str, Any] | UnreadableFile]]:
    """Read a file with one JSON object per line; a bad line doesn't spoil the others.

    Args:
        path: The file.
        keep_surrogates: Keep lone surrogates, so that the lines can be written again as they were. By default question
            marks replace them.

    Yields:
        The line's number, counted from 1, and its object, or why it can't be used.

    Raises:
        UnreadableFile: The file isn't a regular one, can't be opened or has more than `MAX_LINES` lines.
    """
    try:
        _size(path)
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if number > MAX_LINES:
                    raise UnreadableFile(f"more than the {MAX_LINES:,} lines that are read")
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield number, UnreadableFile(f"longer than {MAX_LINE_BYTES:,} bytes")
                elif line.strip():
                    try:
                        content: dict[str, Any] | UnreadableFile = _object(line, keep_surrogates)
                    except UnreadableFile as error:
                        content = error
                    yield number, content
    except OSError as error:
        raise UnreadableFile(f"can't be read: {error.strerror or error}") from None


def number(value: Any) -> float | None:
    """A finite number, or ``None`` for anything else that a file may hold in its place."""
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
