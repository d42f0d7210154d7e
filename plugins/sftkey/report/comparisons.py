"""Paired tests of two rows of one model, on the items that both answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import pandas as pd

from sftkey.evaluation.results import METRICS
from sftkey.evaluation.statistics import SIGNIFICANT, PairedTest, holm, paired_test, paired_test_of_averages
from sftkey.report.paper import AVERAGE
from sftkey.report.runs import BASELINE, data_set_title
from sftkey.report.score_rows import ScoreRow


@dataclass(frozen=True)
class Comparison:
    """Two rows of one model on one data set (or on average), on the items that both answered.

    Attributes:
        model: The model.
        data_set: The data set, or `AVERAGE`.
        metric: ``score``, ``acc`` or ``fmt``.
        first: The row compared with.
        second: The row that is compared; the difference is its figure minus the first's.
        test: Difference, interval and p-value.
        adjusted_p: The p-value after Holm's adjustment over all pairs of the same model, data set and metric.
        caveats: Why the comparison is not of like with like; full clauses.
    """

    model: str
    data_set: str
    metric: str
    first: str
    second: str
    test: PairedTest
    adjusted_p: float
    caveats: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 5% after the adjustment."""
        return self.adjusted_p < SIGNIFICANT

    @property
    def remark(self) -> str:
        """Why interval and verdict don't say the same; empty where they do."""
        return disagreement(self.test, self.adjusted_p)


def disagreement(test: PairedTest, adjusted_p: float) -> str:
    """Why the bootstrap's interval and the test don't say the same of a difference; empty where they do.

    Args:
        test: The test with its interval.
        adjusted_p: Its p-value after an adjustment for several pairs.
    """
    without_zero = test.interval.low > 0 or test.interval.high < 0
    if without_zero == (adjusted_p < SIGNIFICANT):
        return ""
    what = {"McNemar (exact)": "McNemar's exact test"}.get(test.test, f"the {test.test} test")
    if not without_zero:
        return f"the bootstrap's interval touches 0, {what} counts: it needs no approximation"
    if test.p < SIGNIFICANT:
        return (
            "the interval excludes 0 and is that of this pair alone; adjusted for the number of pairs (Holm) the difference "
            "is not significant"
        )
    few = "few items" if test.first_only is None else f"{test.first_only + (test.second_only or 0)} items that differ"
    return (
        f"the bootstrap's interval excludes 0, {what} does not reject and counts: with {few} resampling shows too little of "
        "what chance can do"
    )


def comparisons_of(rows: Sequence[ScoreRow], data_sets: Sequence[str]) -> list[Comparison]:
    """Compare every pair of rows of one model that belong together, by metric and data set, and on average.

    Args:
        rows: All rows.
        data_sets: The columns.
    """
    comparisons: list[Comparison] = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        pairs = [(first, second) for first, second in combinations(own, 2) if _belong_together(first, second, own)]
        shared = {
            (first.label, second.label, name): _shared_items(first, second, name)
            for first, second in pairs
            for name in data_sets
        }
        for metric, name in product(METRICS, (*data_sets, AVERAGE)):
            comparisons += _adjusted(_compare(first, second, name, metric, shared) for first, second in pairs)
    return comparisons


def _belong_together(first: ScoreRow, second: ScoreRow, rows: Sequence[ScoreRow]) -> bool:
    """Same variant (a seed of one strategy isn't compared with another seed of another), or one has no variants.

    A strategy that was run once is compared with every run of the others: with several Stage 1 and one Stage 2, say.
    """
    if first.suffix == second.suffix:
        return True
    once = [row for row in (first, second) if not row.suffix or [one.strategy for one in rows].count(row.strategy) == 1]
    if first.strategy != second.strategy and first.transfer == second.transfer and once:
        return True
    baselines = [row for row in rows if row.strategy == BASELINE]
    return len(baselines) == 1 and baselines[0] in (first, second)


def _adjusted(comparisons: Iterable[Comparison | None]) -> list[Comparison]:
    found = [one for one in comparisons if one is not None]
    return [replace(one, adjusted_p=p) for one, p in zip(found, holm([one.test.p for one in found]), strict=True)]


def _shared_items(first: ScoreRow, second: ScoreRow, data_set: str) -> pd.DataFrame | None:
    """The items that both answered, with columns ``acc_first``, ``acc_second`` and so on; ``None`` for no items."""
    one, other = (row.evaluations[data_set].items if data_set in row.evaluations else None for row in (first, second))
    if one is None or other is None:
        return None
    columns = ["key", *METRICS]
    merged = one[columns].merge(other[columns], on="key", suffixes=("_first", "_second"))
    return merged if len(merged) else None


def _compare(
    first: ScoreRow,
    second: ScoreRow,
    data_set: str,
    metric: str,
    shared: Mapping[tuple[str, str, str], pd.DataFrame | None],
) -> Comparison | None:
    """Compare on one data set, or two averages over the same data sets, on the items that both answered."""
    names, average = [data_set], data_set == AVERAGE
    if average:
        if AVERAGE not in first.scores[metric] or AVERAGE not in second.scores[metric] or len(first.evaluations) < 2:
            return None
        names = list(first.evaluations)
    pairs, caveats = [], []
    for name in names:
        items = shared[(first.label, second.label, name)]
        if items is None:
            return None
        pairs.append((items[f"{metric}_first"].to_numpy(float), items[f"{metric}_second"].to_numpy(float)))
        where = f"{data_set_title(name)}: " if average else ""
        caveats += [where + caveat for caveat in _unlike(first, second, name, len(items))]
    test = paired_test_of_averages(pairs) if average else paired_test(*pairs[0])
    return Comparison(first.model, data_set, metric, first.label, second.label, test, test.p, tuple(caveats))


def _unlike(first: ScoreRow, second: ScoreRow, data_set: str, shared: int) -> tuple[str, ...]:
    one, other = first.evaluations[data_set], second.evaluations[data_set]
    caveats = [
        f"{name}: {one.settings.get(name, 'unknown')} and {other.settings.get(name, 'unknown')}"
        for name in sorted({*one.settings, *other.settings})
        if one.settings.get(name) != other.settings.get(name)
    ]
    if one.items is not None and other.items is not None and not shared == len(one.items) == len(other.items):
        caveats.append(f"only the {shared} items that both answered, of {len(one.items)} and {len(other.items)}")
    return tuple(caveats)
