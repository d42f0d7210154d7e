"""Which way a metric of the trainer is better: what chooses checkpoints and ends training early goes by it."""

from __future__ import annotations

import re

from sftkey.format.segments import SEGMENT_GROUPS

_METRIC = re.compile(rf"(?:^|_)(loss|acc)_(?:{'|'.join(SEGMENT_GROUPS)})$")


def greater_is_better(metric: str) -> bool | None:
    """Whether a higher value of a metric is better.

    Args:
        metric: Its name, with or without ``eval_`` and the name of an evaluation split before it.

    Returns:
        ``None`` for a metric of others, of which that isn't known.
    """
    found = _METRIC.search(metric)
    if found:
        return found[1] == "acc"
    return False if re.search(r"(?:^|_)(?:loss|ppl|perplexity)$", metric) else None
