"""Output layer and cross-entropy in one, a chunk of rows at a time, so that no more logits than a chunk's ever exist.

The gradients of a linear layer followed by a cross-entropy are known as soon as a chunk's logits are: they are taken
in the forward pass and the logits are dropped. That costs the same matrix products as the plain computation, where
recomputing the logits in the backward pass would add a third. An objective that weighs a token by the losses of others
(`Objective.alone`) has them computed once before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from sftkey.training.divergence import completed
from sftkey.training.scoring import Scored, Seen

MIN_CHUNK_ROWS = 512


class TokenLosses(NamedTuple):
    """Cross-entropy of ``N`` targets.

    Attributes:
        total: Scalar, differentiable: the weighted sum of the losses, or of an objective's terms, over the denominator.
        losses: Detached cross-entropy of each target in nats, shape ``(N,)``, float32.
        correct: Whether no token has a larger logit than the target, shape ``(N,)``, bool.
    """

    total: torch.Tensor
    losses: torch.Tensor
    correct: torch.Tensor


def chunk_rows(width: int) -> int:
    """Rows of a chunk for hidden states of a width.

    The logits of ``width`` rows take as much memory as the gradient of the output layer, which a training step needs
    anyway; half of that keeps a chunk below it, and the floor keeps its matrix products large enough to be fast.
    """
    return max(MIN_CHUNK_ROWS, width // 2)


def cross_entropy(
    logits: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    denominator: torch.Tensor,
    scored: Scored | None = None,
) -> TokenLosses:
    """The plain computation from logits of shape ``(N, V)``; in float32 whatever their type is."""
    losses, correct, seen = _measure(logits, ids, scored)
    total = (losses * weights).sum() if scored is None else scored.total(losses, seen)
    return TokenLosses(total / denominator, losses.detach(), correct)


def _measure(logits: torch.Tensor, ids: torch.Tensor, scored: Scored | None) -> tuple[torch.Tensor, torch.Tensor, Seen]:
    """The differentiable loss of each target, whether it is the likeliest token, and what else the objective needs."""
    logits = logits.float()
    losses = F.cross_entropy(logits, ids, reduction="none")
    values = logits.detach()
    correct = values.gather(1, ids[:, None]).squeeze(1) == values.amax(-1)
    return losses, correct, Seen(None, None) if scored is None else scored.see(logits)


def is_plain_linear(head: nn.Module, hidden: torch.Tensor) -> TypeGuard[nn.Linear]:
    """Whether ``head(hidden)`` is ``hidden @ weight.T + bias`` and nothing else, in a type that needs no loss scaling.

    Subclasses (quantised, LoRA), parametrised and sharded weights aren't; float16 isn't, because its gradients are only
    in range once they are scaled, which happens after the forward pass.
    """
    if type(head) is not nn.Linear or type(head.weight) not in (torch.Tensor, nn.Parameter):
        return False
    return compute_dtype(hidden) in (torch.float32, torch.bfloat16) and (
        torch.is_autocast_enabled(hidden.device.type) or head.weight.dtype == hidden.dtype
    )


def compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    """The type in which a linear layer is computed here: autocast's where it is on."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def linear_cross_entropy(
    hidden: torch.Tensor,
    head: nn.Linear,
    ids: torch.Tensor,
    weights: torch.Tensor,
    denominator: torch.Tensor,
    rows: int | None = None,
    scored: Scored | None = None,
) -> TokenLosses:
    """Weighted cross-entropy of ``head(hidden)``, or another objective, without ever holding its logits.

    The gradient of the loss may reach ``total`` scaled by any factor, but only the first derivative exists.

    Args:
        hidden: Shape ``(N, H)``; ``N`` may be 0: then loss and gradients are zeros.
        head: A layer for which `is_plain_linear` holds.
        ids: The targets, shape ``(N,)``.
        weights: Shape ``(N,)``.
        denominator: Scalar.
        rows: Rows of a chunk; default `chunk_rows`.
        scored: What is minimised instead of the weighted sum of the losses.
    """
    total, losses, correct = _LinearCrossEntropy.apply(
        hidden,
        head.weight,
        head.bias,
        ids,
        weights,
        denominator,
        rows or chunk_rows(hidden.shape[-1]),
        torch.is_grad_enabled(),
        scored,
    )
    return TokenLosses(total, losses, correct)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        ids: torch.Tensor,
        weights: torch.Tensor,
        denominator: torch.Tensor,
        rows: int,
        needs_grad: bool,
        scored: Scored | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dtype = compute_dtype(hidden)
        wants_hidden, wants_weight, wants_bias = (needs_grad and needed for needed in ctx.needs_input_grad[:3])
        with torch.autocast(hidden.device.type, enabled=False):
            compute_weight = weight.to(dtype)
            bias_term = None if bias is None else bias.to(dtype)
            n = hidden.shape[0]
            coefficients, total = weights / denominator, torch.zeros((), device=hidden.device)
            alone = scored is not None and scored.objective.alone
            if scored is not None and not alone and n:
                parts = []
                for start in range(0, n, rows):
                    chunk = slice(start, start + rows)
                    logits = F.linear(hidden[chunk].to(dtype), compute_weight, bias_term)
                    parts.append(_measure(logits, ids[chunk], scored.at(chunk)))
                measured, _, seen = zip(*parts, strict=True)
                total, slope, _ = scored.slope(torch.cat(measured), Seen.join(seen))
                total, coefficients = total / denominator, slope / denominator
            losses = torch.zeros(n, device=hidden.device)
            correct = torch.zeros(n, dtype=torch.bool, device=hidden.device)
            grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
            # A sum over chunks would be rounded once per chunk in bfloat16.
            sum_dtype = torch.float32 if n > rows else weight.dtype
            # The first chunk overwrites it: zeros would cost a pass over what may be the largest tensor of the step.
            grad_weight = (
                (torch.empty_like if n else torch.zeros_like)(weight, dtype=sum_dtype) if wants_weight else None
            )
            grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias and bias is not None else None
            for start in range(0, n, rows):
                chunk = slice(start, start + rows)
                x, targets = hidden[chunk].to(dtype), ids[chunk][:, None]
                logits = F.linear(x, compute_weight, bias_term)
                values = logits.float()
                here = scored.at(chunk) if scored is not None and alone else None
                known = None if here is None else here.see(values)
                anchor = None if here is None or here.anchor is None else completed(values, *here.anchor)
                largest = values.amax(-1, keepdim=True)
                target = values.gather(1, targets)
                correct[chunk] = (target == largest).squeeze(1)
                # From here on in place: the logits become probabilities, then their own gradient.
                values.sub_(largest).exp_()
                normaliser = values.sum(-1, keepdim=True)
                losses[chunk] = (normaliser.log() + largest - target).squeeze(1)
                far = None
                if here is not None and known is not None:
                    value, slope, far = here.slope(losses[chunk], known)
                    total, coefficients[chunk] = total + value / denominator, slope / denominator
                if grad_hidden is None and grad_weight is None and grad_bias is None:
                    continue
                coefficient = coefficients[chunk][:, None]
                if far is None or anchor is None:
                    values.mul_(coefficient / normaliser)
                else:
                    pull = (far / denominator)[:, None]
                    values.mul_((coefficient + pull) / normaliser).addcmul_(anchor, -pull)
                values.scatter_add_(1, targets, -coefficient)
                grad_logits = values if dtype == values.dtype else logits.copy_(values)
                if grad_hidden is not None:
                    grad_hidden[chunk] = grad_logits @ compute_weight
                if grad_weight is not None:
                    if start == 0 and grad_weight.dtype == dtype:
                        torch.mm(grad_logits.T, x, out=grad_weight)
                    elif start == 0:
                        grad_weight.copy_(grad_logits.T @ x)
                    elif grad_weight.dtype == dtype:
                        grad_weight.addmm_(grad_logits.T, x)
                    else:
                        grad_weight += grad_logits.T @ x
                if grad_bias is not None:
                    grad_bias += values.sum(0)
                del values, logits, grad_logits, anchor
        # Not saved as activations are: hooks that move those to another device, or recompute them, have no business here.
        ctx.gradients = (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )
        ctx.mark_non_differentiable(losses, correct)
        return (losses * weights).sum() / denominator if scored is None else total, losses, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("this loss was differentiated before; its gradients are handed out once, to save memory")
        scaled = ctx.gradients
        if grad.device.type != "cpu" or grad != 1:  # elsewhere, looking at it would wait for the device
            # In place, for the weight's gradient is large.
            scaled = [None if known is None else known.mul_(grad.to(known.dtype)) for known in scaled]
        ctx.gradients = None
        return (*scaled, None, None, None, None, None, None)


