"""What an objective knows of the targets: their tensors and the columns prepared beside the rows.

Apart from `Objective`, which takes pydantic: the loss and the collator run where only torch and transformers are installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tokens:
    """The ``N`` targets of a micro-batch and what is known of each, as tensors of shape ``(N,)``.

    Attributes:
        ids: The token to predict.
        weights: The weight of its segment (`sftkey.training.weights`); 0 where it is no labelled token.
        segments: Its `Segment`.
        sequences: The sequence that it belongs to, counted from 0 and ascending; a packed row holds several.
        columns: What was prepared beside the rows, by the name of the column (`Objective.columns`).
        sequence_count: More than the largest of `sequences`.
        progress: 0 at the first optimizer step, 1 at the last.
        loss: Its cross-entropy now in nats, float32; None before the forward pass.
        divergence: How far its prediction is from the reference's (`sftkey.training.divergence`), with the prepared column
            ``anchor_ids``.
        entropy: The entropy of the model's `Objective.entropy_top` likeliest tokens there, without gradient.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    segments: torch.Tensor
    sequences: torch.Tensor
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)
    sequence_count: int = 0
    progress: float = 0.0
    loss: torch.Tensor | None = None
    divergence: torch.Tensor | None = None
    entropy: torch.Tensor | None = None

    def map(self, change: Any) -> Tokens:
        """The same with a function applied to every tensor, such as one that picks some targets."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        changed: dict[str, Any] = {
            name: change(value)
            for name, value in values.items()
            if name not in ("columns", "progress", "sequence_count") and value is not None
        }
        return replace(self, **changed, columns={name: change(column) for name, column in self.columns.items()})


REFERENCE_COLUMNS = frozenset({"reference_loss", "excess_rank", "short_loss", "anchor_ids", "anchor_logprobs"})
"""Prepared columns that take a pass of the reference model."""

COLUMNS = REFERENCE_COLUMNS | {"tf_idf"}
"""Every prepared column."""
