"""Verdicts on disk: what a judge was paid for is never asked again."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftkey.util.text import encodable

logger = logging.getLogger(__name__)

_SCHEMA = 1
_FILE = "cache.db"

# Name, columns and raw = 1 are those of diskcache, which wrote this file before: what is in such a file stays in use.
_TABLE = "CREATE TABLE IF NOT EXISTS Cache (key TEXT, raw INTEGER, value TEXT, UNIQUE (key, raw))"
_READ = "SELECT value FROM Cache WHERE key = ? AND raw = 1"
_WRITE = "INSERT OR REPLACE INTO Cache (key, raw, value) VALUES (?, 1, ?)"


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

    Each verdict is committed when it is stored, so a killed run loses none, and none is ever evicted. A cache that
    cannot be read or written costs the verdicts' reuse, not the run: that is logged once as an error, and the cache is
    left alone from then on.

    Args:
        directory: Folder of the cache; created if absent. What is read from it is parsed as JSON, never unpickled.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database: sqlite3.Connection | None = None
        with self._tolerant("open"):
            directory.mkdir(parents=True, exist_ok=True)
            # isolation_level None: each statement is a transaction.
            self._database = sqlite3.connect(
                directory / _FILE, timeout=60, isolation_level=None, check_same_thread=False
            )
            with suppress(sqlite3.OperationalError):  # another process is doing the same
                self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(_TABLE)

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
        if self._database is not None:
            with self._tolerant("read"):
                row = self._database.execute(_READ, (key,)).fetchone()
                return row[0] if row and isinstance(row[0], str) else None
        return None

    def write(self, key: str, text: str) -> None:
        """Store a text; it is on disk when this returns."""
        if self._database is not None:
            with self._tolerant("write"):
                self._database.execute(_WRITE, (key, text))

    def close(self) -> None:
        """Close the file. What was stored stays."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @contextmanager
    def _tolerant(self, what: str) -> Iterator[None]:
        """Whatever goes wrong, from a full disk to a file that is no database, the evaluation goes on without the cache."""
        try:
            yield
        except Exception as error:
            logger.error(
                "cannot %s the judge cache %s (%s: %s): verdicts are not reused or kept from here on; "
                "point SFTKEY_JUDGE_CACHE at a folder that can be written to",
                what,
                self._directory,
                type(error).__name__,
                error,
            )
            self.close()


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
