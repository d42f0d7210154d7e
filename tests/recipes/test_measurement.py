"""What of a recipe its memory is measured by: a model of the same size, and the estimate for the GPUs that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sftkey.recipes.catalogue import shipped_recipe
from sftkey.recipes.measurement import USUAL, model_config, to_measure
from sftkey.recipes.memory import ARCHITECTURES, Architecture, estimate_memory
from sftkey.util.errors import UserError


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_model_has_the_parameters_of_the_recipes(name: str) -> None:
    from sftkey.training.doctor.sizes import build

    config = model_config(ARCHITECTURES[name])
    model = build(config, "meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == ARCHITECTURES[name].parameters
    assert Architecture.from_config(config) == ARCHITECTURES[name]
    assert next(model.parameters()).dtype == torch.float32


def test_what_is_measured_by_default() -> None:
    for name, found in zip(USUAL, to_measure([]), strict=True):
        assert found["recipe"] == name
        recipe = shipped_recipe(name)
        assert recipe.architecture is not None
        assert found["estimates"] == [int(estimate_memory(recipe.architecture, recipe.config).peak)]
        assert found["every_gpu"] is False
    assert found["packages"] == ["peft"], "the last is the adapter"


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    place = tmp_path / "mine.yml"
    place.write_text("base_model: my-org/unknown\ngradient_checkpointing: true\n")
    assert to_measure([str(place)]) == [{"recipe": "mine", "skip": "the shape of my-org/unknown isn't known here"}]
    place.write_text("base_model: Qwen/Qwen2.5-7B\n")
    assert "gradient_checkpointing: true only" in to_measure([str(place)])[0]["skip"]
    place.write_text(
        "base_model: Qwen/Qwen2.5-7B\nbf16: true\nadapter: qlora\nload_in_4bit: true\ngradient_checkpointing: true\n"
    )
    assert to_measure([str(place)])[0]["packages"] == ["peft", "bitsandbytes"]
    place.write_text(
        "base_model: Qwen/Qwen2.5-7B\nmicro_batch_size:\nsequence_len: null\ngradient_checkpointing: true\n"
    )
    assert to_measure([str(place)])[0]["settings"]["micro_batch_size"] == 1
    place.write_text("gradient_checkpointing: true\n")
    with pytest.raises(UserError, match=r"mine\.yml: has no base_model"):
        to_measure([str(place)])
    with pytest.raises(UserError, match="there is no shipped recipe 'qwen'"):
        to_measure(["qwen"])


def test_fsdp2_is_measured_on_all_gpus(tmp_path: Path) -> None:
    place = tmp_path / "sharded.yml"
    place.write_text(
        "base_model: Qwen/Qwen2.5-7B\nbf16: true\nsftkey_fp32_weights: true\nfsdp_version: 2\n"
        "fsdp_config: {activation_checkpointing: true}\n"
    )
    found = to_measure([str(place)])[0]
    assert found["every_gpu"] is True
    assert found["estimates"] == sorted(found["estimates"], reverse=True)
    assert found["estimates"][0] > 16 * ARCHITECTURES["Qwen/Qwen2.5-7B"].parameters > found["estimates"][1]
