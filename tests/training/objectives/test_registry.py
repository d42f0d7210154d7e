"""`sftkey_objective` as a recipe has it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sftkey.training.objectives.registry import OBJECTIVES, read_objective, recipe_objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_name_and_a_mapping_are_the_same(name: str) -> None:
    assert read_objective(name) == read_objective({"name": name})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("dtf", r"'dtf' is not one of ce, .*; did you mean 'dft'\?"),
        ({"name": "eatf"}, r"'eatf' is not one of .*; did you mean 'eaft'\?"),
        (3, r"3 is neither a name nor a mapping such as \{name: dft\}"),
        (["dft"], "is neither a name nor a mapping"),
        ({}, "is neither a name nor a mapping"),
        ({"name": 3}, "is neither a name nor a mapping"),
        ({"power": 2}, "is neither a name nor a mapping"),
        ({"name": "dft", "power": 2}, "'power' is no key of dft; it has none"),
        ({"name": "eaft", "pwoer": 2}, r"'pwoer' is no key of eaft; did you mean 'power'\?"),
        ({"name": "eaft", "power": "much"}, "eaft: power: 'much': "),
        ({"name": "eaft", "power": float("nan")}, "eaft: power: nan: "),
        ({"name": "eaft", "power": True}, "eaft: .*power: True is no number"),
        ({"name": "eaft", "top": 10**100}, "eaft: top: "),
        ({"name": "rho-1", "share": 0}, "rho-1: share: 0: Input should be greater than 0"),
        ({"name": "rho-1", "within": "row"}, "rho-1: within: 'row': "),
        ({"name": "forgetting", "share": 1}, "forgetting: share: 1: "),
        ({"name": "anchor-kl", "strength": -1}, "anchor-kl: strength: -1: "),
        ({"name": "sft-go", "groups": "words"}, "sft-go: groups: 'words': "),
        ("d" * 100_000, "is not one of"),
    ],
)
def test_mistakes_are_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_objective(value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_the_objective_follows_from_the_weights_where_none_is_named() -> None:
    assert recipe_objective({}).name == "ce"
    assert recipe_objective({"sftkey_segment_weights": {"thinking": 0.1}}).name == "segment-weights"
    assert recipe_objective({"sftkey_segment_schedule": {"thinking": 0}}).name == "segment-weights"
    assert recipe_objective({"sftkey_segment_weights": {"thinking": 0.1}, "sftkey_objective": "dft"}).name == "dft"


def test_the_summaries_fit_a_table() -> None:
    for kind in OBJECTIVES.values():
        assert re.fullmatch(r"[^\n;|]{5,90}", kind.summary)
