"""Cross-entropy: every labelled token counts the same, Eq. 1 and 4 of the paper."""

from __future__ import annotations

from typing import ClassVar

from sftkey.format.segments import Segment
from sftkey.training.objectives.base import Objective


class CrossEntropy(Objective):
    """The mean cross-entropy of the labelled tokens."""

    name: ClassVar[str] = "ce"
    summary: ClassVar[str] = "cross-entropy, every token the same"
    plain: ClassVar[bool] = True

    def obstacle(self, trained: frozenset[Segment], weighted: bool) -> str | None:
        """Weights would make it another objective."""
        return "the recipe weights segments; set it to segment-weights, or remove the weights" if weighted else None
