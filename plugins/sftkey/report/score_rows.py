"""The rows of the paper's tables: Score, Acc and Fmt by model, strategy and data set, with intervals and caveats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from sftkey.datasets.registry import DATASETS, PAPER
from sftkey.evaluation.results import METRICS, Evaluation
from sftkey.evaluation.samples import values_of
from sftkey.evaluation.statistics import Interval, average_interval, mean_interval
from sftkey.report.paper import AVERAGE, PUBLISHED
from sftkey.report.runs import Run, data_set_title, item_count, order_of

_T = TypeVar("_T", bound=Hashable)


@dataclass(frozen=True)
class Score:
    """One figure of a table.

    Attributes:
        value: The metric, between 0 and 1.
        interval: Its 95% interval; ``None`` where no items were logged.
        items: How many items it is over, where known.
        of: How many items the task has, where that is known to be more than `items`.
        paper: The paper's figure for the same model, strategy and data set.
        caveats: Why it can't simply be compared with the others of its column; full clauses.
        best: Whether it is the highest of its model and column, of those without caveats; of none where all are equal.
    """

    value: float
    interval: Interval | None
    items: int | None
    of: int | None = None
    paper: float | None = None
    caveats: tuple[str, ...] = ()
    best: bool = False


@dataclass
class ScoreRow:
    """One row: a model and a strategy (with what tells it from other such rows).

    Attributes:
        model: The model.
        strategy: The strategy.
        label: The row's name: the strategy, what it was trained on if that isn't the column's data set, the variant.
        transfer: Whether it was trained on other data than its columns name.
        evaluations: The evaluation behind each data set.
        scores: For each metric the scores by data set, and under `AVERAGE` the average where every data set of the model
            has one.
        missing: Why there is no score, by data set; under ``None`` for the data sets that aren't named.
    """

    model: str
    strategy: str
    label: str
    transfer: bool = False
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    missing: dict[str | None, str] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """The label without the strategy."""
        return self.label.removeprefix(self.strategy)


def score_rows(runs: Iterable[Run]) -> tuple[tuple[str, ...], tuple[ScoreRow, ...]]:
    """Compute every figure.

    Args:
        runs: All runs, ordered as the rows are to be.

    Returns:
        The data sets, which are the columns, in the paper's order, others after them; and the rows.
    """
    rows = _rows(runs)
    data_sets = _columns(rows)
    caveats = _caveats(rows, data_sets)
    for row in rows:
        peers = [other for other in rows if (other.model, other.transfer) == (row.model, row.transfer)]
        wanted = {name for other in peers for name in other.evaluations}
        for metric in METRICS:
            found = {name: _score(row, name, metric, caveats) for name in data_sets if name in row.evaluations}
            if len(found) == len(wanted) > 0:
                found[AVERAGE] = _average(row, found, metric)
            row.scores[metric] = found
    _mark_best(rows)
    return data_sets, tuple(rows)


def _rows(runs: Iterable[Run]) -> list[ScoreRow]:
    rows: dict[tuple[str, str], ScoreRow] = {}
    for run in runs:
        if not run.evaluations and run.stages[-1].method:
            data_set = run.trained_on[0] if len(run.trained_on) == 1 and run.trained_on[0] in DATASETS else None
            row = rows.setdefault((run.model, run.label()), ScoreRow(run.model, run.strategy, run.label()))
            row.missing[data_set] = "trained, not evaluated" if run.finished else "training has not finished"
        for data_set, evaluation in run.evaluations.items():
            label = run.label(data_set)
            taken = rows.get((run.model, label))
            if taken is not None and data_set in taken.evaluations:
                label = f"{label}, {run.directory}"
            row = rows.setdefault(
                (run.model, label), ScoreRow(run.model, run.strategy, label, run.is_transfer(data_set))
            )
            row.evaluations[data_set] = evaluation
    return sorted(rows.values(), key=lambda row: (row.model.lower(), *order_of(row.strategy), row.label))


def _columns(rows: Iterable[ScoreRow]) -> tuple[str, ...]:
    present = {name for row in rows for name in row.evaluations}
    known = [name for name in DATASETS if name in present]
    return (*known, *sorted(present - set(known)))


def _caveats(rows: Iterable[ScoreRow], data_sets: Iterable[str]) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """What sets a score apart from most others of its column: other items, another lm-eval, another judge."""
    rows = list(rows)
    caveats: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for name in data_sets:
        column = [(row, row.evaluations[name]) for row in rows if name in row.evaluations]
        usual = {
            # str: of two versions that are as common, the newer one
            setting: _most_common((one.settings.get(setting) for _, one in column), rank=str)
            for setting in sorted({setting for _, one in column for setting in one.settings})
        }
        item_sets = {id(one): frozenset(one.items["key"]) for _, one in column if one.items is not None}
        usual_items = _most_common(item_sets.values(), rank=len)
        for row, one in column:
            found = [
                f"{setting} {one.settings.get(setting, 'unknown')}, others {value}"
                for setting, value in usual.items()
                if one.settings.get(setting) != value
            ]
            if one.items is None:
                found.append("no items logged: no interval, no test")
                if usual_items is not None and item_count(one) not in (None, len(usual_items)):
                    found.append(f"{one.count} items, others {len(usual_items)}")
            elif usual_items is not None and item_sets[id(one)] != usual_items:
                shared = len(item_sets[id(one)] & usual_items)
                found.append(f"other items: {item_count(one)}, others {len(usual_items)}, {shared} shared")
            caveats[(row.model, row.label, name)] = tuple(found)
    return caveats


def _most_common(values: Iterable[_T], rank: Callable[[_T], Any]) -> _T | None:
    """The value that occurs most often; on a tie the one of the highest rank."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], rank(value)), default=None)


