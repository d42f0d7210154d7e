"""Which turns of a conversation a recipe trains, and what does not go with that."""

from __future__ import annotations

from sftkey.datasets.chat_reader import TURNS
from sftkey.datasets.messages import reader_of
from sftkey.datasets.registry import TYPES
from sftkey.recipes.load import Recipe, data_entries
from sftkey.util.errors import UserError


def check_turns(cfg: Recipe) -> None:
    """Refuse a value of ``sftkey_turns`` that is none, that nothing reads, or a split through conversations.

    Raises:
        UserError: Names the key.
    """
    turns = cfg.get("sftkey_turns")
    if turns not in (None, *TURNS):
        raise UserError(f"sftkey_turns: {turns!r} is not one of {', '.join(TURNS)}")
    readers = [reader_of(entry, turns) for _, entry in data_entries(cfg) if entry.get("type") == f"{TYPES}messages"]
    if turns and not readers:
        raise UserError(f"sftkey_turns: only type {TYPES}messages reads it, and no entry has that type; remove it")
    if cfg.get("val_set_size") and any(reader.turns == "all" for reader in readers):
        raise UserError(
            f"val_set_size: {cfg['val_set_size']} and sftkey_turns: all: turns of one conversation would be on both sides; "
            "put whole conversations into a file of their own and name it under test_datasets"
        )
