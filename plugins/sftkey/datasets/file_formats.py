"""What makes a data file of each format readable: JSON, CSV, Parquet, Arrow. Each check reads it all, a piece at a time."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_LINE_BYTES = 16 * 2**20
"""The longest line of a data file, and the longest field of a CSV file: a row of four million words."""

MAX_WHOLE_BYTES = 512 * 2**20
"""The largest JSON file that is one list and no lines: it is held in memory as a whole, several times its size."""

MAX_DEPTH = 50
"""The deepest nesting of a row. Arrow gives up at 64, and far below the stack of its reader overflows."""

MAX_ROW_GROUP_BYTES = 8 * 2**30
"""The largest row group of a Parquet file, unpacked: it is read as a whole."""

_BATCH_ROWS = 256

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_END = "\0 end of the file \0"


class UnreadableRows(ValueError):
    """A data file can't be read as rows; the message says where and why, without the path."""


def check_json(file: IO[bytes]) -> None:
    """JSON Lines, or one JSON document that is a list of objects or an object.

    Raises:
        UnreadableRows: Something in it is no row.
    """
    number, rows = 0, 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UnreadableRows(f"line {number} is longer than {MAX_LINE_BYTES:,} bytes; shorten or remove it")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
            if line.startswith(_LFS_POINTER):
                raise UnreadableRows("it is a Git LFS pointer and holds no rows; run `git lfs pull`")
            if _begins_document(line):
                _check_document(line, file)
                return
        if line.strip():
            rows += _check_line(line, f"line {number}")
    if not rows:
        raise UnreadableRows("it holds no rows")


def _begins_document(line: bytes) -> bool:
    """Whether the first line is a part of a document that goes on, or a list of rows."""
    text = line.strip()
    return text.startswith(b"[") or text == b"{" or (text.startswith(b"{") and text.endswith((b",", b"[", b"{", b":")))


def _check_document(first: bytes, file: IO[bytes]) -> None:
    parts, size = [first], len(first)
    while part := file.read(2**20):
        parts.append(part)
        size += len(part)
        if size > MAX_WHOLE_BYTES:
            raise UnreadableRows(
                f"it is one JSON document of more than {MAX_WHOLE_BYTES:,} bytes, which is read as a whole; write one row on "
                "each line (JSON Lines)"
            )
    content = b"".join(parts)
    try:
        found = _loads(content, "the file")
    except _ExtraData:
        raise UnreadableRows("it goes on after its first list or object; write one JSON object on each line") from None
    if isinstance(found, dict):
        return
    if not isinstance(found, list) or not found:
        raise UnreadableRows(f"it holds {_name(found)} where rows are expected; write one JSON object on each line")
    for index, row in enumerate(found):
        _check_row(row, f"row {index}")


def _check_line(line: bytes, where: str) -> int:
    """Count the rows that have keys; without a line feed a line can hold several, which `datasets` reads too."""
    rows = 0
    for row in _several(line, where):
        _check_row(row, where)
        rows += bool(row)
    return rows


def _several(line: bytes, where: str) -> Iterator[Any]:
    try:
        yield _loads(line, where)
    except _ExtraData as error:
        text, end = error.text, 0
        decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float)
        while begin := _NOT_BLANK(text, end):
            try:
                row, end = decoder.raw_decode(text, begin.start())
            except ValueError as inner:
                raise _invalid(inner, where) from None
            yield row


_NOT_BLANK = re.compile(r"\S").search


class _ExtraData(ValueError):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


def _loads(content: bytes, where: str) -> Any:
    try:
        text = content.decode("utf-8")
        if "\\u" in text:
            # Escaped halves of a surrogate pair: no tokenizer and no Arrow file can hold them.
            found = json.loads(text, object_pairs_hook=_object, parse_float=_float)
            json.dumps(found, ensure_ascii=False).encode("utf-8")
            return found
        return json.loads(text, object_pairs_hook=_object, parse_float=_float)
    except UnicodeDecodeError as error:
        raise _not_utf8(error, where) from None
    except UnicodeEncodeError:
        raise UnreadableRows(f"{where} holds one half of a surrogate pair, \\ud800 to \\udfff; remove it") from None
    except RecursionError:
        raise UnreadableRows(f"{where} is nested deeper than {MAX_DEPTH} levels; flatten it") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise _ExtraData(text) from None
        raise _invalid(error, where) from None
    except ValueError as error:
        raise _invalid(error, where) from None


