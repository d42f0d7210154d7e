"""Many tiny Llama models of one shape at once: each parameter is a stack, and every model sees its own batch.

One model of the size that shows dilution fills neither a GPU nor a core's vector units. The loss is the project's: the mean
cross-entropy over the response, weighted by segment, with gradients clipped for each model by itself as `Trainer` does it.
`test_dilution.py` compares it with transformers' Llama under `sftkey.training.loss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Stack = dict[str, torch.Tensor]
"""Name -> a parameter of all models, shape ``(M, ...)``."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's shape, with an output layer of its own."""

    vocabulary: int
    width: int = 64
    layers: int = 2
    heads: int = 4
    inner: int = 192
    theta: float = 10_000.0
    eps: float = 1e-6


def initial(shape: Shape, seeds: list[int], device: torch.device) -> Stack:
    """Random weights, one model for each seed: normal, with deviation 0.2 for the embeddings, else by the inputs' number."""
    width, inner = shape.width, shape.inner
    sizes = {"embed": (shape.vocabulary, width), "norm": (width,), "head": (shape.vocabulary, width)}
    for layer in range(shape.layers):
        sizes |= {f"{layer}.{name}": (width, width) for name in "qkvo"}
        sizes |= {f"{layer}.gate": (inner, width), f"{layer}.up": (inner, width), f"{layer}.down": (width, inner)}
        sizes |= {f"{layer}.norm1": (width,), f"{layer}.norm2": (width,)}
    models = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        models.append(
            {
                name: torch.ones(size)
                if "norm" in name
                else torch.randn(size, generator=generator) * (0.2 if name == "embed" else 1 / math.sqrt(size[1]))
                for name, size in sizes.items()
            }
        )
    return {name: torch.stack([model[name] for model in models]).to(device) for name in sizes}


def chosen(stack: Stack, models: torch.Tensor) -> Stack:
    """A copy of some of the models, possibly repeated."""
    return {name: value.detach()[models.to(value.device)].clone() for name, value in stack.items()}


@contextmanager
def precision(device: torch.device) -> Iterator[None]:
    """bf16 autocast on a GPU, fp32 on a CPU, as in `sftkey.training.fit`."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        yield


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.bmm(x, weight.transpose(1, 2))


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps) * weight[:, None]


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Cache:
    """Keys and values of what was read, for generation."""

    def __init__(self) -> None:
        self.length = 0
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def extended(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of a layer, with the new ones."""
        if layer in self.kept:
            key = torch.cat([self.kept[layer][0], key], dim=-2)
            value = torch.cat([self.kept[layer][1], value], dim=-2)
        self.kept[layer] = key, value
        return key, value


def logits(stack: Stack, shape: Shape, ids: torch.Tensor, keep: slice, cache: Cache | None = None) -> torch.Tensor:
    """The logits of ``ids``, shape ``(M, B, T)``, at the positions ``keep``: shape ``(M, B, kept, V)``."""
    models, batch, length = ids.shape
    width, size = shape.width, shape.width // shape.heads
    offset = torch.arange(models, device=ids.device)[:, None, None] * shape.vocabulary
    x = F.embedding(ids + offset, stack["embed"].flatten(0, 1)).view(models, batch * length, width)
    start = cache.length if cache is not None else 0
    frequency = shape.theta ** (-torch.arange(0, size, 2, device=ids.device).float() / size)
    angle = torch.outer(torch.arange(start, start + length, device=ids.device).float(), frequency).repeat(1, 2)
    cos, sin = angle.cos(), angle.sin()

    def heads(y: torch.Tensor) -> torch.Tensor:
        return y.view(models * batch, length, shape.heads, size).transpose(1, 2)

    for layer in range(shape.layers):
        own = {name.partition(".")[2]: value for name, value in stack.items() if name.startswith(f"{layer}.")}
        h = _norm(x, own["norm1"], shape.eps)
        q, k, v = (heads(_linear(h, own[name])) for name in "qkv")
        q, k = (_rotated(y, cos.to(y.dtype), sin.to(y.dtype)) for y in (q, k))
        if cache is not None:
            k, v = cache.extended(layer, k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        x = x + _linear(mixed.transpose(1, 2).reshape(models, batch * length, width), own["o"])
        h = _norm(x, own["norm2"], shape.eps)
        x = x + _linear(F.silu(_linear(h, own["gate"])) * _linear(h, own["up"]), own["down"])
    if cache is not None:
        cache.length += length
    x = x.view(models, batch, length, width)[:, :, keep]
    kept = x.shape[2]
    return _linear(_norm(x.reshape(models, -1, width), stack["norm"], shape.eps), stack["head"]).view(
        models, batch, kept, shape.vocabulary
    )


def losses(stack: Stack, shape: Shape, ids: torch.Tensor, first: int, weights: torch.Tensor) -> torch.Tensor:
    """The loss of each model, shape ``(M,)``: the weighted mean over the tokens from position ``first`` on.

    Args:
        stack: The models.
        shape: Their shape.
        ids: Shape ``(M, B, T)``; all sequences are equally long.
        first: Where the response begins.
        weights: Shape ``(M, T - first)``, the weight of each of its tokens.
    """
    found = logits(stack, shape, ids[:, :, :-1], slice(first - 1, None))
    entropy = F.cross_entropy(found.float().flatten(0, 2), ids[:, :, first:].flatten(), reduction="none")
    per_token = entropy.view(ids.shape[0], ids.shape[1], -1) * weights[:, None]
    return per_token.sum((1, 2)) / (weights.sum(1) * ids.shape[1])


class Optimizer:
    """AdamW for a stack, each model with its own clipping."""

    def __init__(self, stack: Stack, weight_decay: float = 0.1, max_norm: float = 1.0) -> None:
        self.stack, self.max_norm = stack, max_norm
        decayed = [value for name, value in stack.items() if "norm" not in name]
        others = [value for name, value in stack.items() if "norm" in name]
        for value in stack.values():
            value.requires_grad_(True)
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(groups, lr=0.0, fused=next(iter(stack.values())).is_cuda)

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """One step down the gradient of each model's loss, shape ``(M,)``."""
        self.adam.zero_grad(set_to_none=True)
        loss.sum().backward()
        gradients = [value.grad for value in self.stack.values() if value.grad is not None]
        norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        factor = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()


@torch.no_grad()
def generate(stack: Stack, shape: Shape, prompts: torch.Tensor, most: int, end: int) -> torch.Tensor:
    """Continue prompts of equal length, shape ``(M, B, T)``, greedily: the new tokens, ``end`` after the end."""
    device = prompts.device
    cache, ids, new = Cache(), prompts, []
    done = torch.zeros(prompts.shape[:2], dtype=torch.bool, device=device)
    with precision(device):
        for step in range(most):
            token = logits(stack, shape, ids, slice(-1, None), cache)[:, :, 0].argmax(-1)
            token = token.masked_fill(done, end)
            done |= token == end
            new.append(token)
            ids = token[:, :, None]
            if step % 8 == 7 and bool(done.all()):
                break
    return torch.stack(new, dim=-1)
