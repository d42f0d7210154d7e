"""Output-layer work only at the positions that have a target, for any causal language model of transformers.

For the length of one call, the ``forward`` of the model's output layer is replaced by one that takes only the hidden
states of the targets. Everything else runs as ever: the wrapped model (PEFT, DDP, FSDP, DeepSpeed), its hooks (ZeRO-3
gathers the layer's weights in them), gradient checkpointing, and whatever the model does to logits afterwards.

Where the model returns the layer's output untouched, the cross-entropy moves into the layer as well, a chunk at a time
(`sftkey.training.linear_cross_entropy`), and no logits leave it. Whether it does is found out on the first batch, from
a marker that must come back unchanged, not from a list of architectures.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from sftkey.training.first_batch import breaks_the_graph, needs_every_position
from sftkey.training.linear_cross_entropy import (
    TokenLosses,
    checkpointed_cross_entropy,
    chunk_rows,
    cross_entropy,
    is_plain_linear,
    linear_cross_entropy,
)
from sftkey.training.targets import Targets

LOG = logging.getLogger(__name__)

MARKER = 992.0
"""What the output carries beside the loss; a softcap, a scale, a bias or a mask on logits would change it.

It is the same number in bfloat16 and float16: mixed precision may cast the output.
"""

FUSED_LOSS_PACKAGES = {"liger": "Liger's fused linear cross-entropy", "cut_cross_entropy": "Cut Cross Entropy"}
"""Part of a module name -> the loss that a ``forward`` defined in such a module brings along."""


@dataclass
class _Serves:
    """What is known of a model: None until it was tried.

    Attributes:
        selection: The model accepts the logits of some positions in place of all.
        loss_in_head: The model returns the output layer's output untouched.
    """

    selection: bool | None = None
    loss_in_head: bool | None = None


_known: WeakKeyDictionary[nn.Module, _Serves] = WeakKeyDictionary()
_told: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def unwrap(model: nn.Module) -> nn.Module:
    """The transformers model inside the wrappers of PEFT, torch.compile, DDP, FSDP and DeepSpeed."""
    while not isinstance(model, PreTrainedModel):
        peft_base: Any = getattr(model, "get_base_model", None)
        inner = peft_base() if peft_base else getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model


def fused_loss(model: nn.Module) -> str | None:
    """The name of the fused loss that was patched into a model's ``forward``, if any."""
    model = unwrap(model)
    forward: Any = model.forward
    while forward is not None:
        module = getattr(forward, "__module__", None) or ""
        for part, name in FUSED_LOSS_PACKAGES.items():
            if part in module:
                return name
        if isinstance(forward, functools.partial):
            forward = forward.func
        else:
            forward = getattr(forward, "__wrapped__", None) or getattr(forward, "__func__", None)
    return None


def tell_once(model: nn.Module, message: str) -> None:
    """Log a warning, once per model and message."""
    told = _told.setdefault(unwrap(model), set())
    if message not in told:
        told.add(message)
        LOG.warning("%s", message)


def sparse_token_losses(
    model: nn.Module, inputs: dict[str, torch.Tensor], targets: Targets, denominator: torch.Tensor
) -> tuple[TokenLosses, Any] | None:
    """Run a model and compute logits and losses only at the targets.

    Args:
        model: As in `sftkey.training.loss.causal_loss`.
        inputs: The model's inputs, without labels.
        targets: The positions to compute, possibly none.
        denominator: Scalar; what the weighted sum of losses is divided by.

    Returns:
        The losses and the model's output without logits; None, after one warning, if this model can't be served.
    """
    inner = unwrap(model)
    find_head: Any = getattr(inner, "get_output_embeddings", None)
    head = find_head() if find_head else None
    if not isinstance(head, nn.Module) or isinstance(model, nn.DataParallel):
        reason = "runs under torch.nn.DataParallel" if head is not None else "names no output layer"
        tell_once(model, f"{type(inner).__name__} {reason}: logits are computed at every position")
        return None
    serves = _known.setdefault(inner, _Serves())
    while serves.selection is not False:
        call = _Call(head, targets, denominator, serves.loss_in_head)
        try:
            with call.replaced_forward():
                outputs = model(**inputs)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if breaks_the_graph(error):
                serves.selection = False
                tell_once(
                    model,
                    f"{type(inner).__name__} is compiled with fullgraph=True, and logits of some positions take a graph "
                    "break: all are computed. Without fullgraph there is one break, at the output layer",
                )
                return None
            # Code after the output layer may insist on the logits of every position; it shows in the first batch.
            if not call.took_rows or serves.loss_in_head or serves.selection or not needs_every_position(error):
                raise
            found, problem = False, f"{type(error).__name__}: {error}"
        else:
            found, problem = call.check(outputs, first=serves.loss_in_head is None)
        if call.took_loss:
            serves.loss_in_head = found
        else:
            serves.selection = found
            if not found:
                tell_once(model, f"{type(inner).__name__} needs logits at every position ({problem}): all are computed")
        if found:
            return call.losses(outputs), without_logits(outputs)
    return None


