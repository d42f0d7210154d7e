"""Which turns of a conversation a recipe trains, and what does not go with that."""

from __future__ import annotations

from typing import Any

import pytest
from sftkey.recipes.checks import check_recipe
from sftkey.recipes.turns import check_turns
from sftkey.util.errors import UserError

ENTRY = {"path": "me/chats", "type": "sftkey.datasets.messages"}
ALL = {**ENTRY, "sftkey_turns": "all"}
ROWS = {"path": "me/rows", "type": "sftkey.datasets.columns"}


@pytest.mark.parametrize(
    "recipe",
    [
        {"datasets": [ENTRY], "sftkey_turns": "all"},
        {"datasets": [ALL, ROWS], "sftkey_turns": "last"},
        {"datasets": [ENTRY], "val_set_size": 0.1},
        {"datasets": [{**ENTRY, "sftkey_turns": "last"}], "sftkey_turns": "all", "val_set_size": 0.1},
        {"datasets": [ROWS], "val_set_size": 0.1},
    ],
)
def test_what_goes_together_passes(recipe: dict[str, Any]) -> None:
    check_turns(recipe)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        *(
            ({"datasets": [ENTRY], "sftkey_turns": value}, "is not one of last, all")
            for value in ("All", 1, ["all"], "")
        ),
        ({"datasets": [ROWS], "sftkey_turns": "all"}, "sftkey_turns: only type sftkey.datasets.messages reads it"),
        (
            {"datasets": [ENTRY], "sftkey_turns": "all", "val_set_size": 0.1},
            "turns of one conversation would be on both",
        ),
        ({"datasets": [ENTRY, ALL], "val_set_size": 0.1}, "turns of one conversation would be on both"),
        (
            {"datasets": [{**ENTRY, "message_property_mappings": {"sftkey_turns": "all"}}], "val_set_size": 0.1},
            "turns of one conversation would be on both",
        ),
    ],
)
def test_what_does_not_is_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_turns(recipe)


@pytest.mark.parametrize("value", [3, "x", ["a"]])
def test_an_entry_of_another_shape_is_refused_before_its_turns_are_asked_for(value: object) -> None:
    entry = {**ENTRY, "message_property_mappings": value}
    with pytest.raises(UserError, match=r"datasets\[0\]: message_property_mappings: .* is not a mapping such as"):
        check_recipe({"sftkey_method": "sft-tag", "datasets": [entry], "val_set_size": 0.1})
