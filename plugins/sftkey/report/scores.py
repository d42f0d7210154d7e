"""The cells of the paper's tables: Score, Acc, Fmt by model, strategy and data set, with intervals and paired tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd

from sftkey.evaluation.results import METRICS, Evaluation
from sftkey.evaluation.samples import values_of
from sftkey.evaluation.statistics import (
    SIGNIFICANT,
    Interval,
    PairedTest,
    average_interval,
    compare,
    compare_average,
    holm,
    mean_interval,
)
from sftkey.report.paper import AVERAGE, PUBLISHED
from sftkey.report.runs import BASELINE, DATA_SETS, Run, order_of


@dataclass(frozen=True)
class Cell:
    """One figure of a table.

    Attributes:
        value: The metric, between 0 and 1.
        interval: Its 95% interval; ``None`` where no items were logged.
        items: How many items it is over, where known.
        of: How many items the task has, where that is known to be more than `items`.
        paper: The paper's figure for the same model, strategy and data set.
        caveats: Why it can't simply be compared with the others of its column; full clauses.
        best: Whether it is the highest of its model and column, of those without caveats.
    """

    value: float
    interval: Interval | None
    items: int | None
    of: int | None = None
    paper: float | None = None
    caveats: tuple[str, ...] = ()
    best: bool = False


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


@dataclass
class Row:
    """One row: a model and a strategy (with what tells it from other such rows).

    Attributes:
        model: The model.
        strategy: The strategy.
        label: The row's name: the strategy, what it was trained on if that isn't the column's data set, the variant.
        transfer: Whether it was trained on other data than its columns name.
        evaluations: The evaluation behind each data set.
        cells: For each metric the cells by data set, and under `AVERAGE` the average where every data set of the model
            has a cell.
        missing: Why there is no cell, by data set; under ``None`` for those that aren't named.
    """

    model: str
    strategy: str
    label: str
    transfer: bool = False
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    missing: dict[str | None, str] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """The label without the strategy."""
        return self.label.removeprefix(self.strategy)


@dataclass(frozen=True)
class Matrix:
    """All figures.

    Attributes:
        data_sets: The columns, in the paper's order, others after them.
        rows: The rows, by model and in the order of the paper's tables.
        comparisons: Every pair of rows of one model that can be compared, by data set and metric.
    """

    data_sets: tuple[str, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the rows."""
        return tuple(dict.fromkeys(row.model for row in self.rows))

    def rows_of(self, model: str) -> list[Row]:
        """The rows of one model."""
        return [row for row in self.rows if row.model == model]

    def baseline(self, row: Row) -> Row | None:
        """The SFT row that a row is compared with: of the same variant, else the model's only one."""
        candidates = [one for one in self.rows_of(row.model) if one.strategy == BASELINE]
        same = [one for one in candidates if one.suffix == row.suffix]
        found = same or candidates
        return found[0] if len(found) == 1 and found[0] is not row else None

    def comparison(self, first: Row, second: Row, data_set: str, metric: str) -> Comparison | None:
        """The comparison of two rows, second minus first."""
        found = self._index.get((first.model, data_set, metric, first.label, second.label))
        reverse = self._index.get((first.model, data_set, metric, second.label, first.label))
        return found or (
            replace(reverse, first=first.label, second=second.label, test=reverse.test.reversed) if reverse else None
        )

    @property
    def _index(self) -> dict[tuple[str, str, str, str, str], Comparison]:
        found = self.__dict__.get("_by_pair")
        if found is None:
            found = {(one.model, one.data_set, one.metric, one.first, one.second): one for one in self.comparisons}
            object.__setattr__(self, "_by_pair", found)
        return found


def data_set_title(name: str) -> str:
    """A data set's name as the paper writes it."""
    return "Average" if name == AVERAGE else DATA_SETS.get(name, name)


def matrix_of(runs: Iterable[Run]) -> Matrix:
    """Compute every cell and every comparison.

    Args:
        runs: All runs, ordered as the rows are to be.
    """
    rows = _rows(runs)
    data_sets = _columns(rows)
    caveats = _caveats(rows, data_sets)
    for row in rows:
        for metric in METRICS:
            cells = {name: _cell(row, name, metric, caveats) for name in data_sets if name in row.evaluations}
            peers = [other for other in rows if (other.model, other.transfer) == (row.model, row.transfer)]
            wanted = {name for other in peers for name in other.evaluations}
            if len(cells) == len(wanted) > 0:
                cells[AVERAGE] = _average(row, cells, metric)
            row.cells[metric] = cells
    _mark_best(rows)
    return Matrix(data_sets, tuple(rows), tuple(_comparisons(rows, data_sets)))