def _not_utf8(error: UnicodeDecodeError, where: str) -> UnreadableRows:
    return UnreadableRows(f"{where} is not UTF-8 (byte {error.start + 1} of it); write the file with encoding utf-8")


def _invalid(error: ValueError, where: str) -> UnreadableRows:
    place = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition(";")[0]
    return UnreadableRows(f"{where} is not valid JSON ({reason}{place}); mend or remove it")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:40]!r} twice in one object")
    return found


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise UnreadableRows(f"{where} holds {_name(row)} where a row, a JSON object, is expected; mend or remove it")
    level: list[Any] = [row]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise UnreadableRows(f"{where} is nested deeper than {MAX_DEPTH} levels; flatten it")
        inner = (value for one in level for value in (one.values() if isinstance(one, dict) else one))
        level = [value for value in inner if isinstance(value, (dict, list))]


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def check_csv(file: IO[bytes]) -> None:
    """CSV with a header: no row has more fields than it, no quote stays open.

    Raises:
        UnreadableRows: Something in it is no row.
    """
    header: list[str] | None = None
    rows = 0
    lines = _text_lines(file)
    first = next(lines, "")
    delimiter = "\t" if "\t" in first and "," not in first else ","
    before = csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(chain([first], lines, [_END]), delimiter=delimiter)
    start = following = 1
    try:
        for fields in reader:
            if fields == [_END]:
                break
            start, following = following, reader.line_num + 1
            if header is None:
                header = fields
            elif fields:
                rows += 1
                if len(fields) > len(header):
                    what = "tabs" if delimiter == "\t" else "commas"
                    raise UnreadableRows(
                        f"line {start} has {len(fields)} fields and the header {len(header)}; quote fields that hold {what}"
                    )
        else:
            raise UnreadableRows(f"a quote opens in the row of line {start} and never closes; close it")
    except csv.Error as error:
        raise UnreadableRows(f"line {following} is not valid CSV ({error}); mend or remove it") from None
    finally:
        csv.field_size_limit(before)
    if not rows:
        raise UnreadableRows("it holds no rows below its header")


def _text_lines(file: IO[bytes]) -> Iterator[str]:
    """The lines of a text, each with a line feed or a carriage return at its end."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UnreadableRows(f"line {number} is longer than {MAX_LINE_BYTES:,} bytes; shorten or remove it")
        try:
            text = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(error, f"line {number}") from None
        # Old Macs end a line with a carriage return alone.
        yield from re.findall(r"[^\r]*\r\n|[^\r]*\r|[^\r]+$", text if text.endswith("\n") else text + "\n")


def check_parquet(file: IO[bytes]) -> None:
    """Parquet: every page can be read.

    Raises:
        UnreadableRows: It holds no rows, or a row group that would fill the memory.
        ArrowException: It is damaged.
    """
    parquet = pq.ParquetFile(file)
    if not parquet.metadata.num_rows:
        raise UnreadableRows("it holds no rows")
    for index in range(parquet.metadata.num_row_groups):
        if (size := parquet.metadata.row_group(index).total_byte_size) > MAX_ROW_GROUP_BYTES:
            raise UnreadableRows(f"row group {index} unpacks to {size:,} bytes; write it with smaller row groups")
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
        batch.validate()


def check_arrow(file: IO[bytes]) -> None:
    """Arrow, as a stream or a file: every record batch can be read.

    Raises:
        UnreadableRows: It holds no rows.
        ArrowException: It is damaged.
    """
    rows = 0
    try:
        for batch in pa.ipc.open_stream(file):
            rows += batch.num_rows
    except pa.ArrowInvalid:
        file.seek(0)
        reader = pa.ipc.open_file(file)
        rows = sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
    if not rows:
        raise UnreadableRows("it holds no rows")
