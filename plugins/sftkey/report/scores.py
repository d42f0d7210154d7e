"""All figures of the report: the rows of the tables and the comparisons between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from sftkey.report.comparisons import Comparison, comparisons_of
from sftkey.report.runs import BASELINE, Run
from sftkey.report.score_rows import ScoreRow, score_rows


@dataclass(frozen=True)
class Scores:
    """All figures.

    Attributes:
        data_sets: The columns, in the paper's order, others after them.
        rows: The rows, by model and in the order of the paper's tables.
        comparisons: Every pair of rows of one model that can be compared, by data set and metric.
    """

    data_sets: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the rows."""
        return tuple(dict.fromkeys(row.model for row in self.rows))

    def rows_of(self, model: str) -> list[ScoreRow]:
        """The rows of one model."""
        return [row for row in self.rows if row.model == model]

    def baseline(self, row: ScoreRow) -> ScoreRow | None:
        """The SFT row that a row is compared with: of the same variant, else the model's only one."""
        candidates = [one for one in self.rows_of(row.model) if one.strategy == BASELINE]
        same = [one for one in candidates if one.suffix == row.suffix]
        found = same or candidates
        return found[0] if len(found) == 1 and found[0] is not row else None

    def comparison(self, first: ScoreRow, second: ScoreRow, data_set: str, metric: str) -> Comparison | None:
        """The comparison of two rows, second minus first."""
        found = self._by_pair.get((first.model, data_set, metric, first.label, second.label))
        reverse = self._by_pair.get((first.model, data_set, metric, second.label, first.label))
        return found or (
            replace(reverse, first=first.label, second=second.label, test=reverse.test.reversed) if reverse else None
        )

    @cached_property
    def _by_pair(self) -> dict[tuple[str, str, str, str, str], Comparison]:
        return {(one.model, one.data_set, one.metric, one.first, one.second): one for one in self.comparisons}


def scores_of(runs: Iterable[Run]) -> Scores:
    """Compute every figure and every comparison.

    Args:
        runs: All runs, ordered as the rows are to be.
    """
    data_sets, rows = score_rows(runs)
    return Scores(data_sets, rows, tuple(comparisons_of(rows, data_sets)))
