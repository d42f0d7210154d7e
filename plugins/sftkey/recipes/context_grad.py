"""What does not go without the context gradient (``sftkey_context_grad: false``) in a recipe."""

from __future__ import annotations

from collections.abc import Iterator

from sftkey.format.methods import METHODS
from sftkey.format.segments import AFTER_THINKING
from sftkey.recipes.load import Recipe, checkpoints_in_fsdp, fsdp_version, zero_stage
from sftkey.training.objectives.registry import recipe_objective
from sftkey.util.errors import UserError

_NO_CACHE = "it was not made to attend to a cache in training"

_EXCLUDED = {
    "sample_packing": "each row has a context of its own",
    "neftune_noise_alpha": "its noise depends on the length of what is run, and a row is run in two parts",
    "xformers_attention": _NO_CACHE,
    "flex_attention": _NO_CACHE,
    "sage_attention": _NO_CACHE,
    "s2_attention": _NO_CACHE,
}


def check_context_grad(cfg: Recipe) -> None:
    """Check what a recipe says beside ``sftkey_context_grad: false``.

    Raises:
        UserError: The first setting that doesn't go with it.
    """
    wanted = cfg.get("sftkey_context_grad")
    if wanted is None or wanted is True:
        return
    if wanted is not False:
        raise UserError(f"sftkey_context_grad: {wanted!r} is not true or false")
    for what, how in _refused(cfg):
        raise UserError(f"{what} does not go with sftkey_context_grad: false ({how}), or remove sftkey_context_grad")


def _refused(cfg: Recipe) -> Iterator[tuple[str, str]]:
    """What doesn't go with it, and how to change it."""
    method = METHODS[cfg["sftkey_method"]]
    if not method.trained <= AFTER_THINKING:
        after = " or ".join(name for name, other in METHODS.items() if other.trained <= AFTER_THINKING)
        yield f"sftkey_method: {method.name}", f"it trains the thinking, which would get no gradient; set it to {after}"
    for key in ("sftkey_segment_weights", "sftkey_segment_schedule"):
        if weight := (cfg.get(key) or {}).get("thinking"):
            yield f"{key}: thinking: {weight}", "the thinking gets no gradient; set it to 0"
    objective = recipe_objective(cfg)
    if objective.columns or objective.measured:
        yield f"sftkey_objective: {objective.name}", "it needs the context's positions; choose another"
    for key, why in _EXCLUDED.items():
        if cfg.get(key):
            yield key, f"{why}; remove it"
    if float(cfg.get("tensor_parallel_size") or 1) > 1:
        yield f"tensor_parallel_size: {cfg['tensor_parallel_size']}", "it was not made for a second pass; remove it"
    attention = cfg.get("attn_implementation")
    if attention is not None and not str(attention).startswith(("eager", "sdpa", "flash_attention")):
        yield f"attn_implementation: {attention}", "set it to sdpa, eager or flash_attention_2"
    if cfg.get("adapter") not in (None, "lora", "qlora"):
        yield f"adapter: {cfg['adapter']}", "set it to lora or qlora"
    if fsdp_version(cfg) == 1:
        yield "FSDP of version 1", "it must see every pass of the model; set fsdp_version: 2"
    if checkpoints_in_fsdp(cfg):
        yield "fsdp_config: activation_checkpointing", "a layer that is run again would need its cache; remove it"
    if zero_stage(cfg) == 3:
        yield "DeepSpeed ZeRO-3", "its engine must see every pass of the model; use ZeRO-1 or 2"
