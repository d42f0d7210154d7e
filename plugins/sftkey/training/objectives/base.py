"""What an objective is: from what is known of each target to its term in the loss.

Torch-free, as recipes are checked where torch isn't installed: an objective computes with the methods of tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from sftkey.format.segments import Segment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tokens:
    """The ``N`` targets of a micro-batch and what is known of each, as tensors of shape ``(N,)``.

    Attributes:
        ids: The token to predict.
        weights: The weight of its segment (`sftkey.training.weights`); 0 where it is no labelled token.
        segments: Its `Segment`.
        sequences: The sequence that it belongs to, counted from 0 and ascending; a packed row holds several.
        positions: Its index among the tokens of its row.
        columns: What was prepared beside the rows, by the name of the column (`Objective.columns`).
        sequence_count: More than the largest of `sequences`.
        progress: 0 at the first optimizer step, 1 at the last.
        loss: Its cross-entropy now in nats, float32; None before the forward pass.
        divergence: How far its prediction is from the reference's (`sftkey.training.divergence`), with the prepared column
            ``anchor_ids``.
        entropy: The entropy of the model's `Objective.entropy_top` likeliest tokens there, without gradient.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    segments: torch.Tensor
    sequences: torch.Tensor
    positions: torch.Tensor
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)
    sequence_count: int = 0
    progress: float = 0.0
    loss: torch.Tensor | None = None
    divergence: torch.Tensor | None = None
    entropy: torch.Tensor | None = None

    def map(self, change: Any) -> Tokens:
        """The same with a function applied to every tensor, such as one that picks some targets."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        changed: dict[str, Any] = {
            name: change(value)
            for name, value in values.items()
            if name not in ("columns", "progress", "sequence_count") and value is not None
        }
        return replace(self, **changed, columns={name: change(column) for name, column in self.columns.items()})


REFERENCE_COLUMNS = frozenset({"reference_loss", "excess_rank", "short_loss", "anchor_ids", "anchor_logprobs"})
"""Prepared columns that take a pass of the reference model."""

COLUMNS = REFERENCE_COLUMNS | {"tf_idf"}
"""Every prepared column."""


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

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        for key, value in values.items():
            if isinstance(value, bool) and key in cls.model_fields and cls.model_fields[key].annotation is not bool:
                raise ValueError(f"{key}: {value!r} is no number")
        return values

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
