"""Forgetting: tokens that a reference model has learnt are trained, the others unlearnt, more and more so.

Ghahrizjani et al. 2025, "Forgetting: A New Mechanism Towards Better Large Language Model Fine-tuning", arXiv 2508.04329,
and the authors' code: the top share of all tokens by their loss under the model that training starts from less
that under the reference model are positive, the others negative; the loss is the mean over the positive ones less lambda
times the mean over the negative ones, and lambda rises linearly over the steps. Theirs takes both means over each
micro-batch. Here the numbers of both are those that so many tokens of the data set hold, ``share`` and ``1 - share`` times
the tokens of the optimizer step, so that accumulation changes nothing. The ranking goes over the trained tokens of each
entry of ``datasets:``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sftkey.training.objectives.token_cleaning import TokenCleaning
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class Forgetting(TokenCleaning):
    """As `TokenCleaning`, but ``-lambda l`` for the other tokens."""

    name: ClassVar[str] = "forgetting"
    summary: ClassVar[str] = "token cleaning that unlearns the tokens that it doesn't keep"

    share: float = Field(0.7, gt=0, lt=1)
    low: float = Field(0.00001, ge=0, le=1)
    high: float = Field(0.25, ge=0, le=1)

    def weight(self, tokens: Tokens) -> torch.Tensor:
        """1 for positive tokens; for negative ones what they are unlearnt with."""
        positive = super().weight(tokens)
        scale = (self.low + (self.high - self.low) * tokens.progress) * self.share / (1 - self.share)
        return positive - scale * (1 - positive)

    def items(self, tokens: Tokens) -> torch.Tensor:
        """The total weight that positive tokens have in so many tokens of the data set."""
        return self.share * tokens.weights.sum()
