"""What Acc is made of, over the seeds of one run, and what of it differs from a control.

So that "better because it is shorter" and "better because it stops" are seen beside Acc. It takes plain numbers per item,
which the samples of lm-eval and the experiment kit both give.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from sftkey.evaluation.seeds import Estimate, Matrix, detectable, difference_over, mean_over, ratio_over
from sftkey.evaluation.statistics import holm
from sftkey.format.response_format import FormatFailure

Name = TypeVar("Name")

CUT_OFF = (FormatFailure.THINKING_CUT_OFF.value, FormatFailure.ANSWER_CUT_OFF.value)
"""The format failures of an output that opened its thinking or its answer and never closed it."""

MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "acc": "share of items with the right answer",
        "fmt": "share of outputs in exactly the expected format",
        "score": "0.7 Acc + 0.3 Fmt",
        "acc_well_formed": "Acc among the outputs in the expected format",
        "thinking_right": "share of outputs whose own thinking is right, where the data set can check it",
        "acc_given_reference": "Acc with the reference thinking in place of the model's own",
        "length": "characters of an output",
        "cut_off": "share of outputs that opened thinking or answer and never closed it",
    }
)
"""The name of each figure and what it is."""

COMPARED = ("acc", "fmt", "score", "thinking_right", "acc_given_reference", "cut_off")
"""The figures that are shares over all items, so that two runs can be compared in pairs."""


Items = Mapping[str, Mapping[str, float]]
"""One run, of one seed: for each of `MEASURES` but ``acc_well_formed`` the items' numbers, by what tells the items apart."""

Runs = Mapping[int, Items]
"""The runs of one objective, by seed."""


@dataclass(frozen=True)
class Comparison:
    """Two runs in one measure.

    Attributes:
        measure: One of `COMPARED`.
        difference: The second minus the first.
        adjusted_p: Its p-value, adjusted for the number of comparisons of this measure (Holm).
        detectable: The difference that so many seeds and items would have shown in 80 of 100 cases; ``None`` where it isn't
            known.
        seeds: The seeds that both have.
        comparisons: The number of comparisons of this measure.
    """

    measure: str
    difference: Estimate
    adjusted_p: float
    detectable: float | None
    seeds: tuple[int, ...]
    comparisons: int


def decompose(runs: Runs) -> dict[str, Estimate]:
    """Every figure that was measured, over the seeds and the items that all seeds have, in the order of `MEASURES`."""
    found: dict[str, Estimate] = {}
    for measure in MEASURES:
        if measure == "acc_well_formed":
            for acc, fmt in _matrices([runs], "acc", "fmt"):
                share = ratio_over(acc * fmt, fmt)
                found |= {} if share is None else {measure: share}
        else:
            for (values,) in _matrices([runs], measure):
                found[measure] = mean_over(values, (0.0, math.inf if measure == "length" else 1.0))
    return found


def compare(pairs: Mapping[Name, tuple[Runs, Runs]]) -> dict[Name, list[Comparison]]:
    """Compare runs in pairs of the same seed and item.

    Args:
        pairs: By a name of the comparison the runs that are compared with, such as the control's, and those compared.

    Returns:
        The comparisons of each pair in the measures that both have. The family that Holm's adjustment is over is all pairs
        in one measure.
    """
    found: dict[Name, list[Comparison]] = {name: [] for name in pairs}
    for measure in COMPARED:
        tested: dict[Name, tuple[tuple[int, ...], Estimate]] = {}
        for name, both in pairs.items():
            seeds = tuple(sorted(set(both[0]) & set(both[1])))
            values = _matrices([{seed: runs[seed] for seed in seeds} for runs in both], measure)
            if values:
                (first,), (second,) = values
                tested[name] = (seeds, difference_over(first, second))
        adjusted = holm([1.0 if estimate.p is None else estimate.p for _, estimate in tested.values()])
        for (name, (shared, estimate)), p in zip(tested.items(), adjusted, strict=True):
            least = detectable(estimate, len(tested))
            found[name].append(Comparison(measure, estimate, p, least, shared, len(tested)))
    return found


def _matrices(groups: Sequence[Runs], *measures: str) -> list[list[Matrix]]:
    """For each group and measure a matrix of seeds and items, over the items that all runs have; empty without any."""
    runs = [group[seed] for group in groups for seed in sorted(group)]
    if not runs or not all(group for group in groups):
        return []
    columns = [run.get(measure, {}) for run in runs for measure in measures]
    keys = [key for key in columns[0] if all(key in column for column in columns)]
    if not keys:
        return []
    return [
        [
            np.array([[group[seed][measure][key] for key in keys] for seed in sorted(group)], float)
            for measure in measures
        ]
        for group in groups
    ]


def unshared(runs: Sequence[Items]) -> int:
    """How many items some runs have an answer to and others don't; they are in none of the figures."""
    answered = Counter(key for run in runs for key in run.get("acc", ()))
    return sum(count < len(runs) for count in answered.values())