class _Call:
    """One call of a model with a replaced output layer.

    Which way it goes depends on the model and on what earlier calls found, never on the batch while that is unknown:
    several processes must agree, since a second attempt is one more forward pass for all of them.
    """

    def __init__(self, head: nn.Module, targets: Targets, denominator: torch.Tensor, loss_in_head: bool | None) -> None:
        self.head = head
        self.targets = targets
        self.denominator = denominator
        self.loss_in_head = loss_in_head
        self.took_rows = False
        self.took_loss = False
        self.computed: TokenLosses | None = None
        self.sent: torch.Tensor | None = None

    @contextmanager
    def replaced_forward(self) -> Iterator[None]:
        """Replace the layer's ``forward``, which its hooks surround, for as long as the context lasts."""
        own = self.head.__dict__.get("forward")
        original = self.head.forward

        def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if hidden.dim() != 3 or hidden.shape[:2] != self.targets.shape or self.took_rows or args or kwargs:
                # Not the call that we know: a shard of the sequence, or an output layer that is used otherwise.
                return original(hidden, *args, **kwargs)
            self.took_rows = True
            return self._forward(original, own is None, hidden)

        if "torch._dynamo" in sys.modules:
            # A compiled model leaves its graph here, instead of being compiled again for every number of targets.
            forward = torch.compiler.disable(forward)
        self.head.__dict__["forward"] = forward
        try:
            yield
        finally:
            if own is None:
                del self.head.__dict__["forward"]
            else:
                self.head.__dict__["forward"] = own

    def _forward(
        self, original: Callable[[torch.Tensor], torch.Tensor], untouched: bool, hidden: torch.Tensor
    ) -> torch.Tensor:
        rows, wanted = self.targets.rows.to(hidden.device), self._wanted(hidden.device)
        selected = hidden.flatten(0, 1).index_select(0, rows)
        if self.loss_in_head is not False and untouched:
            if is_plain_linear(self.head, selected):
                losses = linear_cross_entropy(selected, self.head, **wanted)
                return self._mark(losses, self.head.weight.shape[0])
            worthwhile = self.loss_in_head is None or len(rows) > chunk_rows(hidden.shape[-1])
            if worthwhile and not _is_sharded(self.head):
                one = original(hidden[:1, :1])
                if len(rows):
                    losses = checkpointed_cross_entropy(selected, original, **wanted)
                else:
                    losses = cross_entropy(one[0, :0], **wanted)
                return self._mark(losses, one.shape[-1])
        if not len(rows):
            # A layer of unknown make may not take an empty batch: the row is dropped again before the loss.
            selected = hidden[:1, 0]
        return original(selected[None])

    def _mark(self, losses: TokenLosses, vocabulary: int) -> torch.Tensor:
        self.took_loss = True
        self.computed = losses
        total = losses.total
        marker = torch.full((1, 1, vocabulary - 1), MARKER, device=total.device, dtype=total.dtype)
        output = torch.cat([total.reshape(1, 1, 1), marker], dim=-1)
        self.sent = output.detach()
        return output

    def check(self, outputs: Any, first: bool) -> tuple[bool, str]:
        """Whether what came back is what the replaced output layer gave; compares values if this is the first time."""
        if not self.took_rows:
            return False, f"its output layer was not called with hidden states of shape {(*self.targets.shape, 'H')}"
        logits = _logits(outputs)
        if self.sent is not None:
            unchanged = logits.shape == self.sent.shape and (not first or _same(logits.detach(), self.sent))
            return unchanged, "it changes logits after the output layer"
        expected = (1, max(len(self.targets.rows), 1))
        return logits.shape[:2] == expected, f"it made {tuple(logits.shape)} of the logits of {expected} positions"

    def losses(self, outputs: Any) -> TokenLosses:
        logits = _logits(outputs)
        if self.computed is not None:
            return self.computed._replace(total=_Tie.apply(self.computed.total, logits[0, 0, 0]))
        return cross_entropy(logits[0, : len(self.targets.rows)], **self._wanted(logits.device))

    def _wanted(self, device: torch.device) -> dict[str, Any]:
        there, denominator = self.targets.to(device), self.denominator.to(device)
        return {"ids": there.ids, "weights": there.weights, "denominator": denominator, "scored": there.scored}


class _Tie(torch.autograd.Function):
    """The loss as it was computed, whose backward pass also runs through what came out of the model.

    The hooks on the model's output must see a gradient (FSDP and ZeRO-3 gather weights in them), but the output itself
    may have been cast to bfloat16, which holds neither the loss nor every scale of its gradient.
    """

    @staticmethod
    def forward(ctx: Any, total: torch.Tensor, returned: torch.Tensor) -> torch.Tensor:
        ctx.returned = returned.dtype, returned.device
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dtype, device = ctx.returned
        return grads[0], torch.zeros((), dtype=dtype, device=device)


def _same(found: torch.Tensor, sent: torch.Tensor) -> bool:
    """Whether the output came back as it was sent, apart from a cast.

    A loss that isn't a number is no change: it may be one process's alone, and all have to find the same.
    """
    return torch.allclose(found, sent.to(found.dtype), rtol=0.0, atol=0.0, equal_nan=True)


def _is_sharded(head: nn.Module) -> bool:
    """Whether ZeRO-3 or tensor parallelism holds parts of the layer elsewhere."""
    return any(hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh") for parameter in head.parameters())


def _logits(outputs: Any) -> torch.Tensor:
    return outputs["logits"] if isinstance(outputs, dict) else outputs[0]


def without_logits(outputs: Any) -> Any:
    """The same output without its logits, so that nobody takes those of some positions for those of the batch."""
    if not isinstance(outputs, dict):
        return outputs[1:]
    rest = {key: value for key, value in outputs.items() if key != "logits"}
    return type(outputs)(**rest) if "logits" in inspect.signature(type(outputs)).parameters else rest
