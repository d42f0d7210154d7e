"""The training loss over labelled tokens, and its parts per segment. Torch and transformers only.

The loss is the mean cross-entropy of the labelled tokens, Eq. 1 when the whole response is labelled and Eq. 4 when
only what follows ``</Thinking>`` is; with weights per segment it is their weighted mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sftkey.format.segments import Segment
from sftkey.training.context_grad import after_context, without_gradient_checkpointing
from sftkey.training.linear_cross_entropy import cross_entropy
from sftkey.training.scoring import score
from sftkey.training.sparse_logits import fused_loss, sparse_token_losses, tell_once, unwrap
from sftkey.training.targets import Targets, find_targets, to_device
from sftkey.training.tokenization import IGNORE_INDEX

if TYPE_CHECKING:
    from sftkey.training.objectives.base import Objective

NUM_SEGMENTS = len(Segment)


@dataclass
class SegmentStatistics:
    """Sums over the tokens of a batch, per segment; what is logged is their quotient.

    Attributes:
        loss: Summed cross-entropy in nats, shape ``(8,)``, float32.
        tokens: Number of target tokens, shape ``(8,)``, int64.
        correct: Number of target tokens that no other token has a larger logit than, shape ``(8,)``, int64.
    """

    loss: torch.Tensor
    tokens: torch.Tensor
    correct: torch.Tensor

    def __add__(self, other: SegmentStatistics) -> SegmentStatistics:
        """The statistics of both batches together."""
        return SegmentStatistics(self.loss + other.loss, self.tokens + other.tokens, self.correct + other.correct)


@dataclass
class LossOutput:
    """What `causal_loss` returns.

    Attributes:
        loss: Scalar, differentiable, float32.
        statistics: Detached, unweighted sums per segment over the trained and the measured tokens, on the device. All
            zeros if the batch has no segments, or if a fused loss of the model was used, which gives no token's loss.
        outputs: The model's output object; without logits if only those of the targets were computed.
    """

    loss: torch.Tensor
    statistics: SegmentStatistics
    outputs: Any


def causal_loss(
    model: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    labels: torch.Tensor,
    segments: torch.Tensor | None,
    *,
    weights: torch.Tensor | None = None,
    num_items: torch.Tensor | float | None = None,
    measure: frozenset[Segment] = frozenset(),
    sparse: bool = True,
    context_grad: bool = True,
    objective: Objective | None = None,
    columns: Mapping[str, torch.Tensor] | None = None,
    progress: float = 0.0,
) -> LossOutput:
    """The weighted mean cross-entropy of the labelled tokens, or another objective over them.

    The target of position ``t`` is token ``t + 1``. Packed batches need nothing special: the first token of a sequence
    belongs to its prompt and has no label. What the model's own loss includes beside the cross-entropy is added: the
    load-balancing loss of a mixture-of-experts model, and a z-loss, which needs the logits of every position. Both count
    with the batch's share of ``num_items``, so that they don't grow with the micro-batches and processes of a step, as
    they do in transformers.

    Args:
        model: A causal language model of transformers, wrapped (PEFT, DDP, FSDP, DeepSpeed) or not.
        inputs: Its inputs without labels: ``input_ids`` of shape ``(B, T)`` and what goes with them.
        labels: Shape ``(B, T)``, the token id where a token is trained, else `IGNORE_INDEX`. On the CPU, with segments and
            weights, nothing waits for the model's device; on that device the number of targets has to be read from it.
        segments: Shape ``(B, T)``, the `Segment` of each token, or None: then there are no statistics.
        weights: Shape ``(8,)``, the weight of each segment (`sftkey.training.weights`); a labelled token of weight 0
            isn't trained. A token without a label never is, whatever its weight. Default: 1 for all.
        num_items: What the weighted sum is divided by: the total weight of the labelled tokens (`Objective.items`) of all
            batches that share an optimizer step. Default: that of this batch.
        measure: Segments that the statistics cover though their tokens aren't trained.
        sparse: Compute logits only where there is a target.
        context_grad: False to train without the context gradient (`sftkey.training.context_grad`): the same loss, another
            gradient.
        objective: What is minimised instead; the statistics stay those of the cross-entropy. It needs ``segments``.
        columns: Shape ``(B, T)`` each; what the objective knows of each token beside the batch, and ``position_ids``
            where those of the inputs would have to be read from the device.
        progress: 0 at the first optimizer step, 1 at the last; for objectives that change.

    Returns:
        Loss, statistics and model output. Without any trained token the loss is 0 and its gradients are zeros.

    Raises:
        ValueError: ``weights``, ``measure`` or ``objective`` without ``segments``, or a measured prompt; without
            ``context_grad`` also ``measure`` or ``columns``, and what `after_context` raises.
    """
    columns = columns or {}
    if objective is not None:
        measure |= objective.measured
    if not context_grad:
        if measure or columns:
            raise ValueError(
                "measured segments may lie in the context, which gives no logits: measure with context_grad; columns of an "
                "objective need it, too"
            )
        with without_gradient_checkpointing(model):
            rest = after_context(model, inputs, labels, segments, weights)
            trained: dict[str, Any] = {"weights": weights, "objective": objective, "progress": progress}
            return causal_loss(model, *rest, num_items=num_items, sparse=sparse, **trained)
    targets = find_targets(inputs.get("input_ids"), labels, segments, weights, measure)
    if objective is not None:
        targets = score(targets, objective, inputs, columns, progress)
    device = _device(inputs, labels)
    items, targets = to_device(targets.items, device), targets.to(device)
    denominator = normaliser(items, num_items)
    if _own_loss_applies(model, weights, measure, objective):
        if len(targets.rows):
            return _own_loss(model, inputs, targets, denominator)
        # A fused loss may not take an empty batch, and in several processes only this one may have such a batch: so
        # neither may it now start to find out how the model takes sparse logits, which can cost a second forward pass.
        sparse = False
    coefficient = z_coefficient(model)
    if coefficient and sparse:
        tell_once(model, f"{type(unwrap(model)).__name__} has a z-loss: logits are computed at every position")
        sparse = False
    z_loss: torch.Tensor | float = 0.0
    found = sparse_token_losses(model, inputs, targets, denominator) if sparse else None
    if found is None:
        outputs = model(**inputs)
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        if logits.shape[:2] != targets.shape:
            raise ValueError(
                f"labels have shape {targets.shape} but the model gave logits of shape {tuple(logits.shape)}: the loss "
                "needs them at every position of the batch; is the sequence split over several devices?"
            )
        if coefficient:
            z_loss = coefficient * logits.float().logsumexp(-1).square().mean()
        selected = logits.flatten(0, 1)[targets.rows]
        found = cross_entropy(selected, targets.ids, targets.weights, denominator, targets.scored), outputs
    losses, outputs = found
    statistics = _no_statistics(losses.losses.device)
    if targets.segments is not None:
        segments = targets.segments.to(losses.losses.device)
        statistics.loss.index_add_(0, segments, losses.losses)
        statistics.tokens.index_add_(0, segments, torch.ones_like(segments))
        statistics.correct.index_add_(0, segments, losses.correct.long())
    share = items / denominator
    regularisers = z_loss + router_loss(unwrap(model), outputs)
    return LossOutput(losses.total + share.to(losses.total.device) * regularisers, statistics, outputs)


def normaliser(own: torch.Tensor, num_items: torch.Tensor | float | None) -> torch.Tensor:
    """What the weighted sum of losses is divided by; 1 where nothing is trained.

    Args:
        own: `Targets.items` of the batch.
        num_items: As in `causal_loss`.
    """
    items = own if num_items is None else num_items
    if not isinstance(items, torch.Tensor):
        items = torch.full((), items, device=own.device)
    items = items.to(own.device, torch.float32)
    return torch.where(items > 0, items, torch.ones_like(items))


def _device(inputs: dict[str, Any], labels: torch.Tensor) -> torch.device:
    return next((value.device for value in inputs.values() if isinstance(value, torch.Tensor)), labels.device)


def _no_statistics(device: torch.device) -> SegmentStatistics:
    counts = torch.zeros(NUM_SEGMENTS, dtype=torch.long, device=device)
    return SegmentStatistics(torch.zeros(NUM_SEGMENTS, device=device), counts, counts.clone())


def z_coefficient(model: torch.nn.Module) -> float:
    """The weight of the z-loss, the mean squared log-normaliser over all positions, in a model's own loss (Bamba)."""
    return float(getattr(getattr(unwrap(model), "config", None), "z_loss_coefficient", None) or 0.0)