def _rows(runs: Iterable[Run]) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for run in runs:
        if not run.evaluations and run.stages[-1].method is not None:
            data_set = run.trained_on[0] if len(run.trained_on) == 1 and run.trained_on[0] in DATA_SETS else None
            row = rows.setdefault((run.model, run.label()), Row(run.model, run.strategy, run.label()))
            row.missing[data_set] = "trained, not evaluated" if run.finished else "training has not finished"
        for data_set, evaluation in run.evaluations.items():
            label = run.label(data_set)
            taken = rows.get((run.model, label))
            if taken is not None and data_set in taken.evaluations:
                label = f"{label}, {run.directory}"
            row = rows.setdefault((run.model, label), Row(run.model, run.strategy, label, run.is_transfer(data_set)))
            row.evaluations[data_set] = evaluation
    return sorted(rows.values(), key=lambda row: (row.model.lower(), *order_of(row.strategy), row.label))


def _columns(rows: Iterable[Row]) -> tuple[str, ...]:
    present = {name for row in rows for name in row.evaluations}
    known = [name for name in DATA_SETS if name in present]
    return (*known, *sorted(present - set(known)))


def _caveats(rows: Iterable[Row], data_sets: Iterable[str]) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """What sets a cell apart from most others of its column: other items, another lm-eval, another judge."""
    rows = list(rows)
    caveats: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for name in data_sets:
        column = [(row, row.evaluations[name]) for row in rows if name in row.evaluations]
        usual = {
            setting: _most_common(one.settings.get(setting) for _, one in column)
            for setting in sorted({setting for _, one in column for setting in one.settings})
        }
        item_sets = {id(one): frozenset(one.items["key"]) for _, one in column if one.items is not None}
        usual_items = _most_common(item_sets.values(), largest=True)
        for row, one in column:
            found = [
                f"{setting} {one.settings.get(setting, 'unknown')}, others {value}"
                for setting, value in usual.items()
                if one.settings.get(setting) != value and not (setting == "judge" and one.items is None)
            ]
            if one.items is None:
                found.append("no items logged: no interval, no test")
                if usual_items is not None and one.count is not None and one.count != len(usual_items):
                    found.append(f"{one.count} items, others {len(usual_items)}")
            elif usual_items is not None and item_sets[id(one)] != usual_items:
                shared = len(item_sets[id(one)] & usual_items)
                found.append(f"other items: {one.count}, others {len(usual_items)}, {shared} shared")
            caveats[(row.model, row.label, name)] = tuple(found)
    return caveats


def _most_common(values: Iterable, largest: bool = False):  # type: ignore[no-untyped-def]
    """The value that occurs most often; on a tie the largest, else the one that sorts last (the newest version)."""
    counts = Counter(values)
    if not counts:
        return None
    return max(counts, key=lambda value: (counts[value], len(value) if largest else str(value)))


def _cell(row: Row, data_set: str, metric: str, caveats: Mapping[tuple[str, str, str], tuple[str, ...]]) -> Cell:
    evaluation = row.evaluations[data_set]
    items = evaluation.items
    return Cell(
        value=evaluation.reported[metric],
        interval=mean_interval(values_of(items, metric)) if items is not None else None,
        items=evaluation.count,
        of=evaluation.available if (evaluation.available or 0) > (evaluation.count or 0) > 0 else None,
        paper=_published(row, data_set, metric),
        caveats=caveats[(row.model, row.label, data_set)],
    )


def _average(row: Row, cells: Mapping[str, Cell], metric: str) -> Cell:
    logged = [row.evaluations[name].items for name in cells]
    groups = [values_of(items, metric) for items in logged if items is not None]
    caveats = [f"{data_set_title(name)}: {caveat}" for name, cell in cells.items() for caveat in cell.caveats]
    caveats = caveats or _mixed_versions(row)
    return Cell(
        value=float(np.mean([cell.value for cell in cells.values()])),
        interval=average_interval(groups) if len(groups) == len(cells) else None,
        items=sum(cell.items for cell in cells.values() if cell.items) or None,
        of=sum(cell.of or cell.items or 0 for cell in cells.values())
        if any(cell.of for cell in cells.values())
        else None,
        paper=_published(row, AVERAGE, metric) if set(cells) == set(DATA_SETS) else None,
        caveats=tuple(dict.fromkeys(caveats)),
    )


def _mixed_versions(row: Row) -> list[str]:
    versions = sorted({one.settings.get("lm-eval", "unknown") for one in row.evaluations.values()})
    return [f"averages figures of lm-eval {' and '.join(versions)}"] if len(versions) > 1 else []


def _published(row: Row, data_set: str, metric: str) -> float | None:
    if row.transfer:
        return None
    return PUBLISHED.get(metric, {}).get(row.model, {}).get(row.strategy, {}).get(data_set)


