"""What an objective is: from what is known of each target to its term in the loss.

Torch-free, as recipes are checked where torch isn't installed: an objective computes with the methods of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from sftkey.format.segments import Segment
from sftkey.training.objectives.tokens import Tokens

if TYPE_CHECKING:
    import torch


class Objective(BaseModel):
    """What a stage minimises: the sum of `terms` over what `items` counts.

    Both sums go over all micro-batches and processes of an optimizer step, so `items` may depend on nothing that takes a
    forward pass. A subclass is one file: its name and summary, its keys as pydantic fields, and `weight` or `terms`.

    Attributes:
        name: The value of ``sftkey_objective``.
        summary: One line for help texts and tables.
        alone: Whether a token's term depends on that token alone. Otherwise the losses of the whole micro-batch have to be
            known before the gradient of any, which takes the output layer a second time.
        plain: Whether it is the weighted mean of the cross-entropy, which needs no objective.
        measured: Segments whose tokens are targets whether they have labels or not; their weight is 0 without one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    summary: ClassVar[str]
    alone: ClassVar[bool] = True
    plain: ClassVar[bool] = False
    measured: ClassVar[frozenset[Segment]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError(f"{info.field_name}: {value!r} is no number")
        return value

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The prepared columns that it reads (`sftkey.training.reference`), each with what it depends on beside a model."""
        return {}

    @property
    def entropy_top(self) -> int:
        """Over how many of the likeliest tokens `Tokens.entropy` goes; 0 where it isn't needed."""
        return 0

    def obstacle(self, trained: frozenset[Segment], weighted: bool) -> str | None:
        """Why a recipe leaves it nothing to do, and what to change; None where there is something.

        Args:
            trained: The segments that its method and its weights train.
            weighted: Whether it gives segments weights.
        """
        return None

    def weight(self, tokens: Tokens) -> torch.Tensor:
        """What each target counts beside the weight of its segment; no gradient goes through it."""
        return tokens.weights.new_ones(tokens.weights.shape)

    def terms(self, tokens: Tokens) -> torch.Tensor:
        """What is summed up, of any shape; its gradient with respect to `Tokens.loss` is what is trained."""
        assert tokens.loss is not None
        return tokens.weights * self.weight(tokens).detach() * tokens.loss

    def items(self, tokens: Tokens) -> torch.Tensor:
        """What the sum is divided by: a scalar, from what is known before the forward pass."""
        return tokens.weights.sum()
