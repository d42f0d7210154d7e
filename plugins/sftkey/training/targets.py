"""Find the positions of a batch that predict a token of the loss or the statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sftkey.format.segments import Segment
from sftkey.training.weights import token_weights


@dataclass
class Targets:
    """The positions whose next token is a target, flattened over the batch; ``N`` of them.

    Attributes:
        rows: Index of each position into the flattened ``(B * T)`` batch, shape ``(N,)``, ascending.
        ids: The token to predict there, shape ``(N,)``.
        weights: Its weight in the loss, shape ``(N,)``, float32; 0 where the token is only measured.
        segments: Its segment, shape ``(N,)``, or None if the batch has no segments.
        shape: ``(B, T)``.
    """

    rows: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    segments: torch.Tensor | None
    shape: tuple[int, int]


def find_targets(
    input_ids: torch.Tensor | None,
    labels: torch.Tensor,
    segments: torch.Tensor | None,
    weights: torch.Tensor | None,
    measure: frozenset[Segment],
) -> Targets:
    """Find the positions that the loss or the statistics need.

    The target of position ``t`` is token ``t + 1``. Waits for the device once, because the number of targets decides
    the shape of everything that follows.

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
        next_ids = torch.where(trained, next_ids, input_ids[:, 1:])
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