def _score(row: ScoreRow, data_set: str, metric: str, caveats: Mapping[tuple[str, str, str], tuple[str, ...]]) -> Score:
    evaluation = row.evaluations[data_set]
    items, count = evaluation.items, item_count(evaluation)
    return Score(
        value=evaluation.reported[metric],
        interval=mean_interval(values_of(items, metric)) if items is not None else None,
        items=count,
        of=evaluation.available if (evaluation.available or 0) > (count or 0) > 0 else None,
        paper=_published(row, data_set, metric),
        caveats=caveats[(row.model, row.label, data_set)],
    )


def _average(row: ScoreRow, scores: Mapping[str, Score], metric: str) -> Score:
    logged = [row.evaluations[name].items for name in scores]
    groups = [values_of(items, metric) for items in logged if items is not None]
    caveats = [f"{data_set_title(name)}: {caveat}" for name, score in scores.items() for caveat in score.caveats]
    caveats = caveats or _mixed_versions(row)
    return Score(
        value=float(np.mean([score.value for score in scores.values()])),
        interval=average_interval(groups) if len(groups) == len(scores) else None,
        items=sum(score.items for score in scores.values() if score.items) or None,
        of=sum(score.of or score.items or 0 for score in scores.values())
        if any(score.of for score in scores.values())
        else None,
        paper=_published(row, AVERAGE, metric) if set(scores) == set(PAPER) else None,
        caveats=tuple(dict.fromkeys(caveats)),
    )


def _mixed_versions(row: ScoreRow) -> list[str]:
    versions = sorted({one.settings.get("lm-eval", "unknown") for one in row.evaluations.values()})
    return [f"averages figures of lm-eval {' and '.join(versions)}"] if len(versions) > 1 else []


def _published(row: ScoreRow, data_set: str, metric: str) -> float | None:
    if row.transfer:
        return None
    return PUBLISHED.get(metric, {}).get(row.model, {}).get(row.strategy, {}).get(data_set)


def _mark_best(rows: Iterable[ScoreRow]) -> None:
    by_column: dict[tuple[str, str, str], list[tuple[ScoreRow, Score]]] = defaultdict(list)
    for row in rows:
        for metric, scores in row.scores.items():
            for name, score in scores.items():
                if not score.caveats:
                    by_column[(row.model, metric, name)].append((row, score))
    for (_, metric, name), found in by_column.items():
        for row, score in leaders(found):
            row.scores[metric][name] = replace(score, best=True)


def leaders(found: Sequence[tuple[ScoreRow, Score]]) -> list[tuple[ScoreRow, Score]]:
    """Those with the highest value, several where they tie; none where all are equal, or there is only one."""
    highest = max(score.value for _, score in found)
    # Score is a sum of products: equal figures may be a few 1e-17 apart.
    best = [(row, score) for row, score in found if highest - score.value < 1e-9]
    return best if len(best) < len(found) else []
