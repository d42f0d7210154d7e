"""Rho-1, selective language modeling: only the tokens with the largest excess loss over a reference count.

Lin et al. 2024, "Rho-1: Not All Tokens Are What You Need", arXiv 2404.07965: the excess loss of a token is its
loss now less its loss under the reference model; the loss is the mean over the top share of the tokens,
ranked within a batch. The batch is here the micro-batch of one process; ``within: sequence`` ranks within each sequence, so
that the selection doesn't depend on how sequences are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class ExcessLoss(Objective):
    """``l`` where ``l - l_reference`` is among the top ``share``, over the number of those tokens."""

    name: ClassVar[str] = "rho-1"
    summary: ClassVar[str] = "only the tokens with the largest excess loss over a reference"
    alone: ClassVar[bool] = False

    share: float = Field(0.6, gt=0, le=1)
    within: Literal["batch", "sequence"] = "batch"

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The loss of each token under the reference model."""
        return {"reference_loss": {}}

    def weight(self, tokens: Tokens) -> torch.Tensor:
        """1 for the selected tokens, else 0."""
        assert tokens.loss is not None
        excess = tokens.loss.detach() - tokens.columns["reference_loss"]
        order = excess.argsort(descending=True, stable=True)
        groups, sizes = self._groups(tokens)
        order = order[groups[order].argsort(stable=True)]
        # Where each group begins among the ordered tokens.
        begins = sizes.cumsum(0) - sizes
        rank = tokens.ids.new_ones(len(order)).cumsum(0) - 1 - begins[groups[order]]
        selected = (rank < self._selected(sizes)[groups[order]]).to(tokens.weights.dtype)
        return tokens.weights.new_zeros(len(order)).index_copy(0, order, selected)

    def items(self, tokens: Tokens) -> torch.Tensor:
        """How many tokens are selected, times the mean weight of those that they are selected from."""
        groups, sizes = self._groups(tokens)
        weight = tokens.weights.new_zeros(len(sizes)).index_add(0, groups, tokens.weights)
        return (self._selected(sizes) * weight / sizes.clamp(min=1)).sum()

    def _groups(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """Among which tokens each one is ranked, and how many those are."""
        groups = tokens.sequences if self.within == "sequence" else tokens.sequences * 0
        count = tokens.sequence_count if self.within == "sequence" else 1
        return groups, groups.new_zeros(count).index_add(0, groups, groups * 0 + 1)

    def _selected(self, sizes: torch.Tensor) -> torch.Tensor:
        return (sizes * self.share - 1e-6).ceil().clamp(min=0)
