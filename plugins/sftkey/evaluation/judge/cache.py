"""Verdicts on disk: what a judge was paid for is never asked again."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diskcache

logger = logging.getLogger(__name__)

_SCHEMA = 1


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
    """Verdicts in an SQLite file (`diskcache`), shared safely by threads and processes.

    Each verdict is committed when it is stored, so a killed run loses none. A cache that cannot be read or written
    costs the verdicts' reuse, not the run: that is logged once as an error, and the cache is left alone from then on.

    Args:
        directory: Folder of the cache; created if absent. What is read from it is parsed as JSON, never unpickled.
    """

    def __init__(self, directory: Path) -> None:
        # Whatever goes wrong with the cache, from a full disk to a file that is no database, the evaluation goes on.
        self._directory = directory
        self._cache: diskcache.Cache | None = None
        try:
            # Verdicts are small and were paid for: none is ever evicted.
            self._cache = diskcache.Cache(
                str(directory), timeout=60, disk=_TextOnlyDisk, eviction_policy="none", cull_limit=0
            )
        except Exception as error:
            self._give_up("open", error)

    def __enter__(self) -> JudgeCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def get(self, key: str) -> CachedVerdict | None:
        """The verdict stored under ``key``, or ``None``; an entry that holds no verdict counts as absent."""
        if self._cache is None:
            return None
        try:
            return _parse(self._cache.get(key))
        except Exception as error:
            self._give_up("read", error)
            return None

    def put(self, key: str, verdict: CachedVerdict) -> None:
        """Store a verdict; it is on disk when this returns."""
        if self._cache is None:
            return
        try:
            self._cache.set(key, json.dumps({"same": verdict.same, "reply": verdict.reply}))
        except Exception as error:
            self._give_up("write", error)

    def close(self) -> None:
        """Close the file. What was stored stays."""
        if self._cache is not None:
            self._cache.close()

    def _give_up(self, what: str, error: Exception) -> None:
        logger.error(
            "cannot %s the judge cache %s (%s: %s): verdicts are not reused or kept from here on; "
            "point SFTKEY_JUDGE_CACHE at a folder that can be written to",
            what,
            self._directory,
            type(error).__name__,
            error,
        )
        if self._cache is not None:
            self._cache.close()
        self._cache = None


class _TextOnlyDisk(diskcache.Disk):
    """Stores and loads text in the database itself: no pickle, no other file."""

    def store(self, value: object, read: bool, key: object = diskcache.UNKNOWN) -> tuple[int, int, None, str]:
        if not isinstance(value, str) or read:
            raise TypeError(f"only text is stored in the judge cache, not {type(value).__name__}")
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> object:
        return value if mode == diskcache.core.MODE_RAW else None


def _parse(stored: object) -> CachedVerdict | None:
    if not isinstance(stored, str):
        return None
    try:
        value = json.loads(stored)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("same"), bool):
        return None
    return CachedVerdict(value["same"], str(value.get("reply", "")))
