"""What a recipe says of its objective, before a model is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sftkey.recipes.checks import check_recipe
from sftkey.training.objectives.registry import OBJECTIVES, read_objective
from sftkey.util.errors import UserError

RECIPE = {
    "base_model": "Qwen/Qwen3-0.6B",
    "sftkey_method": "sft-tag",
    "datasets": [{"path": "openai/gsm8k", "name": "main", "split": "train", "type": "sftkey.datasets.gsm8k"}],
}


@pytest.mark.parametrize("method", ["sft", "sft-tag", "key-tag", "key"])
@pytest.mark.parametrize("objective", [None, "ce", "dft", {"name": "eaft", "top": 5}])
def test_good_recipes(method: str, objective: Any) -> None:
    check_recipe({**RECIPE, "sftkey_method": method, "sftkey_objective": objective})


REFERENCE = {"sftkey_reference_model": "Qwen/Qwen3-1.7B"}


@pytest.mark.parametrize("objective", ["rho-1", "token-cleaning", "forgetting", "long-range", "anchor-kl"])
def test_objectives_that_take_a_reference(objective: str) -> None:
    check_recipe({**RECIPE, "sftkey_objective": objective, **REFERENCE})
    with pytest.raises(UserError, match=f"{objective} .*: it takes a reference model; add sftkey_reference_model"):
        check_recipe({**RECIPE, "sftkey_objective": objective})
    with pytest.raises(UserError, match="before is the stage that this one starts from; add sftkey_after"):
        check_recipe({**RECIPE, "sftkey_objective": objective, "sftkey_reference_model": "before"})


def test_weights_go_with_an_objective() -> None:
    weights = {"sftkey_segment_weights": {"thinking": 0.1}}
    check_recipe({**RECIPE, **weights, "sftkey_objective": "segment-weights"})
    check_recipe({**RECIPE, **weights, "sftkey_objective": "dft"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sftkey_objective": "dtf"}, r"sftkey_objective: 'dtf' is not one of .*; did you mean 'dft'\?"),
        ({"sftkey_objective": "DFT"}, r"'DFT' is not one of .*; did you mean 'dft'\?"),
        ({"sftkey_objective": {"name": "eaft", "POWER": 3}}, r"'POWER' is no key of eaft; did you mean 'power'\?"),
        ({"sftkey_objective": {"name": "eaft", "topp": 3}}, r"'topp' is no key of eaft; did you mean 'top'\?"),
        ({"sftkey_objective": ["dft"]}, "neither a name nor a mapping"),
        ({"sftkey_objectives": "dft"}, "unknown key 'sftkey_objectives'; did you mean 'sftkey_objective'"),
        (
            {"sftkey_objective": "ce", "sftkey_segment_weights": {"thinking": 0.1}},
            "sftkey_objective: ce with sftkey_method: sft-tag: the recipe weights segments; set it to segment-weights",
        ),
        (
            {"sftkey_objective": "segment-weights"},
            "sftkey_objective: segment-weights with sftkey_method: sft-tag: there are no weights; add sftkey_segment_weights",
        ),
        (
            {"sftkey_objective": "dft", **REFERENCE},
            "sftkey_objective: dft .*: it takes no reference model; remove sftkey_reference_model: Qwen/Qwen3-1.7B",
        ),
        ({**REFERENCE}, "it takes no reference model; remove sftkey_reference_model"),
        ({"sftkey_objective": "rho-1", "sftkey_reference_model": 3}, "sftkey_reference_model: 3 is not a text"),
        (
            {"sftkey_objective": "forgetting", "sftkey_reference_model": "before", "sftkey_after": "stage1.yml"},
            "compares its reference with what training starts from, which is before; name another",
        ),
        (
            {"sftkey_objective": {"name": "sft-go", "groups": "segments"}, "sftkey_method": "key-tag"},
            "sftkey_objective: sft-go with sftkey_method: key-tag: only what follows the thinking is trained, which is one",
        ),
        (
            {"sftkey_objective": "rho-1", "sftkey_method": "key-tag", "sftkey_context_grad": False, **REFERENCE},
            "sftkey_objective: rho-1 does not go with sftkey_context_grad: false",
        ),
        (
            {"sftkey_objective": "rho-1", "sftkey_reference_model": "./out/a", "output_dir": "out/a/"},
            "its reference, ./out/a, is this stage's own output_dir; name a model that is there before it",
        ),
        *(
            ({"sftkey_objective": value}, message)
            for value, message in (
                (3, "sftkey_objective: 3 is neither"),
                (True, "sftkey_objective: True is neither"),
                ({}, "sftkey_objective: {} is neither"),
                ({"name": "rho-1", "share": True}, "sftkey_objective: rho-1: share: True is no number"),
                ({"name": "rho-1", "share": float("nan")}, "rho-1: share: nan: Input should be a finite number"),
                ({"name": "rho-1", "within": True}, "rho-1: within: True: Input should be 'batch' or 'sequence'"),
                ({"name": "eaft", "top": True}, "sftkey_objective: eaft: top: True is no number"),
            )
        ),
        ({"max_steps": "many"}, "max_steps: 'many' is not a whole number"),
        ({"use_dft": True}, "use_dft: .*`sftkey_objective: dft`"),
        ({"use_eaft": True}, "use_eaft: .*`sftkey_objective: eaft`"),
    ],
)
def test_mistakes_are_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_recipe({**RECIPE, **change})
    assert "\n" not in str(caught.value)


def test_the_table_of_objectives_has_every_name_and_key(repository: Path) -> None:
    text = (repository / "recipes" / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \|(.*)\|$", text, flags=re.M))
    for name, kind in OBJECTIVES.items():
        defaults = read_objective(name).model_dump()
        for key in kind.model_fields:
            value = str(defaults[key]).lower() if isinstance(defaults[key], bool) else defaults[key]
            assert f"`{key}: {value}`" in rows[name], (name, key)
