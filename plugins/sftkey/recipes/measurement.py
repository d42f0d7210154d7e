"""What of a recipe its peak memory is measured by: the model's shape, its settings, the estimate for so many GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftkey.recipes.catalogue import ShippedRecipe, shipped_recipe
from sftkey.recipes.load import fsdp_version
from sftkey.recipes.memory import Architecture, architecture_of, estimate_memory
from sftkey.util.errors import UserError

USUAL = ("smollm2_135m_stage2", "qwen2_5_1_5b_stage2", "qwen3_8b_lora_stage2")
"""Shipped recipes that are measured where none is named: one GPU takes them, one after the other."""

_SETTINGS = (
    *("micro_batch_size", "sequence_len", "bf16", "adapter", "lora_r", "load_in_4bit", "gradient_checkpointing"),
    *("sftkey_fp32_weights", "fsdp", "fsdp_version", "fsdp_config"),
)

_MOST_GPUS = 16


def to_measure(names: Sequence[str]) -> list[dict[str, Any]]:
    """What `sftkey.training.doctor.run.examine` takes as its recipes.

    Args:
        names: Recipe files, or names of shipped recipes.

    Raises:
        UserError: There is no such recipe, or it names no model.
    """
    return [_one(name) for name in names or USUAL]


def _one(name: str) -> dict[str, Any]:
    path = Path(name)
    recipe = ShippedRecipe(path) if path.is_file() else shipped_recipe(name)
    if not recipe.config.get("base_model"):
        raise UserError(f"{name}: has no base_model, so the size of its model isn't known")
    given = {key: recipe.config[key] for key in _SETTINGS if recipe.config.get(key) is not None}
    settings = {"micro_batch_size": 1, "sequence_len": 512, **given}
    shape = architecture_of(recipe.model)
    if shape is None:
        return {"recipe": recipe.name, "skip": f"the shape of {recipe.model} isn't known here"}
    sharded = fsdp_version(settings) is not None
    try:
        gpus = range(1, _MOST_GPUS + 1 if sharded else 2)
        estimates = [int(estimate_memory(shape, settings, gpus=number).peak) for number in gpus]
    except (TypeError, ValueError) as error:
        return {"recipe": recipe.name, "skip": f"no estimate ({error})"}
    packages = ["peft"] if settings.get("adapter") else []
    packages += ["bitsandbytes"] if settings.get("load_in_4bit") else []
    return {
        "recipe": recipe.name,
        "config": model_config(shape),
        "settings": settings,
        "estimates": estimates,
        "every_gpu": sharded,
        "packages": packages,
    }


def model_config(shape: Architecture) -> dict[str, Any]:
    """A model of a shape, in transformers' names."""
    kind = "qwen3" if shape.qk_norm else "qwen2" if shape.qkv_bias else "llama"
    fields = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "tie_word_embeddings"),
    )
    config = {"model_type": kind, **{field: getattr(shape, field) for field in fields}}
    return config if kind == "qwen2" else {**config, "head_dim": shape.head_dim}
