"""The metrics that say what a judge's verdicts are worth: agreement with the rules, error rates, Acc corrected for them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class ErrorCounts(NamedTuple):
    """How often a judge was right and wrong about comparisons with known answers."""

    same_right: int
    same_wrong: int
    different_right: int
    different_wrong: int

    @property
    def sensitivity(self) -> float:
        """The share of same answers that it calls the same; NaN where there were none."""
        return self.same_right / total if (total := self.same_right + self.same_wrong) else math.nan

    @property
    def specificity(self) -> float:
        """The share of different answers that it calls different."""
        return self.different_right / total if (total := self.different_right + self.different_wrong) else math.nan


def fitness_metrics(fitness: Mapping[str, Any], acc: float, judged: float) -> dict[str, Any]:
    """The metrics of one item whose judge was measured.

    Args:
        fitness: ``judge_fitness`` of its record.
        acc: Whether it counts as correct.
        judged: Whether the judge decided that.
    """
    counts = ErrorCounts(*(int(fitness[name]) for name in ErrorCounts._fields))
    # The counts stand beside each item, so that a log alone is enough to correct its Acc.
    item = (acc, judged, *counts)
    return {
        "judge_fitness_kappa": float(fitness["kappa"]),
        "judge_sensitivity": counts.sensitivity,
        "judge_specificity": counts.specificity,
        "acc_corrected": item,
        "acc_corrected_low": item,
        "acc_corrected_high": item,
    }


def agreement(pairs: Iterable[Sequence[int] | None]) -> float:
    """The share of items on which rules and judge agree, of those that both decided; NaN where there are none."""
    decided = [pair for pair in pairs if pair is not None]
    if not decided:
        return math.nan
    return sum(rule == judge for rule, judge in decided) / len(decided)


def cohens_kappa(pairs: Iterable[Sequence[int] | None]) -> float:
    """Cohen's kappa of rules and judge over the items that both decided.

    Returns:
        (p_o - p_e) / (1 - p_e), NaN where it is undefined: no items, or both always gave the same one verdict.
    """
    decided = [pair for pair in pairs if pair is not None]
    if not decided:
        return math.nan
    rule_yes = sum(rule for rule, _ in decided) / len(decided)
    judge_yes = sum(judge for _, judge in decided) / len(decided)
    expected = rule_yes * judge_yes + (1 - rule_yes) * (1 - judge_yes)
    if expected == 1:
        return math.nan
    return (agreement(decided) - expected) / (1 - expected)


def same_for_all(values: Sequence[float]) -> float:
    """A figure that every item carries."""
    return values[0]


def acc_corrected(items: Sequence[Sequence[float]]) -> float:
    """Acc corrected for the judge's error rates; NaN where a judge no better than chance decided anything."""
    return _corrected(items)[0]


def acc_corrected_low(items: Sequence[Sequence[float]]) -> float:
    """The lower end of its 95% interval."""
    return _corrected(items)[1]


def acc_corrected_high(items: Sequence[Sequence[float]]) -> float:
    """The upper end of its 95% interval."""
    return _corrected(items)[2]


def _corrected(items: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    from sftkey.evaluation.statistics import rogan_gladen

    cells = Counter((bool(item[0]), bool(item[1])) for item in items)
    counts = ErrorCounts(*(int(count) for count in items[0][2:]))
    right, wrong, yes, no = (cells[key] for key in ((True, False), (False, False), (True, True), (False, True)))
    value, interval = rogan_gladen(right, wrong, yes, no, counts)
    return (value, interval.low, interval.high) if interval is not None else (math.nan,) * 3


AGGREGATIONS: Mapping[str, Callable[[Any], float]] = {
    "judge_agreement": agreement,
    "judge_kappa": cohens_kappa,
    "judge_fitness_kappa": same_for_all,
    "judge_sensitivity": same_for_all,
    "judge_specificity": same_for_all,
    "acc_corrected": acc_corrected,
    "acc_corrected_low": acc_corrected_low,
    "acc_corrected_high": acc_corrected_high,
}
"""How the metrics that aren't means are aggregated."""
