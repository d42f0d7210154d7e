"""What a file may hold: an object is read, anything else is named and never raises past `UnreadableFile`."""

from __future__ import annotations

from pathlib import Path

import pytest
from sftkey.util.sources import Ledger, UnreadableFile, number, read_json, read_json_lines

BAD = [
    (b"", "not valid JSON"),
    (b"{", "not valid JSON"),
    (b"[1]", "holds list where an object is expected"),
    (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 7"),
    (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    (b'{"a": ' + b"1" * 5_000 + b"}", "not valid JSON"),
]


@pytest.mark.parametrize(("content", "reason"), BAD)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=reason):
        read_json(path)


def test_a_bad_line_does_not_spoil_the_others(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    bad = [content for content, _ in BAD if content]
    path.write_bytes(b"\n".join([b'{"n": 1}', *bad, b"", b'{"n": 2}']))
    found = dict(read_json_lines(path))
    assert (found.pop(1), found.pop(8)) == ({"n": 1}, {"n": 2})
    assert list(found) == [2, 3, 4, 5, 6]
    for content, (_, reason) in zip(found.values(), BAD[1:], strict=True):
        assert isinstance(content, UnreadableFile)
        assert str(content).startswith(reason)


def test_lone_surrogates_become_question_marks_and_pairs_stay(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"\\ud800": ["\\uDC00x", 1e400], "pair": "\\ud83d\\ude00"}')
    assert read_json(path) == {"?": ["?x", float("inf")], "pair": "\U0001f600"}
    assert list(read_json_lines(path)) == [(1, read_json(path))]
    kept = {"\ud800": ["\udc00x", float("inf")], "pair": "\U0001f600"}
    assert list(read_json_lines(path, keep_surrogates=True)) == [(1, kept)]


def test_a_missing_file_is_named_and_recorded(tmp_path: Path) -> None:
    ledger = Ledger()
    with pytest.raises(UnreadableFile, match="can't be read: No such file"):
        read_json(tmp_path / "none.json")
    ledger.skip(tmp_path / "none.json", "results", "gone")
    ledger.used(tmp_path, "folder")
    assert [(file.size, file.skipped) for file in ledger.skipped] == [(0, "gone")]


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), (True, 1.0), ("1", None), (float("nan"), None), (10**400, None), (None, None)]
)
def test_number(value: object, expected: float | None) -> None:
    assert number(value) == expected
