"""A file that a reader sees whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sftkey.util.files import file_sha256, replace_files, sync, write_text_atomically


def test_a_text_in_parts_is_the_text(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "new" / "parts", (part for part in ("a\n", "", "ü\r\n")))
    write_text_atomically(tmp_path / "new" / "whole", "a\nü\r\n")
    assert (tmp_path / "new" / "parts").read_bytes() == (tmp_path / "new" / "whole").read_bytes() == "a\nü\r\n".encode()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def parts() -> Iterator[str]:
        yield "new"
        assert len(list(tmp_path.iterdir())) == 2
        raise error

    with pytest.raises(error):
        write_text_atomically(path, parts())
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


def test_no_file_is_replaced_before_all_are_written(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")

    def parts() -> Iterator[bytes]:
        assert first.read_text() == "old"
        yield b"new"
        raise OSError

    with pytest.raises(OSError):
        replace_files({first: [b"new"], second: parts()})
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("first", "old")]
    replace_files({first: [b"n", b"ew"], second: [first.read_bytes()]})
    assert (first.read_text(), second.read_text()) == ("new", "old")


def test_hash_of_a_file_of_any_size(tmp_path: Path) -> None:
    for size in (0, 1, 2**18 - 1, 2**18 + 1):
        content = bytes(range(256)) * (size // 256 + 1)
        (tmp_path / "file").write_bytes(content[:size])
        assert file_sha256(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()


def test_a_replaced_file_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the name is changed, and the directory after it."""
    import os

    did: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (did.append(os.readlink(f"/proc/self/fd/{number}")), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (did.append("replaced"), replace(*paths)))
    write_text_atomically(tmp_path / "file", "new")
    assert did == [str(tmp_path / f".file.{os.getpid()}"), "replaced", str(tmp_path)]
    sync(tmp_path / "file")
    assert did[-1] == str(tmp_path / "file")