def _mark_best(rows: Iterable[Row]) -> None:
    by_column: dict[tuple[str, str, str], list[tuple[Row, Cell]]] = defaultdict(list)
    for row in rows:
        for metric, cells in row.cells.items():
            for name, cell in cells.items():
                if not cell.caveats:
                    by_column[(row.model, metric, name)].append((row, cell))
    for (_, metric, name), found in by_column.items():
        highest = max(cell.value for _, cell in found)
        for row, cell in found:
            if len(found) > 1 and cell.value == highest:
                row.cells[metric][name] = replace(cell, best=True)


def _comparisons(rows: list[Row], data_sets: Iterable[str]) -> list[Comparison]:
    comparisons: list[Comparison] = []
    shared = _SharedItems()
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        pairs = [(first, second) for first, second in combinations(own, 2) if _belong_together(first, second, own)]
        for metric in METRICS:
            for name in data_sets:
                comparisons += _adjusted([_compare(first, second, name, metric, shared) for first, second in pairs])
            comparisons += _adjusted([_compare_averages(first, second, metric, shared) for first, second in pairs])
    return comparisons


def _belong_together(first: Row, second: Row, rows: Iterable[Row]) -> bool:
    """Same variant (a seed of one strategy isn't compared with another seed of another), or one has no variants.

    A strategy that was run once is compared with every run of the others: with several Stage 1 and one Stage 2, say.
    """
    if first.suffix == second.suffix:
        return True
    if first.strategy != second.strategy and first.transfer == second.transfer and not (first.suffix and second.suffix):
        return True
    baselines = [row for row in rows if row.strategy == BASELINE]
    return len(baselines) == 1 and baselines[0] in (first, second)


def _adjusted(comparisons: Iterable[Comparison | None]) -> list[Comparison]:
    found = [one for one in comparisons if one is not None]
    return [replace(one, adjusted_p=p) for one, p in zip(found, holm([one.test.p for one in found]), strict=True)]


class _SharedItems:
    """The items that both of two rows answered, looked up once for all metrics."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], pd.DataFrame] = {}

    def of(self, first: Row, second: Row, data_set: str) -> pd.DataFrame | None:
        """Each metric of both rows per item, with ``_first`` and ``_second`` behind its name; ``None`` for no items."""
        one, other = first.evaluations.get(data_set), second.evaluations.get(data_set)
        if one is None or other is None or one.items is None or other.items is None:
            return None
        pair = (id(one), id(other))
        if pair not in self._found:
            columns = ["key", *METRICS]
            merged = one.items[columns].merge(other.items[columns], on="key", suffixes=("_first", "_second"))
            self._found[pair] = merged
        return self._found[pair] if len(self._found[pair]) else None


def _compare(first: Row, second: Row, data_set: str, metric: str, shared: _SharedItems) -> Comparison | None:
    items = shared.of(first, second, data_set)
    if items is None:
        return None
    test = compare(items[f"{metric}_first"].to_numpy(float), items[f"{metric}_second"].to_numpy(float))
    caveats = _unlike(first, second, data_set, len(items))
    return Comparison(first.model, data_set, metric, first.label, second.label, test, test.p, caveats)


def _compare_averages(first: Row, second: Row, metric: str, shared: _SharedItems) -> Comparison | None:
    """The difference of two averages: only over the same data sets, each on the items that both answered."""
    if AVERAGE not in first.cells[metric] or AVERAGE not in second.cells[metric] or len(first.evaluations) < 2:
        return None
    groups, caveats = [], []
    for name in first.evaluations:
        items = shared.of(first, second, name)
        if items is None:
            return None
        groups.append((items[f"{metric}_first"].to_numpy(float), items[f"{metric}_second"].to_numpy(float)))
        caveats += [f"{data_set_title(name)}: {caveat}" for caveat in _unlike(first, second, name, len(items))]
    test = compare_average(groups)
    return Comparison(first.model, AVERAGE, metric, first.label, second.label, test, test.p, tuple(caveats))


def _unlike(first: Row, second: Row, data_set: str, shared: int) -> tuple[str, ...]:
    one, other = first.evaluations[data_set], second.evaluations[data_set]
    caveats = [
        f"{name}: {one.settings.get(name, 'unknown')} and {other.settings.get(name, 'unknown')}"
        for name in sorted({*one.settings, *other.settings})
        if one.settings.get(name) != other.settings.get(name)
    ]
    if one.items is not None and other.items is not None and not shared == len(one.items) == len(other.items):
        caveats.append(f"only the {shared} items that both answered, of {len(one.items)} and {len(other.items)}")
    return tuple(caveats)
