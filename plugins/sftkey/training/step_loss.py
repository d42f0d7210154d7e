"""What the loss of a training step is: the weights of the segments and their schedule, and the objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sftkey.training.collator import SEGMENTS_COLUMN
from sftkey.training.scoring import score
from sftkey.training.targets import find_targets
from sftkey.training.weights import token_weights, weights_at

if TYPE_CHECKING:
    from sftkey.training.objectives.base import Objective


class StepLoss:
    """What a trainer needs of the loss beside the model.

    Args:
        weights: Weight of each `Segment`, shape ``(8,)``; ``None`` for the labels as they are.
        end_weights: Weights at the end of training, approached linearly; ``None`` to keep `weights`.
        objective: What is minimised instead of the weighted mean of the cross-entropy.
    """

    def __init__(
        self,
        weights: torch.Tensor | None = None,
        end_weights: torch.Tensor | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.objective = None if objective is None or objective.plain else objective
        self._weights = weights, end_weights
        self._on: dict[torch.device, tuple[torch.Tensor | None, ...]] = {}

    def weights(self, device: torch.device, progress: float) -> torch.Tensor | None:
        """The weight of each segment at a point of training. Weights are copied to a device once."""
        if device not in self._on:
            self._on[device] = tuple(None if given is None else given.to(device) for given in self._weights)
        start, end = self._on[device]
        return start if start is None or end is None else weights_at(start, end, progress)

    def columns(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What the objective knows of each token of a batch, which is where its labels are."""
        if self.objective is None:
            return {}
        return {name: batch[name] for name in (*self.objective.columns, "position_ids") if name in batch}

    def items(self, batch: Mapping[str, Any], progress: float) -> torch.Tensor:
        """What a batch adds to what the loss of its step is divided by."""
        labels, segments = batch["labels"], batch.get(SEGMENTS_COLUMN)
        weights = self.weights(labels.device, progress)
        if self.objective is None:
            segments = None if segments is None else segments[:, 1:]
            return token_weights(labels[:, 1:], segments, weights).sum()
        targets = find_targets(batch.get("input_ids"), labels, segments, weights, self.objective.measured)
        return score(targets, self.objective, batch, self.columns(batch), progress).items.float()
