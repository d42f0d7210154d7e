"""An objective with the targets of a micro-batch: the sum of its terms, and what it makes of each token's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sftkey.training.divergence import divergence
from sftkey.training.objectives.tokens import Tokens
from sftkey.training.targets import Targets, to_device

if TYPE_CHECKING:
    from sftkey.training.objectives.base import Objective


class Seen(NamedTuple):
    """What an objective needs of the logits beside the losses: see `Tokens`; shape ``(n,)`` each, or None."""

    entropy: torch.Tensor | None
    divergence: torch.Tensor | None

    @classmethod
    def join(cls, parts: Sequence[Seen]) -> Seen:
        """That of all chunks together."""
        return cls(*(None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Scored:
    """An objective and the targets that it is about.

    Attributes:
        objective: The objective.
        tokens: The targets; without what takes a forward pass.
    """

    objective: Objective
    tokens: Tokens

    def to(self, device: torch.device) -> Scored:
        """The same on a device, without waiting for it."""
        return replace(self, tokens=self.tokens.map(lambda values: to_device(values, device)))

    def at(self, chunk: slice) -> Scored:
        """The same for some of the targets; to `slope` only for an objective that takes each token alone."""
        return replace(self, tokens=self.tokens.map(lambda values: values[chunk]))

    def total(self, loss: torch.Tensor, seen: Seen) -> torch.Tensor:
        """The sum of the terms, differentiable with respect to losses and divergences."""
        known = replace(self.tokens, loss=loss, entropy=seen.entropy, divergence=seen.divergence)
        return self.objective.terms(known).sum()

    def slope(self, loss: torch.Tensor, seen: Seen) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The sum of the terms, and its derivative by each token's loss and by its divergence where there is one."""
        with torch.enable_grad():
            loss = loss.detach().requires_grad_()
            far = None if seen.divergence is None else seen.divergence.detach().requires_grad_()
            total = self.total(loss, Seen(seen.entropy, far))
            by = [loss] if far is None else [loss, far]
            slopes = torch.autograd.grad(total, by, allow_unused=True, materialize_grads=True)
        return total.detach(), slopes[0], slopes[1] if far is not None else None

    def see(self, logits: torch.Tensor) -> Seen:
        """What the objective needs of logits ``(n, V)`` in float32 beside the losses."""
        top, entropy, far = min(self.objective.entropy_top, logits.shape[-1]), None, None
        if top:
            likeliest = logits.detach().topk(top, dim=-1).values.log_softmax(-1)
            entropy = -(likeliest.exp() * likeliest).sum(-1)
        if (anchor := self.anchor) is not None:
            far = divergence(logits, *anchor)
        return Seen(entropy, far)

    @property
    def anchor(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The reference's likeliest tokens at each target and their log-probabilities, where the objective has them."""
        columns = self.tokens.columns
        return (columns["anchor_ids"], columns["anchor_logprobs"]) if "anchor_ids" in columns else None


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
        sequences=(sequences := (begins.flatten().cumsum(0) - 1)[where]),
        sequence_count=int(sequences.amax()) + 1 if len(where) else 0,
        columns={name: columns[name].to(device).flatten(0, 1)[where] for name in objective.columns},
        progress=progress,
    )
    return replace(targets, scored=Scored(objective, tokens))
