"""Dynamic Fine-Tuning: each token counts as much as the model expects it.

Wu et al. 2025, "On the Generalization of SFT", arXiv 2508.05629, Eq. 9 (Eq. 8 is that of whole sequences): the loss of a
token times its own probability, through which no gradient goes. Eq. 9 sums over a sequence; TRL's ``loss_type="dft"`` and
Axolotl's ``use_dft`` divide by the number of tokens, as here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sftkey.training.objectives.base import Objective
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class DynamicFineTuning(Objective):
    """``-sg(p) log p`` for each token."""

    name: ClassVar[str] = "dft"
    summary: ClassVar[str] = "each token times its own probability"

    def weight(self, tokens: Tokens) -> torch.Tensor:
        """The probability of the token."""
        assert tokens.loss is not None
        return (-tokens.loss).exp()
