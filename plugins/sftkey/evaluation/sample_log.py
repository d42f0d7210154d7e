"""What lm-eval logs and aggregates of an item: its metrics, with the fields of its record beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftkey.datasets.base import Row
from sftkey.evaluation.verdicts import Record, scores


class JudgedAnswer(str):
    """The extracted answer of an output, as lm-eval logs a filtered response, with the record of its verdict.

    Attributes:
        record: What `sftkey.evaluation.verdicts.decide` returned.
    """

    record: Record

    @classmethod
    def of(cls, record: Record) -> JudgedAnswer:
        """Wrap a record."""
        answer = cls(record["extracted"] or "")
        answer.record = record
        return answer


class ItemMetrics(dict[str, Any]):
    """The metrics of one item, with the fields of its record beside them for the log.

    lm-eval writes to its sample log all that `process_results` returned, and aggregates the same, which texts can't be.
    Here the log gets everything, and who goes through the entries gets the metrics only.
    """

    def __init__(self, record: Record) -> None:
        """Compute the metrics of a record."""
        self._metrics = scores(record)
        super().__init__(record | self._metrics)

    def keys(self) -> Any:
        """The names of the metrics."""
        return self._metrics.keys()

    def items(self) -> Any:
        """The metrics."""
        return self._metrics.items()


def metrics(doc: Row, results: Sequence[JudgedAnswer]) -> ItemMetrics:
    """The metrics of one item, for ``process_results``.

    Args:
        doc: The document; not needed, the record has everything.
        results: The one answer that `Verdicts` made of the output.
    """
    return ItemMetrics(results[0].record)
