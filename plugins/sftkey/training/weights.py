"""What a token weighs in the loss, and how that changes over training.

Weights generalise the methods: ``sft-tag`` is thinking 1, format 1, answer 1 (Eq. 1), ``key-tag`` is thinking 0, format
1, answer 1 (Eq. 4). Moving from the one to the other over training is the one-stage alternative to the two stages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from sftkey.format.methods import Method
from sftkey.format.segments import SEGMENT_GROUPS, Segment
from sftkey.training.tokenization import IGNORE_INDEX

AROUND_THINKING = frozenset({Segment.THINKING_OPEN, Segment.THINKING_CLOSE})


def token_weights(labels: torch.Tensor, segments: torch.Tensor | None, weights: torch.Tensor | None) -> torch.Tensor:
    """The weight of each token in the loss: that of its segment if the token has a label, else 0.

    The loss, its normaliser and the cut of the context (`sftkey.training.context_grad`) all follow from this function.

    Args:
        labels: Any shape; the token id where a token is trained, else `IGNORE_INDEX`.
        segments: The `Segment` of each token, in the shape of `labels`; may be None without `weights`.
        weights: Shape ``(8,)``, the weight of each segment (`weights_at`); None for 1 everywhere.

    Returns:
        Shape and device of `labels`, float32.

    Raises:
        ValueError: `weights` without `segments`.
    """
    labelled = labels != IGNORE_INDEX
    if weights is None:
        return labelled.float()
    if segments is None:
        raise ValueError("weights per segment need the segment of every token; `segments` is None")
    return weights.to(labels.device, torch.float32)[segments.long()] * labelled


def segment_weights(groups: Mapping[str, float] | None, method: Method) -> torch.Tensor:
    """The weight of each segment.

    The tags around the thinking are format, and weigh nothing where the thinking weighs nothing: thinking 0, format 1,
    answer 1 is exactly what ``key-tag`` trains.

    Args:
        groups: Weight by name of `SEGMENT_GROUPS` (thinking, format, answer). A name that is left out keeps what the
            method gives its segments: 1 where it trains them, else 0.
        method: The stage's method.

    Returns:
        Shape ``(8,)``, float32, indexed by `Segment`; the prompt's is 0.

    Raises:
        ValueError: An unknown name, a weight that is not a finite number of at least 0, or nothing left to train.
    """
    weights = torch.tensor([float(segment in method.trained) for segment in Segment])
    for name, weight in (groups or {}).items():
        if name not in SEGMENT_GROUPS:
            raise ValueError(f"there is no segment {name!r} to weight; the names are {', '.join(SEGMENT_GROUPS)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"the weight of {name} is {weight!r}; it has to be a finite number of at least 0")
        weights[sorted(SEGMENT_GROUPS[name])] = float(weight)
    if weights[Segment.THINKING] == 0:
        weights[sorted(AROUND_THINKING)] = 0
    if not weights.any():
        raise ValueError(f"with segment weights {dict(groups or {})} the method {method.name} trains nothing")
    return weights


def weights_at(start: torch.Tensor, end: torch.Tensor | None, progress: float) -> torch.Tensor:
    """The weights at a point of training, on the straight line from the first to the last.

    Args:
        start: Weights at the first optimizer step, shape ``(8,)``.
        end: Weights at the last one, shape ``(8,)``; None if they don't change.
        progress: 0 at the first step, 1 at the last; clipped to that range. Both ends are met exactly.
    """
    if end is None:
        return start
    return torch.lerp(start, end, min(max(progress, 0.0), 1.0))


def trained_segments(start: torch.Tensor, end: torch.Tensor | None = None) -> frozenset[Segment]:
    """The segments that weigh something at some time: those whose tokens need labels."""
    ever = start > 0 if end is None else (start > 0) | (end > 0)
    return frozenset(segment for segment in Segment if ever[segment])


def stage_weights(
    method: Method, start: Mapping[str, float] | None, end: Mapping[str, float] | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The weights of a stage as a recipe gives them.

    Args:
        method: The stage's method.
        start: ``sftkey_segment_weights``; None for the method's own weights.
        end: ``sftkey_segment_schedule``; None if the weights don't change.

    Returns:
        Weights at the first and at the last step; ``(None, None)`` where the recipe sets neither, so that the labels
        alone decide.

    Raises:
        ValueError: See `segment_weights`.
    """
    if not start and not end:
        return None, None
    return segment_weights(start, method), segment_weights(end, method) if end else None


def weighted_method(method: Method, start: Mapping[str, float] | None, end: Mapping[str, float] | None) -> Method:
    """A method that labels the segments that weigh something at some time of a stage. Arguments as `stage_weights`."""
    first, last = stage_weights(method, start, end)
    return method if first is None else replace(method, trained=trained_segments(first, last))
