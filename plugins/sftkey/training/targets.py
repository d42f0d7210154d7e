"""Find the positions of a batch that predict a token of the loss or the statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sftkey.format.segments import Segment
from sftkey.training.weights import token_weights

if TYPE_CHECKING:
    from sftkey.training.scoring import Scored


@dataclass
class Targets:
    """The positions whose next token is a target, flattened over the batch; ``N`` of them.

    Attributes:
        rows: Index of each position into the flattened ``(B * T)`` batch, shape ``(N,)``, ascending.
        ids: The token to predict there, shape ``(N,)``.
        weights: Its weight in the loss, shape ``(N,)``, float32; 0 where the token is only measured.
        segments: Its segment, shape ``(N,)``, or None if the batch has no segments.
        shape: ``(B, T)``.
        scored: What is minimised instead of the weighted sum of their losses; None for that sum.
    """

    rows: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    segments: torch.Tensor | None
    shape: tuple[int, int]
    scored: Scored | None = None

    @property
    def items(self) -> torch.Tensor:
        """What the loss is divided by where this batch is alone in its step: a scalar."""
        return self.weights.sum() if self.scored is None else self.scored.objective.items(self.scored.tokens)

    def to(self, device: torch.device) -> Targets:
        """The same targets on a device, without waiting for it."""
        segments = None if self.segments is None else to_device(self.segments, device)
        rows, ids, weights = (to_device(values, device) for values in (self.rows, self.ids, self.weights))
        return Targets(
            rows, ids, weights, segments, self.shape, None if self.scored is None else self.scored.to(device)
        )


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on a device that doesn't wait for the work queued there: from the CPU it takes pinned memory."""
    if values.device.type != "cpu" or device.type == "cpu":
        return values.to(device)
    if device.type == "cuda" and torch.cuda.is_available():
        values = values.pin_memory()
    return values.to(device, non_blocking=device.type != "mps")


def find_targets(
    input_ids: torch.Tensor | None,
    labels: torch.Tensor,
    segments: torch.Tensor | None,
    weights: torch.Tensor | None,
    measure: frozenset[Segment],
) -> Targets:
    """Find the positions that the loss or the statistics need.

    The target of position ``t`` is token ``t + 1``. Waits for the device of the labels, because the number of targets
    decides the shape of everything that follows: give labels on the CPU.

    Args:
        input_ids: Shape ``(B, T)``; needed only with ``measure``.
        labels: Shape ``(B, T)``, the token id where a token is trained, else `IGNORE_INDEX`.
        segments: Shape ``(B, T)``, the `Segment` of each token, or None.
        weights: Shape ``(8,)``, the weight of each segment; a labelled token of weight 0 is no target.
        measure: Segments whose tokens are targets of weight 0 where they aren't trained.

    Raises:
        ValueError: ``weights`` or ``measure`` without ``segments``, a measured prompt, or no ``input_ids`` to measure.
    """
    if segments is None and measure:
        raise ValueError("measured segments need the segment of every token; `segments` is None")
    if Segment.PROMPT in measure:
        raise ValueError("the prompt can't be measured: its first token has no position that predicts it")
    next_ids = labels[:, 1:]
    next_segments = None if segments is None else segments[:, 1:].long()
    weight = token_weights(next_ids, next_segments, weights)
    wanted = trained = weight > 0
    if next_segments is not None and measure:
        if input_ids is None:
            raise ValueError("measured segments take their targets from `input_ids`, which the inputs lack")
        measured = torch.isin(next_segments, torch.tensor(sorted(measure), device=next_segments.device))
        next_ids = torch.where(trained, next_ids, input_ids[:, 1:].to(next_ids.device))
        wanted = trained | measured
    # The last position predicts nothing; keeping its column makes the row index that of the flattened batch.
    rows = F.pad(wanted, (0, 1)).flatten().nonzero().squeeze(1)

    def pick(values: torch.Tensor) -> torch.Tensor:
        return F.pad(values, (0, 1)).flatten()[rows]

    return Targets(
        rows=rows,
        ids=pick(next_ids),
        weights=pick(weight),
        segments=None if next_segments is None else pick(next_segments),
        shape=(labels.shape[0], labels.shape[1]),
    )
