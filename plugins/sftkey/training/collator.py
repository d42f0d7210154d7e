"""Batches with the segment of each token beside its label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sftkey.format.segments import Segment

SEGMENTS_COLUMN = "segments"


class SegmentCollator:
    """Carries the ``segments`` column through a collator that doesn't know it.

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
        """Collate rows; adds ``segments`` of the same shape as ``labels``, with `Segment.PROMPT` as padding."""
        packs = [pack if isinstance(pack, list) else [pack] for pack in features]
        if not all(SEGMENTS_COLUMN in row for pack in packs for row in pack):
            return self.collator(features, **kwargs)
        stripped: list[Any] = [
            [_without_segments(row) for row in pack] if isinstance(pack, list) else _without_segments(pack)
            for pack in features
        ]
        batch = self.collator(stripped, **kwargs)
        rows = [[value for row in pack for value in row[SEGMENTS_COLUMN]] for pack in packs]
        height, width = batch["labels"].shape
        if height != len(rows):
            # The collator concatenated a flat list of rows into one packed sequence.
            rows = [[value for row in rows for value in row]]
        segments = torch.full((height, width), int(Segment.PROMPT), dtype=torch.long)
        for index, row in enumerate(rows):
            values = torch.tensor(row, dtype=torch.long)
            if self.padding_side == "right":
                segments[index, : len(row)] = values
            else:
                segments[index, width - len(row) :] = values
        batch[SEGMENTS_COLUMN] = segments
        return batch


def _without_segments(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != SEGMENTS_COLUMN}
