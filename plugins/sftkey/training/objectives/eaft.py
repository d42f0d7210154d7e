"""Entropy-Adaptive Fine-Tuning: each token counts as much as the model is undecided there.

Diao et al. 2026, "Entropy-Adaptive Fine-Tuning", arXiv 2601.02151, Eq. 2: the loss of a token times the entropy of the 20
likeliest tokens, divided by the largest that it can have (Eq. 3, which takes 3.0 for ln 20). Axolotl's ``use_eaft`` leaves
that division out, so its loss is 3.0 times as large; with ``normalised: false`` both are the same. The sum is divided by the
number of tokens, as there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class EntropyAdaptive(Objective):
    """``-sg(H / ln K) ** power * log p`` for each token, where ``H`` is the entropy of the ``K`` likeliest tokens."""

    name: ClassVar[str] = "eaft"
    summary: ClassVar[str] = "each token times the entropy of the prediction"

    top: int = Field(20, ge=2, le=1000)
    power: float = Field(1.0, gt=0, le=10)
    normalised: bool = True

    @property
    def entropy_top(self) -> int:
        """``K``."""
        return self.top

    def weight(self, tokens: Tokens) -> torch.Tensor:
        """The entropy, as a share of what it can be at most."""
        assert tokens.entropy is not None
        return (tokens.entropy / (math.log(self.top) if self.normalised else 1.0)) ** self.power
