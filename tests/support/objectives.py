"""Objectives by brute force: one token after the other, from full logits in double precision, each by its paper's formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Token:
    """One trained token: its log-probabilities ``(V,)`` in float64, and what else is known of it."""

    logprobs: torch.Tensor
    id: int
    weight: float
    segment: int
    sequence: int
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> torch.Tensor:
        return -self.logprobs[self.id]

    def entropy(self, top: int) -> float:
        likeliest = self.logprobs.detach().exp().sort(descending=True).values[:top]
        likeliest = likeliest / likeliest.sum()
        return -sum(float(p) * math.log(float(p)) for p in likeliest)


Answer = tuple[Any, float]
"""The sum of the terms, differentiable, and what it is divided by."""


def weighted(tokens: list[Token], weight: Callable[[Token], float]) -> Answer:
    return sum(one.weight * weight(one) * one.loss for one in tokens), sum(one.weight for one in tokens)


def dft(tokens: list[Token]) -> Answer:
    return weighted(tokens, lambda one: math.exp(-one.loss.item()))


def eaft(tokens: list[Token], top: int = 20, power: float = 1.0, normalised: bool = True) -> Answer:
    return weighted(tokens, lambda one: (one.entropy(top) / (math.log(top) if normalised else 1)) ** power)


BRUTE_FORCE: dict[str, Callable[..., Answer]] = {
    "ce": lambda tokens: weighted(tokens, lambda one: 1.0),
    "segment-weights": lambda tokens: weighted(tokens, lambda one: 1.0),
    "dft": dft,
    "eaft": eaft,
}
