"""Batches with the segment of each token beside its label, and what else is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sftkey.training.objectives.tokens import COLUMNS

SEGMENTS_COLUMN = "segments"

OURS = (SEGMENTS_COLUMN, *sorted(COLUMNS))
"""Every column that is carried."""

_WHOLE_NUMBERS = (SEGMENTS_COLUMN, "anchor_ids")


class SegmentCollator:
    """Carries the ``segments`` column, and those of objectives, through a collator that doesn't know them.

    Args:
        collator: Any collator that pads or packs ``input_ids`` and ``labels``; rows may come as a flat list or, from a
            multipack sampler, as a list of lists.
        padding_side: The side on which `collator` pads.
    """

    def __init__(self, collator: Callable[..., Any], padding_side: str = "right") -> None:
        self.collator = collator
        self.padding_side = padding_side

    def __getattr__(self, name: str) -> Any:
        """What is looked for on a collator (``tokenizer``, ``pad_to_multiple_of``) is that of the one inside."""
        if name == "collator" or name.startswith("__"):  # while it is unpickled there is none yet
            raise AttributeError(name)
        return getattr(self.collator, name)

    def __call__(self, features: Sequence[Any], **kwargs: Any) -> Any:
        """Collate rows; adds ``segments`` and the other columns in the shape of ``labels``; padding is 0, the prompt."""
        packs = [pack if isinstance(pack, list) else [pack] for pack in features]
        if not all(SEGMENTS_COLUMN in row for pack in packs for row in pack):
            return self.collator(features, **kwargs)
        stripped: list[Any] = [
            [_without_ours(row) for row in pack] if isinstance(pack, list) else _without_ours(pack) for pack in features
        ]
        batch = self.collator(stripped, **kwargs)
        if batch["labels"].shape[0] != len(packs):
            # The collator concatenated a flat list of rows into one packed sequence.
            packs = [[row for pack in packs for row in pack]]
        for name in OURS:
            if all(name in row for pack in packs for row in pack):
                batch[name] = self._padded(packs, name, batch["labels"].shape)
        return batch

    def _padded(self, packs: list[list[Any]], name: str, shape: torch.Size) -> torch.Tensor:
        """A column in the shape of the labels; with as many values for each token as it has."""
        first = packs[0][0]
        each = len(first[name]) // max(len(first[SEGMENTS_COLUMN]), 1)
        whole = name in _WHOLE_NUMBERS
        values = torch.zeros((*shape, each), dtype=torch.long if whole else torch.float32)
        for index, pack in enumerate(packs):
            row = torch.tensor([value for part in pack for value in part[name]], dtype=values.dtype).reshape(-1, each)
            where = slice(0, len(row)) if self.padding_side == "right" else slice(shape[1] - len(row), shape[1])
            values[index, where] = row
        return values if name.startswith("anchor") else values[..., 0]


def _without_ours(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OURS}
