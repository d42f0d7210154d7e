"""What lm-eval logs of a task: the answer and the metrics of each item, and a summary of all of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sftkey.datasets.base import Row
from sftkey.evaluation.verdicts import DecidedBy, Record, RuleVerdict, scores
from sftkey.format.tags import FormatFailure

logger = logging.getLogger("lm_eval.tasks.sftkey")


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


def log_summary(task: str, records: Sequence[Record]) -> None:
    """Log how the items of a task were decided, and what is usually wrong where outputs have no thinking.

    Args:
        task: The name to log.
        records: What `sftkey.evaluation.verdicts.decide` returned for each item.
    """
    by = Counter(record["decided_by"] for record in records)
    undecided = sum(record["verdict"] == RuleVerdict.CANT_TELL.value for record in records)
    over_limit = sum(record["over_limit"] for record in records)
    mode = records[0]["judge_mode"] if records else "off"
    logger.info(
        "%s: %d items, decided by rules %d, judge %d, cached verdicts of the judge %d; "
        "undecided, counted as not correct: %d; over the limits of the rules: %d%s",
        task,
        len(records),
        by[DecidedBy.RULE.value] - undecided,
        by[DecidedBy.JUDGE.value],
        by[DecidedBy.CACHE.value],
        undecided,
        over_limit,
        "; rules only, no judge (set SFTKEY_JUDGE_BASE_URL for one)" if mode == "off" else "",
    )
    cut_off = sum(record["format_failure"] == FormatFailure.THINKING_CUT_OFF.value for record in records)
    if cut_off:
        logger.warning(
            "%s: in %d of %d outputs the thinking is opened and never closed, usually because the token limit cut it "
            "off; raise it with --gen_kwargs max_gen_toks=N",
            task,
            cut_off,
            len(records),
        )
    no_thinking = sum(not record["thinking_valid"] for record in records) - cut_off
    if no_thinking > len(records) / 10:
        logger.warning(
            "%s: %d of %d outputs have no thinking, or an empty one (metrics thinking_valid, fmt_no_thinking, "
            "fmt_empty_thinking)",
            task,
            no_thinking,
            len(records),
        )
