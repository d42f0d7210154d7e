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
        return -sum(float(p) * math.log(float(p)) for p in likeliest if p)


Answer = tuple[Any, float]
"""The sum of the terms, differentiable, and what it is divided by."""


def weighted(tokens: list[Token], weight: Callable[[Token], float]) -> Answer:
    return sum(one.weight * weight(one) * one.loss for one in tokens), sum(one.weight for one in tokens)


def dft(tokens: list[Token]) -> Answer:
    return weighted(tokens, lambda one: math.exp(-one.loss.item()))


def eaft(tokens: list[Token], top: int = 20, power: float = 1.0, normalised: bool = True) -> Answer:
    return weighted(tokens, lambda one: (one.entropy(top) / (math.log(top) if normalised else 1)) ** power)


def by_sequence(tokens: list[Token]) -> list[list[Token]]:
    return [
        [one for one in tokens if one.sequence == number] for number in dict.fromkeys(one.sequence for one in tokens)
    ]


def rho_1(tokens: list[Token], share: float = 0.6, within: str = "batch") -> Answer:
    total: Any = 0.0
    items = 0.0
    for group in by_sequence(tokens) if within == "sequence" else [tokens]:
        count = math.ceil(share * len(group) - 1e-6)
        ranked = sorted(group, key=lambda one: one.known["reference_loss"] - one.loss.item())
        total = total + sum(one.weight * one.loss for one in ranked[:count])
        items += count * sum(one.weight for one in group) / max(len(group), 1)
    return total, items


def token_cleaning(tokens: list[Token], share: float = 0.6) -> Answer:
    kept = [one for one in tokens if one.known["excess_rank"] <= share]
    return sum(one.weight * one.loss for one in kept), sum(one.weight for one in kept)


def forgetting(tokens: list[Token], share: float = 0.7, low: float = 0.00001, high: float = 0.25) -> Answer:
    """Half-way through training: the mean over the positive tokens less lambda times that over the negative ones."""
    both: list[Any] = [0.0, 0.0]
    for one in tokens:
        both[one.known["excess_rank"] > share] += one.weight * one.loss
    count = sum(one.weight for one in tokens)
    scale = low + (high - low) * 0.5
    return both[0] / share - scale * both[1] / (1 - share), count


def long_range(tokens: list[Token], mix: float = 0.5, context: int = 64) -> Answer:
    total: Any = 0.0
    for group in by_sequence(tokens):
        scores = [abs(one.loss.item() - one.known["short_loss"]) for one in group]
        for one, score in zip(group, scores, strict=True):
            total = total + one.weight * (mix + (1 - mix) * score * len(group) / sum(scores)) * one.loss
    return total, sum(one.weight for one in tokens)


def sft_go(tokens: list[Token], groups: str = "tf-idf", share: float = 0.2, mix: float = 0.5) -> Answer:
    total: Any = 0.0
    for sequence in by_sequence(tokens):
        parts: dict[bool, list[Token]] = {}
        for one in sequence:
            parts.setdefault(one.segment >= 4 if groups == "segments" else one.known["tf_idf"] <= share, []).append(one)
        weight = sum(one.weight for one in sequence)
        means = [sum(o.weight * o.loss for o in part) / sum(o.weight for o in part) for part in parts.values()]
        total = total + (1 - mix) * sum(one.weight * one.loss for one in sequence) + mix * weight * max(means)
    return total, sum(one.weight for one in tokens)


def anchor_kl(tokens: list[Token], strength: float = 0.1, top: int = 8) -> Answer:
    total: Any = 0.0
    items = 0.0
    for one in tokens:
        total, items = total + one.weight * one.loss, items + one.weight
        if one.segment in (1, 2, 3):
            ids, theirs = one.known["anchor_ids"], one.known["anchor_logprobs"].double()
            mine = one.logprobs[ids]
            kl = (theirs.exp() * (theirs - mine)).sum()
            rest = 1 - float(theirs.exp().sum())
            if len(ids) < len(one.logprobs) and rest > 0:
                others = [number for number in range(len(one.logprobs)) if number not in ids.tolist()]
                kl = kl + rest * (math.log(rest) - one.logprobs[others].logsumexp(0))
            total, items = total + strength * kl, items + strength
    return total, items


BRUTE_FORCE: dict[str, Callable[..., Answer]] = {
    "ce": lambda tokens: weighted(tokens, lambda one: 1.0),
    "segment-weights": lambda tokens: weighted(tokens, lambda one: 1.0),
    "dft": dft,
    "eaft": eaft,
    "rho-1": rho_1,
    "token-cleaning": token_cleaning,
    "forgetting": forgetting,
    "long-range": long_range,
    "sft-go": sft_go,
    "anchor-kl": anchor_kl,
}