def router_loss(model: torch.nn.Module, outputs: Any) -> torch.Tensor | float:
    """What a mixture-of-experts model adds to its own loss, which it only does when it is given labels."""
    balance = getattr(outputs, "aux_loss", None)
    coefficient = getattr(getattr(model, "config", None), "router_aux_loss_coef", None)
    if not isinstance(balance, torch.Tensor) or not coefficient:
        return 0.0
    return coefficient * balance.float()


def _own_loss_applies(
    model: torch.nn.Module, weights: torch.Tensor | None, measure: frozenset[Segment], objective: Objective | None
) -> bool:
    """Whether the batch goes through a fused loss that was patched into the model.

    Evaluation needs the statistics and such a loss has no weights per token: both take our path, which a patched model
    serves as well.
    """
    name = fused_loss(model)
    if name is None or not model.training or measure:
        return False
    if objective is not None:
        tell_once(model, f"{name} computes no other objective: the loss is computed by sftkey instead")
        return False
    if weights is not None and not bool(((weights == 0) | (weights == 1)).all()):
        tell_once(model, f"{name} can't weight segments: the loss is computed by sftkey instead")
        return False
    tell_once(
        model,
        f"{name} is patched into the model and computes the loss; it knows no segments, so training logs no losses per "
        "segment. Without it sftkey computes the output layer only where tokens have labels",
    )
    return True


def _own_loss(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], targets: Targets, denominator: torch.Tensor
) -> LossOutput:
    labels = torch.full(targets.shape, IGNORE_INDEX, dtype=torch.long, device=targets.ids.device)
    labels.view(-1)[targets.rows + 1] = targets.ids
    outputs = model(**inputs, labels=labels, num_items_in_batch=denominator)
    # The model adds its router loss in full for every micro-batch.
    beyond_share = 1 - targets.weights.sum() / denominator
    loss = outputs["loss"] - beyond_share * router_loss(unwrap(model), outputs)
    return LossOutput(loss, _no_statistics(labels.device), outputs)
