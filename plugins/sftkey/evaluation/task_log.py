"""Logs how the items of a task were decided."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from sftkey.evaluation.verdicts import DecidedBy, Record, RuleVerdict, aggregate
from sftkey.format.response_format import FormatFailure

logger = logging.getLogger("lm_eval.tasks.sftkey")


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
    if any(record["judge_fitness"] for record in records) and by[DecidedBy.RULE.value] < len(records):
        figures = {name: value for name, (value, _) in aggregate(records).items()}
        logger.info(
            "%s: acc %.4f; corrected for the judge's errors (it calls %.3f of what is the same so, %.3f of what is "
            "different) %.4f, 95%% interval %.4f to %.4f",
            task,
            *(figures[name] for name in ("acc", "judge_sensitivity", "judge_specificity")),
            *(figures[name] for name in ("acc_corrected", "acc_corrected_low", "acc_corrected_high")),
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
