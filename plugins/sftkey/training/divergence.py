"""KL(reference || model) at some positions, over the reference's likeliest tokens and all others as one.

With every token listed it is the divergence itself; with fewer it is at most that, and still 0 only where both agree on the
tokens listed and on the sum of the others.
"""

from __future__ import annotations

import torch


def divergence(logits: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    """The divergence of each position in nats, shape ``(n,)``; differentiable with respect to the logits.

    Args:
        logits: The model's, shape ``(n, V)``, float32.
        ids: The reference's likeliest tokens, shape ``(n, k)``.
        logprobs: Their log-probabilities under the reference, shape ``(n, k)``.
    """
    found = logits.gather(1, ids) - logits.logsumexp(-1, keepdim=True)
    other, rest = _rest(found.exp()), _rest(logprobs.exp())
    inside = (logprobs.exp() * (logprobs - found)).sum(-1)
    return inside + torch.xlogy(rest, rest) - rest * other.log()


def add_gradient(
    probabilities: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor, slope: torch.Tensor, gradient: torch.Tensor
) -> None:
    """Add ``slope`` times the gradient of `divergence` with respect to the logits to ``gradient``, in place.

    Args:
        probabilities: The model's, shape ``(n, V)``.
        ids: See `divergence`.
        logprobs: See `divergence`.
        slope: Shape ``(n, 1)``.
        gradient: Shape ``(n, V)``.
    """
    listed = probabilities.gather(1, ids)
    ratio = (_rest(logprobs.exp()) / _rest(listed))[:, None]
    gradient.addcmul_(probabilities, slope * (1 - ratio))
    gradient.scatter_add_(1, ids, slope * (listed * ratio - logprobs.exp()))


def _rest(probabilities: torch.Tensor) -> torch.Tensor:
    """The probability of all other tokens; never 0, as the others' own gradient is divided by it."""
    return (1 - probabilities.sum(-1)).clamp(min=1e-7)
