"""Keys that nobody reads: Axolotl drops them without a word, so a misspelt one trains with the default."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from sftkey.recipes.entry_keys import ENTRY_KEYS
from sftkey.recipes.load import Recipe, data_entries
from sftkey.util.errors import UserError

KnownKeys = Mapping[str, Collection[str] | None]
"""Every key of Axolotl, its plugins and this one; for a mapping with keys of its own those, else ``None``."""

_SHORT = 5
_ALIKE = 0.8


def check_keys(cfg: Recipe, known: KnownKeys) -> list[str]:
    """Look for keys of a recipe that nobody reads.

    Args:
        cfg: The raw recipe.
        known: The keys that exist.

    Returns:
        A warning for each unknown key that is far from every known one.

    Raises:
        UserError: An unknown key is near a known one, or stands in an entry of ``datasets:``.
    """
    for place, entry in data_entries(cfg):
        for key in entry:
            if key not in ENTRY_KEYS:
                near = nearest_key(str(key), ENTRY_KEYS)
                raise UserError(
                    f"{place}: {key}: no key of an entry; "
                    + (f"did you mean {near!r}?" if near else "it would be ignored, remove it")
                )
    warnings = []
    for where, key, siblings in _unknown(cfg, known):
        near = nearest_key(key, siblings)
        if near is not None:
            raise UserError(
                f"{where}{key}: no key of Axolotl or of this plugin, and it would be ignored; did you mean {near!r}?"
            )
        warnings.append(f"{where}{key}: no key of Axolotl, of a plugin in plugins: or of this one; it is ignored")
    return warnings


def _unknown(cfg: Recipe, known: KnownKeys) -> Iterator[tuple[str, str, Collection[str]]]:
    for key, value in cfg.items():
        if key not in known:
            yield "", str(key), known
            continue
        inner = known[key]
        if inner and isinstance(value, Mapping):
            for name in value:
                if name not in inner:
                    yield f"{key}: ", str(name), inner


def nearest_key(name: str, known: Collection[str]) -> str | None:
    """The known key that a name is a misspelling of; ``None`` where none is near."""
    plain = name.lower().replace("-", "_")
    most = 2 if len(plain) >= _SHORT else 1
    by_edits = min(((edits(plain, key, most), key) for key in known), default=None)
    if by_edits and by_edits[0] <= most:
        return by_edits[1]
    ratio, key = max(((SequenceMatcher(None, plain, key).ratio(), key) for key in known), default=(0.0, ""))
    return key if ratio >= _ALIKE else None


def edits(one: str, other: str, most: int) -> int:
    """How many letters were inserted, left out, replaced or swapped with the next; more than `most` is ``most + 1``."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def keys_of_path(path: str, known: KnownKeys) -> Any:
    """The siblings of a dotted path's last key that are known; ``None`` where any key is allowed there."""
    first, *rest = path.split(".")
    if not rest:
        return known
    if first in ("datasets", "test_datasets"):
        return ENTRY_KEYS if len(rest) == 2 else None
    return known.get(first) if len(rest) == 1 else None
