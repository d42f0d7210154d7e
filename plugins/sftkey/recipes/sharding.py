"""How a recipe for several GPUs spreads weights, gradients and optimizer over them: DeepSpeed ZeRO-3 or FSDP2."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from sftkey.recipes.load import Recipe, fsdp_version
from sftkey.util.errors import UserError

SHARDINGS = {"zero3": "DeepSpeed ZeRO-3 (the extra [gpu])", "fsdp2": "FSDP2"}
"""The names of ``sftkey recipe --sharding``, and how a recipe's header names what it needs."""


def shard_with_fsdp2(document: MutableMapping[str, Any]) -> None:
    """Turn a recipe for DeepSpeed ZeRO-3 into one for FSDP2.

    The layers that are sharded, one by one, are those that the model's own code says must stay whole.

    Args:
        document: The recipe; changed in place.
    """
    del document["deepspeed"]
    checkpoints = document.pop("gradient_checkpointing", False)
    document["fsdp_version"] = 2
    document["fsdp_config"] = {
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "FULL_STATE_DICT",
        "reshard_after_forward": True,
        "cpu_ram_efficient_loading": True,
        # In place of gradient_checkpointing, which would gather each layer's weights once more.
        "activation_checkpointing": bool(checkpoints),
    }
    document["sftkey_fp32_weights"] = True


def check_sharding(cfg: Recipe) -> None:
    """Check what a recipe says of sharding.

    Raises:
        UserError: The first setting that doesn't go with it.
    """
    wanted = cfg.get("sftkey_fp32_weights")
    if wanted is None or wanted is False:
        return
    if wanted is not True:
        raise UserError(f"sftkey_fp32_weights: {wanted!r} is not true or false")
    if fsdp_version(cfg) != 2:
        raise UserError("sftkey_fp32_weights: true is for FSDP2 (fsdp_version: 2 with fsdp_config); remove it")
    if cfg.get("adapter"):
        raise UserError(
            f"sftkey_fp32_weights: true would double the frozen weights below adapter: {cfg['adapter']}; remove it"
        )
