"""What own rows are called in texts and in file names: by their path."""

from __future__ import annotations

import re

_DATA_SUFFIXES = re.compile(r"(?:\.(?:jsonl?|csv|tsv|parquet|arrow|txt|gz|zst|bz2|xz|zip|tar)){1,3}\Z", re.IGNORECASE)
_LONGEST_SLUG = 60
_PLAIN_FILE = {"train", "training", "test", "validation", "valid", "eval", "dev", "data", "rows", "main", "default"}


def data_title(name: str) -> str:
    """What names the data in a path, on the Hub or on disk: its last part, after its folder where that says little."""
    parts = [_DATA_SUFFIXES.sub("", part) for part in re.split(r"[/\\]+", name)]
    parts = [part for part in parts if part.strip(".*?~ ") and not part.endswith(":")]
    if not parts:
        return name
    folder, last = ("", *parts)[-2:]
    return f"{folder} ({last})" if folder and last.lower() in _PLAIN_FILE else last


def data_slug(name: str) -> str:
    """The same as a part of file and folder names: lower case, other signs as ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", data_title(name).lower()).strip("_")[:_LONGEST_SLUG].rstrip("_") or "rows"
