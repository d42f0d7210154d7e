"""Keys that nobody reads: near a known one an error, else a warning; a real key is never flagged."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.recipes.catalogue import shipped_recipes
from sftkey.recipes.entry_keys import ENTRY_KEYS
from sftkey.recipes.load import load_recipe
from sftkey.recipes.overrides import set_key
from sftkey.recipes.unknown_keys import check_keys, edits
from sftkey.util.errors import UserError

pytest.importorskip("axolotl")
from axolotl.utils.schemas.datasets import SFTDataset
from sftkey.axolotl.known_keys import known_keys

KNOWN = known_keys()
_LETTERS = "abcdefghijklmnopqrstuvwxyz_0123456789"


@st.composite
def _misspelt(draw: st.DrawFn) -> tuple[str, str]:
    key = draw(st.sampled_from(sorted(KNOWN)))
    wrong = key
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(wrong) - 1))
        letter = draw(st.sampled_from(_LETTERS))
        wrong = draw(
            st.sampled_from(
                [
                    wrong[:at] + wrong[at + 1 :],
                    wrong[:at] + letter + wrong[at:],
                    wrong[:at] + letter + wrong[at + 1 :],
                    wrong[:at] + wrong[at + 1 : at + 2] + wrong[at] + wrong[at + 2 :],
                ]
            )
        )
        if not wrong:
            wrong = letter
    return key, wrong


@given(_misspelt())
def test_one_or_two_slips_are_caught(pair: tuple[str, str]) -> None:
    key, wrong = pair
    if wrong in KNOWN:
        return
    slips = edits(wrong, key, 2)
    if slips > 2 or (len(wrong) < 5 and slips > 1):
        # A letter between two that are swapped is a third slip, and two in four letters are another word: a warning at least.
        with suppress(UserError):
            assert check_keys({wrong: 1}, KNOWN)
        return
    with pytest.raises(UserError, match="did you mean"):
        check_keys({wrong: 1}, KNOWN)


def test_real_keys_are_never_flagged() -> None:
    entries = [dict.fromkeys(SFTDataset.model_fields)]
    assert check_keys({**dict.fromkeys(KNOWN, 1), "datasets": entries, "test_datasets": entries}, KNOWN) == []
    assert set(SFTDataset.model_fields) < ENTRY_KEYS


def test_shipped_recipes_hold_known_keys_only() -> None:
    for recipe in shipped_recipes():
        assert check_keys(load_recipe(recipe.path), KNOWN) == []


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"num_epoch": 1}, "num_epoch: no key .* 'num_epochs'"),
        ({"learning-rate": 1}, "did you mean 'learning_rate'"),
        ({"Sequence_Len": 1}, "did you mean 'sequence_len'"),
        ({"gradient_accumulation": 1}, "did you mean 'gradient_accumulation_steps'"),
        ({"special_tokens": {"pad_tokn": "x"}}, "special_tokens: pad_tokn: .* 'pad_token'"),
        ({"datasets": [{"path": "x", "splits": "train"}]}, r"datasets\[0\]: splits: .* 'split'"),
        ({"test_datasets": [{"path": "x", "zebra": "train"}]}, r"test_datasets\[0\]: zebra: .* remove it"),
    ],
)
def test_a_key_near_a_known_one_is_an_error(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_keys(recipe, KNOWN)


def test_another_unknown_key_is_a_warning() -> None:
    assert check_keys({"my_notes_on_the_weather": 1}, KNOWN) == [
        "my_notes_on_the_weather: no key of Axolotl, of a plugin in plugins: or of this one; it is ignored"
    ]


@pytest.mark.parametrize("path", ["num_epoch", "datasets.0.splt", "special_tokens.pad_tokn"])
def test_an_override_is_checked_too(path: str) -> None:
    config: dict[str, Any] = {"datasets": [{"path": "x"}], "special_tokens": {}}
    with pytest.raises(UserError, match="did you mean"):
        set_key(config, path, 1, lambda: KNOWN)
    assert config == {"datasets": [{"path": "x"}], "special_tokens": {}}
    set_key(config, "datasets.0.split", "train", lambda: KNOWN)
    set_key(config, "special_tokens.pad_token", "x", lambda: KNOWN)
    set_key(config, "num_epochs", 1, lambda: KNOWN)
    assert config == {
        "datasets": [{"path": "x", "split": "train"}],
        "special_tokens": {"pad_token": "x"},
        "num_epochs": 1,
    }
