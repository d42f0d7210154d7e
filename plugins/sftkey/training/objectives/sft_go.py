"""SFT-GO: the group of tokens of a sequence that is learnt worst counts more.

Kim et al. 2025, "SFT-GO: Supervised Fine-Tuning with Group Optimization", arXiv 2506.15021: the tokens of a
sequence are put into groups by importance, and the loss is a weighted combination of the cross-entropy and of the mean loss
of the worst group. Groups are here those by TF-IDF (the top share of a sequence against the rest), or thinking against what
follows it. The paper's other two groupings take a model each (LLMLingua-2, Rho-1). A sequence counts by its tokens, as with
the other objectives, and not equally: so a mix of 0 is plain cross-entropy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sftkey.format.segments import AFTER_THINKING, Segment
from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class GroupOptimization(Objective):
    """``(1 - mix) * mean of l + mix * largest mean of a group`` for each sequence."""

    name: ClassVar[str] = "sft-go"
    summary: ClassVar[str] = "the worst group of a sequence's tokens counts more"
    alone: ClassVar[bool] = False

    groups: Literal["tf-idf", "segments"] = "tf-idf"
    share: float = Field(0.2, gt=0, lt=1)
    mix: float = Field(0.5, ge=0, le=1)

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The share of a sequence's trained tokens with as large a TF-IDF or a larger one."""
        return {"tf_idf": {}} if self.groups == "tf-idf" else {}

    def obstacle(self, trained: frozenset[Segment], weighted: bool) -> str | None:
        """There have to be two groups."""
        if self.groups == "segments" and trained <= AFTER_THINKING:
            return (
                "only what follows the thinking is trained, which is one group; set groups: tf-idf, or another method"
            )
        return None

    def terms(self, tokens: Tokens) -> torch.Tensor:
        """The losses, and for each sequence the mean of its worst group for each of its tokens."""
        assert tokens.loss is not None
        if self.groups == "segments":
            second = tokens.segments >= min(AFTER_THINKING)
        else:
            second = tokens.columns["tf_idf"] <= self.share
        weighted = tokens.weights * tokens.loss
        index = 2 * tokens.sequences + second
        empty = weighted.new_zeros(2 * tokens.sequence_count)
        sums, weights = empty.index_add(0, index, weighted), empty.index_add(0, index, tokens.weights)
        means = (sums / weights.clamp(min=1e-30)).masked_fill(weights == 0, 0.0)
        worst = means.reshape(-1, 2).amax(1) * weights.reshape(-1, 2).sum(1)
        return (1 - self.mix) * weighted.sum() + self.mix * worst.sum()
