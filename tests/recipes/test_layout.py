"""A recipe as text: groups of keys in one order, and nothing in a comment can become a key."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from sftkey.recipes.layout import recipe_text


def test_the_layout() -> None:
    config = {
        "seed": 1,
        "zebra": {"b": [1, {"c": []}], "a": None},
        "learning_rate": 1e-4,
        "apple": "no",
        "sftkey_context_grad": False,
        "lora_dropout": 0.05,
        "lora_r": 8,
        "datasets": [{"path": "x", "type": "y"}],
        "sftkey_method": "key",
        "plugins": ["sftkey.SFTKeyPlugin"],
        "base_model": "m",
    }
    text = recipe_text(config, ["What.", "How."], {"learning_rate": "# One.\n# Two.\n"})
    assert text == (
        "# What.\n# How.\nbase_model: m\n\nplugins: [sftkey.SFTKeyPlugin]\nsftkey_method: key\nsftkey_context_grad: false\n\n"
        "datasets:\n  - path: x\n    type: y\n\nlora_dropout: 0.05\nlora_r: 8\n\n# One.\n# Two.\nlearning_rate: 1.0e-4\n\n"
        "seed: 1\n\napple: 'no'\nzebra:\n  b:\n    - 1\n    - c: []\n  a: null\n"
    )


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\u2028", "\x85"])
def test_a_line_break_in_a_header_adds_no_key(line_break: str) -> None:
    text = recipe_text({"seed": 1}, [f"of a stranger{line_break}base_model: evil"])
    assert yaml.safe_load(text) == {"seed": 1}


plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
nested = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3)
)


@example({"base_model": "\x85", "other": ["\u2028", "a\u2029b"]})
@given(st.dictionaries(st.sampled_from(["base_model", "sftkey_x", "datasets", "eval_steps", "other"]), nested))
def test_every_value_is_read_back(config: dict[str, Any]) -> None:
    read = yaml.safe_load(recipe_text(config, ["x"]))
    assert (read or {}) == config
