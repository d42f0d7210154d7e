"""An objective with the targets of a micro-batch: the sum of its terms, and what it makes of each token's loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from sftkey.training.objectives.base import Objective, Tokens
from sftkey.training.targets import Targets, to_device


@dataclass(frozen=True)
class Scored:
    """An objective and the targets that it is about.

    Attributes:
        objective: The objective.
        tokens: The targets; without loss and entropy.
    """

    objective: Objective
    tokens: Tokens

    def to(self, device: torch.device) -> Scored:
        """The same on a device, without waiting for it."""
        return Scored(self.objective, self.tokens.map(lambda values: to_device(values, device)))

    def at(self, chunk: slice) -> Scored:
        """The same for some of the targets; only for an objective that takes each token alone."""
        return Scored(self.objective, self.tokens.map(lambda values: values[chunk]))

    def total(self, loss: torch.Tensor, entropy: torch.Tensor | None) -> torch.Tensor:
        """The sum of the terms, differentiable with respect to the losses."""
        return self.objective.terms(replace(self.tokens, loss=loss, entropy=entropy)).sum()

    def slope(self, loss: torch.Tensor, entropy: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the terms and its derivative by each token's loss, of which no gradient is known yet."""
        with torch.enable_grad():
            loss = loss.detach().requires_grad_()
            total = self.total(loss, entropy)
            (slope,) = torch.autograd.grad(total, loss, allow_unused=True, materialize_grads=True)
        return total.detach(), slope

    def entropy(self, logits: torch.Tensor) -> torch.Tensor | None:
        """The entropy over the likeliest tokens, of logits ``(n, V)`` in float32; None where it isn't needed."""
        top = min(self.objective.entropy_top, logits.shape[-1])
        if not top:
            return None
        likeliest = logits.detach().topk(top, dim=-1).values.log_softmax(-1)
        return -(likeliest.exp() * likeliest).sum(-1)


def score(
    targets: Targets,
    objective: Objective,
    inputs: Mapping[str, Any],
    columns: Mapping[str, torch.Tensor],
    progress: float,
) -> Targets:
    """Put together what is known of the targets of a batch before the forward pass.

    Args:
        targets: See `sftkey.training.targets.find_targets`; its tensors say where the result is.
        objective: The objective.
        inputs: The model's inputs: ``position_ids`` tell the sequences of a packed row apart.
        columns: The prepared columns, of shape ``(B, T)``, and ``position_ids`` again where they are nearer at hand.
        progress: See `Tokens`.

    Returns:
        The targets, scored.

    Raises:
        ValueError: The batch lacks a column that the objective reads, or the segment of every token.
    """
    if targets.segments is None:
        raise ValueError(f"the objective {objective.name} needs the segment of every token; `segments` is None")
    for name in objective.columns:
        if name not in columns:
            raise ValueError(f"the objective {objective.name} needs the column {name!r}, which the batch lacks")
    device = targets.rows.device
    position_ids = columns.get("position_ids", inputs.get("position_ids"))
    width = targets.shape[1]
    begins = torch.zeros(targets.shape, dtype=torch.bool, device=device)
    begins[:, :1] = True
    if position_ids is not None and position_ids.shape == targets.shape:
        begins[:, 1:] |= position_ids.to(device).diff(dim=1) < 0
    # The token that is predicted stands one further on.
    where = targets.rows + 1
    tokens = Tokens(
        ids=targets.ids,
        weights=targets.weights,
        segments=targets.segments,
        sequences=(begins.flatten().cumsum(0) - 1)[where],
        positions=where % width,
        columns={name: columns[name].to(device).flatten(0, 1)[where] for name in objective.columns},
        progress=progress,
    )
    return replace(targets, scored=Scored(objective, tokens))
