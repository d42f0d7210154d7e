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
    normaliser = logits.logsumexp(-1)
    found = logits.gather(1, ids) - normaliser[:, None]
    inside = (logprobs.exp() * (logprobs - found)).sum(-1)
    if ids.shape[1] == logits.shape[1]:
        return inside
    # Not 1 less the listed: where the model is sure of those, float32 leaves nothing of the others.
    other = logits.scatter(1, ids, -torch.inf).logsumexp(-1) - normaliser
    rest = _rest(logprobs)
    return inside + torch.xlogy(rest, rest) - rest * other


def completed(logits: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    """The reference's probabilities, shape ``(n, V)``: of the tokens not listed, the model's shares of their sum.

    The gradient of `divergence` with respect to the logits is the model's probabilities less these. Arguments as there.
    """
    others = logits.scatter(1, ids, -torch.inf).softmax(-1).mul_(_rest(logprobs)[:, None])
    return others.scatter_(1, ids, logprobs.exp())


def _rest(logprobs: torch.Tensor) -> torch.Tensor:
    """The reference's probability of all other tokens."""
    return (1 - logprobs.exp().sum(-1)).clamp(min=0)
