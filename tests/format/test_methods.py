"""A chain of stages has one name wherever it is shown."""

from __future__ import annotations

import pytest
from sftkey.format.methods import STRATEGIES, strategy_of


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_papers_chains_have_its_names(name: str) -> None:
    assert strategy_of(method.name for method in STRATEGIES[name].stages) == name


@pytest.mark.parametrize(
    ("methods", "name"),
    [
        (["sft-tag", "sft-tag"], "SFT-Tag then SFT-Tag"),
        ([None, "key"], "unknown method then Key"),
        (["sft-tag", "from-the-future"], "SFT-Tag then from-the-future"),
    ],
)
def test_other_chains_are_named_by_their_stages(methods: list[str | None], name: str) -> None:
    assert strategy_of(methods) == name
