"""Training without the context gradient: the context goes into a key-value cache, the rest of the sequence trains against it.

The loss is that of the exact method, the gradient is not: keys and values of the context (prompt and thinking) count as
constants. What the loss would tell the weights through them, which is how a model learns to read its own thinking, is
left out. This is another method at a lower price, not a faster way to the same gradient: experimental and off by default.

Cost: a forward pass over the context; a forward and a backward pass over the rest. Memory: activations of the rest, keys
and values of the context.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from sftkey.training.sparse_logits import unwrap
from sftkey.training.targets import to_device
from sftkey.training.tokenization import IGNORE_INDEX
from sftkey.training.weights import token_weights

ATTENTION_WITH_A_PLAIN_CACHE = frozenset({"full_attention", "sliding_attention"})
"""Layer types whose state after the context is keys and values of each of its positions, and nothing else."""

Batch = tuple[dict[str, Any], torch.Tensor, torch.Tensor | None]


class ContextCache(DynamicCache):
    """Keys and values of the context; once it is closed, the rest of a sequence is seen with them but isn't kept.

    So a model can be called against the same context any number of times. Every layer keeps all positions, those with a
    sliding window too: their window is in the attention mask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values that a layer attends to, shape ``(B, heads, context + new, head size)``."""
        if not self.closed:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        layer: Any = self.layers[layer_idx]
        return (
            torch.cat([layer.keys, key_states], dim=-2),
            torch.cat([layer.values, value_states], dim=-2),
        )


def unsupported(model: nn.Module) -> str | None:
    """Why a model can't be trained without the context gradient; None if it can."""
    inner = unwrap(model)
    name = type(inner).__name__
    for adapter in (getattr(model, "peft_config", None) or {}).values():
        if getattr(adapter, "is_prompt_learning", False):
            return f"{adapter.peft_type} puts trained positions before the context"
    config: Any = getattr(inner, "config", None)
    if config is None:
        return f"{name} is no model of transformers"
    if config.is_encoder_decoder:
        return f"{name} is an encoder and a decoder"
    config = config.get_text_config()
    others = {str(kind) for kind in getattr(config, "layer_types", None) or ()} - ATTENTION_WITH_A_PLAIN_CACHE
    if others or getattr(inner, "_is_stateful", False):
        found = f"layers of type {', '.join(sorted(others))}" if others else "recurrent layers"
        return f"{name} has {found}, whose state isn't a plain key-value cache"
    if getattr(config, "output_router_logits", False):
        return f"the load-balancing loss of {name} (output_router_logits) needs the routers of the whole sequence"
    return None


@contextmanager
def without_gradient_checkpointing(model: nn.Module) -> Iterator[None]:
    """Turn gradient checkpointing off for as long as the context lasts.

    Layers that checkpoint drop the cache, and the answer would be computed without its context. There is little to save
    either: the context has no activations, and the answer is short.
    """
    checkpointing: list[Any] = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False) is True]
    for module in checkpointing:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in checkpointing:
            module.gradient_checkpointing = True


