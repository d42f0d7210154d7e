"""Intervals over seeds and items: both are samples, and which seeds and which items were drawn moves a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference in points, with its 95% interval by the hierarchical bootstrap.

    Attributes:
        mean: In points.
        low: Lower end of the interval; NaN with a single seed.
        high: Upper end.
        seeds: How many seeds.
        positive: In how many of them the difference is above 0.
        p: Two-sided, by the bootstrap: twice the smaller share of draws on one side of 0, at least 1 / `DRAWS`.
        detectable: The difference that this many seeds and items show with a power of 80%: 2.8 standard errors.
    """

    mean: float
    low: float
    high: float
    seeds: int
    positive: int
    p: float
    detectable: float

    def as_dict(self) -> dict[str, float]:
        """Plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:.1f}, {self.high:.1f}]"


def difference(values: Sequence[np.ndarray], *, same_items: bool, draws: int = DRAWS) -> Difference:
    """The mean of item differences, from -1 to 1, and its interval.

    Seeds are drawn with replacement, and items within them: the same ones for every seed where all seeds answered the same
    items, else each seed's own.

    Args:
        values: For each seed the differences of its items.
        same_items: Whether the items are the same for every seed.
        draws: Bootstrap draws.
    """
    generator = np.random.default_rng(0)
    seeds, means = len(values), np.array([item.mean() for item in values])
    chosen = generator.integers(seeds, size=(draws, seeds))
    if same_items:
        table, items = np.stack(values), len(values[0])
        drawn = np.empty(draws)
        for draw in range(draws):
            counts = np.bincount(generator.integers(items, size=items), minlength=items)
            drawn[draw] = (table @ counts)[chosen[draw]].mean() / items
    else:
        # A mean of items drawn with replacement is close to normal; its variance is the items' over their number.
        spread = np.array([item.std() / np.sqrt(len(item)) for item in values])
        drawn = (means[chosen] + spread[chosen] * generator.standard_normal(chosen.shape)).mean(1)
    low, high = np.percentile(100 * drawn, [2.5, 97.5])
    below, above = (drawn <= 0).mean(), (drawn >= 0).mean()
    return Difference(
        mean=round(100 * float(means.mean()), 2),
        low=round(float(low), 2) if seeds > 1 else float("nan"),
        high=round(float(high), 2) if seeds > 1 else float("nan"),
        seeds=seeds,
        positive=int((means > 0).sum()),
        p=max(min(1.0, 2 * float(min(below, above))), 1 / draws),
        detectable=round(2.8 * 100 * float(drawn.std()), 2),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order."""
    order = np.argsort(p_values)
    adjusted, largest = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return [float(value) for value in adjusted]


def bits(values: Sequence[bool] | np.ndarray) -> str:
    """Yes or no for each item, as hexadecimal digits."""
    return np.packbits(np.asarray(values, dtype=bool)).tobytes().hex()


def from_bits(text: str, items: int) -> np.ndarray:
    """The array behind `bits`, as 0.0 and 1.0."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:items].astype(float)
