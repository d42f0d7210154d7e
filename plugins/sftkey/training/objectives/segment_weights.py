"""Cross-entropy weighted by segment; the weights are ``sftkey_segment_weights`` and ``sftkey_segment_schedule``."""

from __future__ import annotations

from typing import ClassVar

from sftkey.format.segments import Segment
from sftkey.training.objectives.base import Objective


class SegmentWeights(Objective):
    """The weighted mean cross-entropy; `Tokens.weights` are those of the recipe, as they are for every objective."""

    name: ClassVar[str] = "segment-weights"
    summary: ClassVar[str] = "cross-entropy, weighted by segment"
    plain: ClassVar[bool] = True

    def obstacle(self, trained: frozenset[Segment], weighted: bool) -> str | None:
        """There have to be weights."""
        return None if weighted else "there are no weights; add sftkey_segment_weights or sftkey_segment_schedule"
