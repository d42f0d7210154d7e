"""Token cleaning: only the tokens that a reference model has learnt count, ranked over the whole data set.

Pang et al. 2025, "Token Cleaning", arXiv 2502.01968, fixed-model cleaning (section 4.3): the quality of a token is its loss
under the model that training starts from less that under the reference model (4.2.1); the top share of all response tokens
keep their label (4.2.2). Here the ranking goes over the trained tokens of each entry of ``datasets:``. Self-evolving cleaning
is a chain of stages, each with the one before as ``sftkey_reference_model`` and other rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class TokenCleaning(Objective):
    """``l`` where ``l_start - l_reference`` is among the top ``share`` of the data set, over the number of those tokens."""

    name: ClassVar[str] = "token-cleaning"
    summary: ClassVar[str] = "only the tokens that a reference model has learnt, ranked over the data set"

    share: float = Field(0.6, gt=0, le=1)

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The rank of each token by what the reference model has learnt of it."""
        return {"excess_rank": {}}

    def weight(self, tokens: Tokens) -> torch.Tensor:
        """1 for the tokens that are kept, else 0."""
        return (tokens.columns["excess_rank"] <= self.share).to(tokens.weights.dtype)

    def items(self, tokens: Tokens) -> torch.Tensor:
        """The total weight of the tokens that are kept."""
        return (tokens.weights * self.weight(tokens)).sum()
