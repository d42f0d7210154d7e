"""The data files of an entry of ``datasets:``, read once before `datasets` loads them.

`datasets` ends with a traceback, or kills the process, at files that people and attackers really have: a line ``null``,
deep nesting, a cut-off archive, a line that fills the memory. Here each is one line: which file, which row, what to do.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from sftkey.datasets.entry_files import COMPRESSED, format_of, local_files
from sftkey.datasets.file_formats import UnreadableRows, check_arrow, check_csv, check_json, check_parquet
from sftkey.util.errors import UserError

MAX_EXPANSION = 200
"""A compressed file may become so many times as large; JSON Lines of real texts become 3 to 20 times as large."""

SMALL_BYTES = 256 * 2**20
"""A file that expands to no more than this may expand as much as it likes."""

_FORMATS: dict[str, Callable[[IO[bytes]], None]] = {
    "json": check_json,
    "csv": check_csv,
    "parquet": check_parquet,
    "arrow": check_arrow,
}

_ELSEWHERE = {
    ".tsv": "its fields are separated by tabs, which is read as one column; write it with commas as .csv",
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "it is a spreadsheet; save it as CSV"),
    **dict.fromkeys(
        ".yaml .yml .xml .toml .html .md .pkl .pickle .npy .npz .pt .h5 .db .sqlite .sqlite3".split(),
        "rows are read from JSON Lines, JSON, CSV, Parquet and Arrow; write them as one of these",
    ),
}
"""Files that people have rows in and that aren't read, by their suffix; in a folder `datasets` knows .tsv itself."""

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "lzma", b"\x28\xb5\x2f\xfd": "zstandard"}
"""The first bytes of a compressed file, by which `datasets` knows it, and the module that reads it."""


def check_data_files(entry: Mapping[str, Any]) -> None:
    """Read every data file of an entry that is on this machine, in bounded memory.

    Args:
        entry: An entry of ``datasets:`` or ``test_datasets:``.

    Raises:
        UserError: A file can't be read as rows; says which, where in it, and what to do.
    """
    for path in local_files(entry):
        kind = str(entry.get("ds_type") or "") or (
            format_of(path) if Path(str(entry.get("path"))).is_dir() else _kind(path)
        )
        suffix = next((one.lower() for one in reversed(path.suffixes) if one.lower() not in COMPRESSED), "")
        try:
            if suffix in _ELSEWHERE and not Path(str(entry.get("path"))).is_dir():
                raise UnreadableRows(_ELSEWHERE[suffix])
            _check(path, _FORMATS.get(str(kind)))
        except UnreadableRows as error:
            raise UserError(f"{path}: {error}") from None
        except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: the compressed file is cut off or damaged ({error}); get it again") from None
        except ModuleNotFoundError as error:
            raise UserError(
                f"{path}: reading it needs the package {error.name}; install it, or unpack the file"
            ) from None
        except (pa.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{path}: it can't be read ({reason}); get or write the file again") from None


def _kind(path: Path) -> str:
    """The format that Axolotl reads a file as."""
    return next((kind for kind in ("parquet", "arrow", "csv", "txt") if f".{kind}" in str(path)), "json")


def _check(path: Path, check: Callable[[IO[bytes]], None] | None) -> None:
    size = path.stat().st_size
    if not size:
        raise UnreadableRows("it holds no rows: the file is empty")
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(sum(member.file_size for member in archive.infolist()), size)
        return
    module = next((module for magic, module in _MAGIC.items() if head.startswith(magic)), None)
    if module is None and path.suffix.lower() in COMPRESSED:
        raise UnreadableRows(f"its name ends in {path.suffix}, and it isn't compressed; name it without {path.suffix}")
    if check is None:
        return
    if module is None:
        with path.open("rb") as file:
            check(file)
    elif check in (check_json, check_csv):
        with import_module(module).open(path, "rb") as stream:
            check(_Bounded(stream, size))  # type: ignore[arg-type]


def _refuse_bomb(expanded: int, size: int) -> None:
    if expanded > max(SMALL_BYTES, MAX_EXPANSION * size):
        raise UnreadableRows(
            f"it expands to more than {MAX_EXPANSION} times its {size:,} bytes, which no data of texts does; unpack it "
            "yourself if you trust it"
        )


class _Bounded:
    """A decompressing stream that ends with an error where it expands beyond measure."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size, self._read = stream, size, 0

    def _count(self, data: bytes) -> bytes:
        self._read += len(data)
        _refuse_bomb(self._read, self._size)
        return data

    def readline(self, limit: int) -> bytes:
        return self._count(self._stream.readline(limit))

    def read(self, limit: int) -> bytes:
        return self._count(self._stream.read(limit))

    def readable(self) -> bool:
        return True

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline(SMALL_BYTES):
            yield line