def after_context(
    model: nn.Module,
    inputs: dict[str, Any],
    labels: torch.Tensor,
    segments: torch.Tensor | None,
    weights: torch.Tensor | None = None,
) -> Batch:
    """Run the context of each row without gradient; gives the batch that remains.

    The token before the first trained one is the first that remains: it is the position that predicts it. Contexts end
    together, at the right end of the cache, and what remains begins right after them, so that distances along a row are
    those of the whole sequence. Each token keeps its position id. What follows the last trained token is dropped.

    Every process makes the same two calls of its model, whatever its rows are like: a row without a trained token, or
    without a context, is filled up with positions that nothing attends to.

    Args:
        model: As in `sftkey.training.loss.causal_loss`, in the mode (training or not) that it is to have, and within
            `without_gradient_checkpointing`.
        inputs: Its inputs, tensors of shape ``(B, T)``.
        labels: Shape ``(B, T)``, the token id where a token is trained, else `IGNORE_INDEX`. With labels, segments, weights
            and ``attention_mask`` on the CPU nothing waits for the model's device.
        segments: Shape ``(B, T)``, the `Segment` of each token, or None.
        weights: Shape ``(8,)``, the weight of each segment; a token of weight 0 isn't trained.

    Returns:
        Inputs, labels and segments of what remains, shape ``(B, R)``; the inputs hold the context as
        ``past_key_values``, and an ``attention_mask`` over both.

    Raises:
        ValueError: The inputs are packed or not of shape ``(B, T)``, the model kept no plain key-value cache, or it runs
            under `torch.nn.DataParallel`.
    """
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "training without the context gradient can't run under torch.nn.DataParallel, which doesn't split the cache "
            "over its devices; start one process for each device"
        )
    _check_inputs(inputs, labels)
    trained = token_weights(labels, segments, weights) > 0
    trained[:, 0] = False  # nothing predicts the first token
    mask = inputs.get("attention_mask")
    real = torch.ones_like(trained) if mask is None else mask.to(labels.device).bool()
    begin, split, last = _bounds(trained, real)
    lengths = torch.stack([(split - begin).amax(), (last - split).amax()]).tolist()
    # At least one position, so that there is a call; where there is no context, nothing attends to it.
    multiple = _token_multiple(model)
    before, after = (-(-length // multiple) * multiple for length in (max(lengths[0], 1), lengths[1] + 1))
    offsets = torch.arange(-before, after, device=labels.device)
    columns = split[:, None] + offsets
    inside = (columns >= begin[:, None]) & (columns <= last[:, None])
    columns = columns.clamp(0, labels.shape[1] - 1)
    device = inputs["input_ids"].device
    there = to_device(columns, device)
    moved: dict[str, Any] = {
        name: value.gather(1, there) if isinstance(value, torch.Tensor) and name != "attention_mask" else value
        for name, value in inputs.items()
    }
    # Without position ids a model counts columns.
    moved.setdefault("position_ids", there)
    moved["attention_mask"] = to_device((inside & real.gather(1, columns)).long(), device)
    tensors = {name: value for name, value in moved.items() if isinstance(value, torch.Tensor)}
    others = {name: value for name, value in moved.items() if name not in tensors} | {"use_cache": True}

    cache = _run_context(unwrap(model), {name: value[:, :before] for name, value in tensors.items()} | others)
    remaining = {name: value[:, before:] for name, value in tensors.items()}
    remaining["attention_mask"] = moved["attention_mask"]
    columns, inside = columns[:, before:], inside[:, before:]
    return (
        {**remaining, **others, "past_key_values": cache},
        labels.gather(1, columns).masked_fill(~inside, IGNORE_INDEX),
        None if segments is None else segments.gather(1, columns).masked_fill(~inside, 0),
    )


def _token_multiple(model: nn.Module) -> int:
    """What the number of positions must be a multiple of: kernels of 8-bit floats multiply 16 of them at a time."""
    packages = ("torchao.float8", "transformer_engine")
    return 16 if any(type(module).__module__.startswith(packages) for module in model.modules()) else 1


def _check_inputs(inputs: dict[str, Any], labels: torch.Tensor) -> None:
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.shape != labels.shape:
            raise ValueError(
                f"without the context gradient every input has the shape of the labels, {tuple(labels.shape)}, but {name} "
                f"has {tuple(value.shape)}"
            )
    position_ids = inputs.get("position_ids")
    if "attention_mask" not in inputs and position_ids is not None and bool((position_ids.diff(dim=1) < 0).any()):
        raise ValueError(
            "position_ids starts again within a row: training without the context gradient can't take packed sequences; "
            "give each sequence a row of its own"
        )


def _bounds(trained: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First real column, column that predicts the first trained token, column of the last trained one; each ``(B,)``.

    A row without a trained token ends with its last real column, which remains alone.
    """
    width = trained.shape[1]
    some = trained.any(1)
    last_real = width - 1 - real.flip(1).int().argmax(1)
    split = torch.where(some, trained.int().argmax(1) - 1, last_real)
    last = torch.where(some, width - 1 - trained.flip(1).int().argmax(1), last_real)
    return torch.minimum(real.int().argmax(1), split), split, last


def _run_context(inner: nn.Module, inputs: dict[str, Any]) -> ContextCache:
    """Fill a cache. The model inside the wrappers is called: DDP must see one forward pass for each backward pass."""
    # The logits of the context are of no use; models that can leave them out compute one position's.
    fewer = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(inner.forward).parameters else {}
    cache = ContextCache()
    with torch.no_grad():
        inner(**inputs, **fewer, past_key_values=cache)
    # Autocast remembers the weights that it has cast; some versions of PyTorch would hand those out, without gradient.
    torch.clear_autocast_cache()
    length = inputs["input_ids"].shape[1]
    config: Any = inner.config
    layers = config.get_text_config().num_hidden_layers
    states = [getattr(layer, "keys", None) for layer in cache.layers]
    kept = [0 if keys is None else keys.shape[-2] for keys in states]
    if kept != [length] * layers:
        raise ValueError(
            f"{type(inner).__name__} keeps no plain key-value cache: of {length} positions in {layers} layers it kept "
            f"{kept}. Train it with the context gradient"
        )
    cache.closed = True
    return cache
