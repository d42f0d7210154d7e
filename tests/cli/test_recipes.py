"""``sftkey recipes``: the list of what is shipped."""

from __future__ import annotations

import json
import re

from click.testing import CliRunner
from sftkey.cli.main import sftkey
from sftkey.recipes.catalogue import shipped_recipes
from support.documented_json import follows_the_documentation


def test_the_list() -> None:
    result = CliRunner().invoke(sftkey, ["recipes"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert len(lines) == 1 + len(shipped_recipes())
    row = next(line for line in lines if line.startswith("qwen2_5_7b_sftkey_plain"))
    assert re.split(r" {2,}", row) == [
        "qwen2_5_7b_sftkey_plain",
        "Qwen/Qwen2.5-7B",
        "SFTKey",
        "gsm8k",
        "8 x 40 GB",
        "about 26 GiB",
    ]


def test_recipes_as_json() -> None:
    found = json.loads(CliRunner().invoke(sftkey, ["recipes", "--json"]).stdout)
    follows_the_documentation("recipes", found)
    assert [recipe["recipe"] for recipe in found] == [recipe.name for recipe in shipped_recipes()]
    by_name = {recipe["recipe"]: recipe for recipe in found}
    assert by_name["demo_sft"]["memory_per_gpu"] is None
    assert by_name["qwen2_5_7b_sftkey_plain"] == {
        "recipe": "qwen2_5_7b_sftkey_plain",
        "model": "Qwen/Qwen2.5-7B",
        "strategy": "SFTKey",
        "data_set": "gsm8k",
        "gpus": "8 x 40 GB",
        "memory_per_gpu": "about 26 GiB",
    }
