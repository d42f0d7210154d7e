"""An adapter that is trained on keeps its own shape, whatever the recipe says: the two must agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sftkey.recipes.load import Recipe
from sftkey.recipes.settings import alike
from sftkey.util.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"

_SHAPE = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_target_linear": None,
    "lora_target_parameters": "target_parameters",
    "lora_modules_to_save": "modules_to_save",
    "lora_fan_in_fan_out": "fan_in_fan_out",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
    "peft_layers_to_transform": "layers_to_transform",
    "peft_layers_pattern": "layers_pattern",
    "peft_trainable_token_indices": "trainable_token_indices",
    "lora_rank_pattern": "rank_pattern",
    "lora_alpha_pattern": "alpha_pattern",
}
"""Recipe key -> key of the adapter's configuration; ``None`` where that holds only what follows from it."""

_DEFAULTS = {
    "lora_dropout": 0.0,
    "lora_target_linear": False,
    "lora_fan_in_fan_out": False,
    "peft_use_dora": False,
    "peft_use_rslora": False,
}


def adapter_shape(folder: str | Path) -> dict[str, Any]:
    """What decides which numbers of an adapter are trained, and how they count; empty where there is no adapter."""
    try:
        config = json.loads((Path(folder) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    names = [*filter(None, _SHAPE.values()), "bias"]
    shape = {name: config[name] for name in names if config.get(name)} if isinstance(config, dict) else {}
    # peft writes sets in any order.
    return {name: sorted(value, key=str) if isinstance(value, list) else value for name, value in shape.items()}


def refuse_other_shape(name: str, cfg: Recipe, folder: str, before: Recipe) -> None:
    """Refuse a recipe that gives the adapter that it trains on another shape than that has.

    Args:
        name: What the message begins with.
        cfg: The raw recipe.
        folder: The adapter; until it is there, the recipe that makes it counts.
        before: That recipe; empty where it isn't known.

    Raises:
        UserError: Names the keys and what to set them to.
    """
    shape = adapter_shape(folder)
    other = {}
    for key, theirs in _SHAPE.items():
        ours, made_with = cfg.get(key), before.get(key, _DEFAULTS.get(key))
        known = bool(shape) if theirs else bool(before)
        has = shape.get(theirs, _DEFAULTS.get(key)) if theirs and shape else made_with
        # What a list or a text such as all-linear came to is in the adapter, not what was asked for.
        same = _same(ours, has) or (isinstance(ours, (list, str)) and _same(ours, made_with))
        if ours is not None and not same and (known or has is not None):
            other[key] = has
    if other:
        given = ", ".join(f"{key}: {cfg[key]}" for key in other)
        wanted = ", ".join(f"{key}: {value}" if value is not None else f"no {key}" for key, value in other.items())
        raise UserError(
            f"{name}{given}: the adapter in {folder} is trained on as it is, with {wanted}. Set those here too, or train "
            "the stage before with the shape that you want"
        )


def _same(ours: Any, has: Any) -> bool:
    if isinstance(ours, list) and isinstance(has, list):
        return sorted(map(str, ours)) == sorted(map(str, has))
    return alike(ours, has)
