"""Verdicts on disk: what a judge was paid for is never asked again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sftkey.util.text import encodable

logger = logging.getLogger(__name__)

_SCHEMA = 1
_FILE = "cache.db"

# Name, columns and raw = 1 are those of diskcache, which wrote this file before: what is in such a file stays in use.
_TABLE = "CREATE TABLE IF NOT EXISTS Cache (key TEXT, raw INTEGER, value TEXT, UNIQUE (key, raw))"
_READ = "SELECT value FROM Cache WHERE key = ? AND raw = 1"
_WRITE = "INSERT OR REPLACE INTO Cache (key, raw, value) VALUES (?, 1, ?)"

_FAILURES = (OSError, sqlite3.Error)
"""Whatever goes wrong on disk; a lock that isn't free in time is an OSError, too."""


@dataclass(frozen=True, slots=True)
class CachedVerdict:
    """A verdict as it is kept on disk.

    Attributes:
        same: Whether the judge said yes.
        reply: What it replied, shortened.
    """

    same: bool
    reply: str


def cache_key(prompt: str, model: str, parameters: dict[str, Any]) -> str:
    """The key of a verdict: a digest of everything that the judge's reply depends on.

    The server's address is no part of it: the same model behind another address is the same judge.

    Args:
        prompt: The complete text of the message to the judge.
        model: Name of the judge model.
        parameters: Sampling parameters of the request, JSON values only.

    Returns:
        64 hexadecimal digits.
    """
    asked = {"schema": _SCHEMA, "prompt": prompt, "model": model, "parameters": parameters}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class JudgeCache:
    """Verdicts in an SQLite file, shared safely by threads and processes.

    Each verdict is committed when it is stored, so a killed run loses none, and none is ever evicted. A damaged file is set
    aside, and what can be read of it taken over. One that can only be read is read. A cache that can't be used at all costs
    the verdicts' reuse, not the run: that is logged once as an error, and the cache is left alone from then on.

    Args:
        directory: Folder of the cache; created if absent. What is read from it is parsed as JSON, never unpickled.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database: sqlite3.Connection | None = None
        self._read_only = False
        try:
            self._open()
        except _FAILURES as error:
            if not (_is_damage(error) and self._heal(error)):
                self._give_up("open", error)

    def __enter__(self) -> JudgeCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def get(self, key: str) -> CachedVerdict | None:
        """The verdict stored under ``key``, or ``None``; an entry that holds no verdict counts as absent."""
        return _parse(self.read(key))

    def put(self, key: str, verdict: CachedVerdict) -> None:
        """Store a verdict; it is on disk when this returns."""
        self.write(key, json.dumps(asdict(verdict)))

    def read(self, key: str) -> str | None:
        """The text stored under ``key``."""
        row = self._execute("read", _READ, (key,))
        return row[0] if row and isinstance(row[0], str) else None

    def write(self, key: str, text: str) -> None:
        """Store a text; it is on disk when this returns."""
        if not self._read_only:
            self._execute("write", _WRITE, (key, text))

    def close(self) -> None:
        """Close the file. What was stored stays."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _execute(self, what: str, statement: str, values: tuple[str, ...]) -> tuple[Any, ...] | None:
        """Whatever goes wrong, from a full disk to a file that is no database, the evaluation goes on without the cache."""
        for healed in (False, True):
            if self._database is None:
                return None
            try:
                row: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
                return row
            except _FAILURES as error:
                if _code(error) == sqlite3.SQLITE_READONLY:
                    self._only_read()
                    return None
                if healed or not (_is_damage(error) and self._heal(error)):
                    self._give_up(what, error)
        return None

    def _open(self) -> None:
        path = self._directory / _FILE
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._connect(str(path), uri=False)
            assert self._database is not None
            with suppress(sqlite3.OperationalError):  # another process is doing the same
                self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(_TABLE)
        except (OSError, sqlite3.OperationalError):
            self.close()
            if not path.is_file():
                raise
            # immutable: without it a write-ahead log is needed, which nobody can create here.
            self._connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)
            assert self._database is not None
            self._database.execute(_READ, ("",)).fetchone()
            self._only_read()

    def _connect(self, name: str, *, uri: bool) -> None:
        # isolation_level None: each statement is a transaction.
        self._database = sqlite3.connect(name, timeout=60, isolation_level=None, check_same_thread=False, uri=uri)
        self._database.text_factory = lambda stored: stored.decode("utf-8", "replace")

    def _only_read(self) -> None:
        if not self._read_only:
            self._read_only = True
            logger.warning(
                "the judge cache %s can only be read: new verdicts are not kept; point SFTKEY_JUDGE_CACHE at a folder that "
                "can be written to",
                self._directory,
            )

    def _heal(self, damage: Exception) -> bool:
        """Set a damaged file aside and begin a new one with what can be read of it; whether that went well."""
        from filelock import FileLock

        self.close()
        path = self._directory / _FILE
        try:
            with FileLock(f"{path}.lock", timeout=60):
                if self._whole():
                    return True  # another process has done it
                aside = path.with_name(f"{_FILE}.damaged-{time.time_ns()}")
                for ending in ("", "-wal", "-shm"):
                    with suppress(FileNotFoundError):
                        os.replace(f"{path}{ending}", f"{aside}{ending}")
                self._open()
                taken_over = self._take_over(aside)
        except _FAILURES:
            self.close()
            return False
        logger.error(
            "the judge cache %s was damaged (%s): set aside as %s, %d verdicts taken over",
            self._directory,
            damage,
            aside.name,
            taken_over,
        )
        return True

    def _whole(self) -> bool:
        try:
            self._open()
            assert self._database is not None
            return bool(self._database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        except sqlite3.DatabaseError:
            self.close()
            return False

    def _take_over(self, aside: Path) -> int:
        assert self._database is not None
        taken_over = 0
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(aside)) as damaged:
            for key, text in damaged.execute("SELECT key, value FROM Cache NOT INDEXED WHERE raw = 1"):
                if isinstance(key, str) and isinstance(text, str):
                    self._database.execute(_WRITE, (key, text))
                    taken_over += 1
        return taken_over

    def _give_up(self, what: str, error: Exception) -> None:
        logger.error(
            "cannot %s the judge cache %s (%s: %s): verdicts are not reused or kept from here on; "
            "point SFTKEY_JUDGE_CACHE at a folder that can be written to",
            what,
            self._directory,
            type(error).__name__,
            error,
        )
        self.close()


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_damage(error: Exception) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _parse(stored: str | None) -> CachedVerdict | None:
    if stored is None:
        return None
    try:
        value = json.loads(stored)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("same"), bool):
        return None
    return CachedVerdict(value["same"], encodable(str(value.get("reply", ""))))
