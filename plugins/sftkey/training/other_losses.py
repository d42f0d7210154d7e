"""What a model's own loss holds beside what `sftkey.training.loss` computes: said once, as it isn't trained.

Such as the loss of heads that predict tokens further on. Models compute it only when they are given labels, which takes
logits at every position, so a few tokens have to show it.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F

from sftkey.training.loss import router_loss, z_coefficient
from sftkey.training.sparse_logits import tell_once, unwrap

TOKENS = 64
"""Of the first row of a batch: enough for heads that look some tokens ahead."""


def tell_of_other_losses(model: torch.nn.Module, input_ids: torch.Tensor) -> None:
    """Run a few tokens through the model with its own loss, and warn of what that has and `causal_loss` hasn't.

    Costs a forward pass without gradient; random numbers go on as if it hadn't been. Every process has to call it.

    Args:
        model: As in `sftkey.training.loss.causal_loss`, in the mode in which it is trained.
        input_ids: Shape ``(B, T)``, on the model's device.
    """
    ids = input_ids[:1, :TOKENS]
    devices = [ids.device] if ids.device.type == "cuda" else []
    eager: Any = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with torch.no_grad(), torch.random.fork_rng(devices), eager:
        try:
            outputs = model(input_ids=ids, labels=ids, use_cache=False)
        except (TypeError, ValueError):  # it takes no labels, or more than tokens
            return
        own, logits = getattr(outputs, "loss", None), getattr(outputs, "logits", None)
        if own is None or logits is None or logits.shape[:2] != ids.shape:
            return  # a fused loss, which trains the model by its own loss
        known: Any = F.cross_entropy(logits[0, :-1].float(), ids[0, 1:].to(logits.device))
        known = known + router_loss(unwrap(model), outputs)
        known = known + z_coefficient(model) * logits.float().logsumexp(-1).square().mean()
        own = own.float().mean().to(known.device)
        # Mixed precision may have cast the loss.
        precise = outputs.loss.dtype == torch.float32
        if torch.isclose(own, known, rtol=1e-4 if precise else 1e-2, atol=1e-4 if precise else 1e-2, equal_nan=True):
            return
    tell_once(
        model,
        f"{type(unwrap(model)).__name__} has another loss than cross-entropy, router loss and z-loss: on {ids.shape[1]} "
        f"tokens its own is {float(own):.4f}, these are {float(known):.4f}. What is beside them (prediction of several "
        "tokens, say) is not trained",
    )
