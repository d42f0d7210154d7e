"""Long-range weighting: a token counts by how much its long context changes its loss.

Helm et al. 2025, "Token Weighting for Long-Range Language Modeling", arXiv 2503.09202, the dense variant with a
frozen short-context model: the score of a token is the absolute difference of its loss now, with the whole context, and its
loss under the reference model with a short one; the scores of a sequence are scaled to a mean of 1 and mixed with equal
weights. As in the authors' code the short context is a window that moves by half its length, so that a token sees between a
half and the whole of it, and a sequence whose scores are all 0 counts equally.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class LongRange(Objective):
    """``(mix + (1 - mix) s / mean of s) l`` with ``s = |l - l_short|``."""

    name: ClassVar[str] = "long-range"
    summary: ClassVar[str] = "each token by how much a long context changes its loss"
    alone: ClassVar[bool] = False

    mix: float = Field(0.5, ge=0, le=1)
    context: int = Field(64, ge=4, le=1_000_000)

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The loss of each token under the reference model with a short context."""
        return {"short_loss": {"context": self.context}}

    def weight(self, tokens: Tokens) -> torch.Tensor:
        """The scaled score, mixed with 1."""
        assert tokens.loss is not None
        score = (tokens.loss.detach() - tokens.columns["short_loss"]).abs()
        sums = score.new_zeros(tokens.sequence_count).index_add(0, tokens.sequences, score)
        counts = score.new_zeros(tokens.sequence_count).index_add(0, tokens.sequences, score * 0 + 1)
        mean = (sums / counts.clamp(min=1))[tokens.sequences]
        scaled = (score / mean.clamp(min=1e-30)).where(mean > 0, score * 0 + 1)
        return self.mix + (1 - self.mix) * scaled