def checkpointed_cross_entropy(
    hidden: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    ids: torch.Tensor,
    weights: torch.Tensor,
    denominator: torch.Tensor,
    rows: int | None = None,
    scored: Scored | None = None,
) -> TokenLosses:
    """As `linear_cross_entropy` for any output layer (LoRA, quantised); recomputes each chunk in the backward pass.

    Args:
        hidden: Shape ``(N, H)``, ``N`` at least 1.
        head: From hidden states ``(1, n, H)`` to logits ``(1, n, V)``.
        ids: The targets, shape ``(N,)``.
        weights: Shape ``(N,)``.
        denominator: Scalar.
        rows: Rows of a chunk; default `chunk_rows`.
        scored: What is minimised instead of the weighted sum of the losses.
    """

    def one(x: torch.Tensor, ids: torch.Tensor, here: Scored | None) -> tuple[torch.Tensor, torch.Tensor, Seen]:
        return _measure(head(x[None])[0], ids, here)

    rows = rows or chunk_rows(hidden.shape[-1])
    chunks = [slice(start, start + rows) for start in range(0, len(hidden), rows)]
    parts = [
        checkpoint(one, hidden[chunk], ids[chunk], None if scored is None else scored.at(chunk), use_reentrant=False)
        for chunk in chunks
    ]
    measured, correct, seen = zip(*parts, strict=True)
    losses = torch.cat(measured)
    total = (losses * weights).sum() if scored is None else scored.total(losses, Seen.join(seen))
    return TokenLosses(total / denominator, losses.detach(), torch.cat(correct))
