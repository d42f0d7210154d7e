"""Anchored Key stage: the answer is trained while the thinking stays what the stage before makes it.

Stage 2 with a term on the thinking that keeps the model's prediction near that of the reference model, which is Stage 1
itself: the divergence KL(reference || model) of each position, over the reference's likeliest tokens and the rest as one. Its
weight is that of ``sftkey_segment_weights: {thinking: ...}`` with the cross-entropy put in its place. Nobody's paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sftkey.format.segments import Segment
from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch

ANCHORED = frozenset({Segment.THINKING_OPEN, Segment.THINKING, Segment.THINKING_CLOSE})


class Anchored(Objective):
    """The weighted mean of ``l`` where there are labels and of ``strength * KL`` on the thinking."""

    name: ClassVar[str] = "anchor-kl"
    summary: ClassVar[str] = "cross-entropy, and on the thinking the divergence from a reference"
    measured: ClassVar[frozenset[Segment]] = ANCHORED

    strength: float = Field(0.1, gt=0, le=100)
    top: int = Field(8, ge=1, le=1000)

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The likeliest tokens of the reference model on the thinking, and their log-probabilities."""
        return {"anchor_ids": {"top": self.top}, "anchor_logprobs": {"top": self.top}}

    def terms(self, tokens: Tokens) -> torch.Tensor:
        """The loss and the divergence of each token."""
        assert tokens.loss is not None
        assert tokens.divergence is not None
        return tokens.weights * tokens.loss + self.strength * self._anchored(tokens) * tokens.divergence

    def items(self, tokens: Tokens) -> torch.Tensor:
        """The total weight of both."""
        return tokens.weights.sum() + self.strength * self._anchored(tokens).sum()

    def _anchored(self, tokens: Tokens) -> torch.Tensor:
        inside = (tokens.segments >= min(ANCHORED)) & (tokens.segments <= max(ANCHORED))
        return inside.to(tokens.weights.dtype)
