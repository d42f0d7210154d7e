"""The pattern and the batch for a model on given GPUs: the largest that the memory estimate lets fit."""

from __future__ import annotations

import pytest
from sftkey.recipes.catalogue import shipped_recipe
from sftkey.recipes.memory import ARCHITECTURES, estimate_memory
from sftkey.recipes.sizing import sequence_length, sizes


@pytest.mark.parametrize("model", ARCHITECTURES)
@pytest.mark.parametrize(("gpus", "gigabytes"), [(1, 16), (1, 24), (1, 80), (2, 40), (8, 40), (8, 80)])
def test_it_fits_and_twice_the_batch_would_not(model: str, gpus: int, gigabytes: int) -> None:
    chosen = sizes(ARCHITECTURES[model], 1024, gpus, gigabytes)
    pattern = shipped_recipe(chosen.pattern)

    def peak(factor: int) -> float:
        config = {**pattern.config, **chosen.keys, "sequence_len": 1024}
        config["micro_batch_size"] *= factor
        shared = gpus if pattern.zero_stage else 1
        return estimate_memory(ARCHITECTURES[model], config, gpus=shared, zero_stage=pattern.zero_stage).peak

    micro, accumulated = chosen.keys["micro_batch_size"], chosen.keys["gradient_accumulation_steps"]
    assert micro * accumulated == 32  # type: ignore[operator]
    assert peak(1) <= gigabytes * 10**9
    assert micro == 32 or peak(2) > gigabytes * 10**9


def test_all_weights_before_an_adapter_before_four_bits() -> None:
    shape = ARCHITECTURES["Qwen/Qwen3-8B-Base"]
    assert sizes(shape, 1024, 8, 40).pattern == "qwen3_8b_stage2"
    assert sizes(shape, 1024, 1, 24).keys.get("adapter") is None
    assert sizes(shape, 1024, 1, 24).pattern == "qwen3_8b_lora_stage2"
    assert sizes(shape, 1024, 1, 16).keys["adapter"] == "qlora"
    assert sizes(shape, 1024, 1, 4).keys["micro_batch_size"] == 1
    assert sizes(None, 1024, 1, 80).pattern == "qwen3_8b_lora_stage2"
    assert sizes(None, 1024, 0, 0).pattern == "smollm2_135m_stage2"


def test_the_longest_sequence_is_a_power_of_two_within_bounds() -> None:
    assert sequence_length([["short"]], None) == 512
    assert sequence_length([["x" * 1500, "y" * 900]], None) == 2048
    assert sequence_length([["x" * 10**6]], None) == 16_384
    assert sequence_length([["x" * 10**6]], 2048) == 2048
    # One of a hundred doesn't make all of them long.
    assert sequence_length([["x"]] * 199 + [["x" * 10**6]], None) == 512
    assert sequence_length([], None) == 512
