"""Combine the rules' verdict and the judge's into acc, fmt and score, for judging at once and for judging later.

Everything here is pure and works on the per-item records that ``--log_samples`` writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from typing import Any, TypedDict, cast

from sftkey.evaluation.judge_metrics import AGGREGATIONS, fitness_metrics
from sftkey.format.response_format import FormatFailure

ALPHA = 0.7
"""The weight of Acc in Score (section 4)."""

_FMT_WEIGHT = 0.3  # 1 - ALPHA, which in binary is 0.30000000000000004


class RuleVerdict(StrEnum):
    """What the rules say about an extracted answer and the reference."""

    SAME = "same"
    DIFFERENT = "different"
    CANT_TELL = "can't tell"


class DecidedBy(StrEnum):
    """Who gave the verdict that counts."""

    RULE = "rule"
    JUDGE = "judge"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Item:
    """One output as the rules saw it, before any judge. Holds all that judging later needs.

    Attributes:
        question: The question as the model was asked it.
        reference: The reference answer.
        extracted: The extracted answer; ``None`` where the output has none.
        extraction: Name of the rule that found it (`sftkey.evaluation.rules.answers`).
        rule_verdict: What the rules say.
        rule_detail: Which comparison decided, or why none could.
        over_limit: Whether the comparison was given up because it exceeded its bounds in size, time or memory.
        format_failure: Why the output is not in the expected format; ``None`` where it is.
        thinking_valid: Whether the output has a closed, non-empty reasoning.
        shown_to_judge: What the judge is shown, where that isn't `extracted`.
        unfinished_verdict: What the rules say of the answer in the thinking of an output that holds none after it.
        thinking_right: Whether the thinking is right, where the data set can tell.
    """

    question: str
    reference: str
    extracted: str | None
    extraction: str
    rule_verdict: RuleVerdict
    rule_detail: str
    over_limit: bool
    format_failure: FormatFailure | None
    thinking_valid: bool
    shown_to_judge: str = ""
    unfinished_verdict: RuleVerdict | None = None
    thinking_right: bool | None = None

    @property
    def for_judge(self) -> str:
        """The text that the judge compares with the reference; empty where there is nothing to show."""
        return self.shown_to_judge or self.extracted or ""


class Record(TypedDict):
    """One item in a log: an `Item` in plain JSON types, and who decided it how.

    The fields stand at the top level of each line of ``samples_*.jsonl``, beside the metrics that `scores` gives.
    """

    question: str
    reference: str
    extracted: str | None
    extraction: str
    rule_verdict: str
    rule_detail: str
    over_limit: bool
    format_failure: str | None
    thinking_valid: bool
    shown_to_judge: str
    unfinished_verdict: str | None
    thinking_right: bool | None
    verdict: str
    decided_by: str
    judge_mode: str
    judge_same: bool | None
    judge_source: str | None
    judge_detail: str
    judge_fitness: dict[str, float] | None


def item_of(record: Mapping[str, Any]) -> Item:
    """The `Item` in a logged record.

    Raises:
        KeyError: The record lacks a field, so it isn't one of ours.
        ValueError: A field has a value that it can't have.
    """
    # An earlier version didn't log the fields that have a default.
    values: dict[str, Any] = {"shown_to_judge": "", "unfinished_verdict": None, "thinking_right": None}
    values |= {field: record[field] for field in Item.__slots__ if field in record or field not in values}
    failure, unfinished = values["format_failure"], values["unfinished_verdict"]
    return Item(
        **{
            **values,
            "rule_verdict": RuleVerdict(values["rule_verdict"]),
            # In the log these two are metrics, too, and stand there as numbers.
            "over_limit": bool(values["over_limit"]),
            "thinking_valid": bool(values["thinking_valid"]),
            "format_failure": None if failure is None else FormatFailure(failure),
            "unfinished_verdict": None if unfinished is None else RuleVerdict(unfinished),
        }
    )


def needs_judge(item: Item, mode: str) -> bool:
    """Whether the judge is to be asked about an item.

    An output that holds no answer is never sent: there is nothing to compare, the rules' "different" stands.

    Args:
        item: The item as the rules saw it.
        mode: ``fallback`` (only what the rules can't settle), ``always`` or ``off``.
    """
    if not item.for_judge or mode == "off":
        return False
    return mode == "always" or item.rule_verdict is RuleVerdict.CANT_TELL


def decide(
    item: Item,
    *,
    mode: str = "off",
    judge_same: bool | None = None,
    judge_source: str | None = None,
    judge_detail: str = "",
    judge_fitness: dict[str, float] | None = None,
) -> Record:
    """Combine the rules' verdict with the judge's.

    The judge's verdict counts where there is one; where it is unresolved, or was not asked for, the rules' does. What
    neither settles is not counted as correct and stays visible as ``can't tell``.

    Args:
        item: The item as the rules saw it.
        mode: The judge's mode, ``off`` where there is no judge.
        judge_same: The judge's verdict; ``None`` where it is unresolved or was not asked for.
        judge_source: ``judge``, ``cache`` or ``unresolved``; ``None`` where the judge was not asked.
        judge_detail: What the judge replied, or why there is no verdict.
        judge_fitness: What was measured of the judge before it was asked (`sftkey.evaluation.judge.fitness`).

    Returns:
        The record to log.
    """
    if judge_source is not None and judge_same is not None:
        verdict = RuleVerdict.SAME if judge_same else RuleVerdict.DIFFERENT
        decided_by = DecidedBy(judge_source)
    else:
        verdict, decided_by = item.rule_verdict, DecidedBy.RULE
    fields = {key: value.value if isinstance(value, Enum) else value for key, value in asdict(item).items()}
    decision = {
        "verdict": verdict.value,
        "decided_by": decided_by.value,
        "judge_mode": mode,
        "judge_same": judge_same,
        "judge_source": judge_source,
        "judge_detail": judge_detail,
        "judge_fitness": judge_fitness,
    }
    return cast(Record, fields | decision)


def failure_metric(failure: FormatFailure) -> str:
    """The name of the metric that is the rate of a format failure: ``fmt_`` and the kind."""
    return f"fmt_{failure.name.lower()}"


def composite(acc: float, fmt: float) -> float:
    """Score = 0.7 Acc + 0.3 Fmt (section 4)."""
    return ALPHA * acc + _FMT_WEIGHT * fmt


def scores(record: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of one item.

    Args:
        record: What `decide` returned, or the same read back from a log.

    Returns:
        ``acc``, ``fmt`` and ``score``; ``thinking_valid``; ``acc_unfinished`` (Acc, if the thinking of an output that holds
        no answer counted as its answer); one per format failure (with ``fmt`` they sum to 1); ``no_answer`` (the rules found
        none), ``undecided`` (neither rules nor judge could tell, counted as not correct), ``over_limit``, ``judged`` (the
        judge decided, now or earlier). With a judge also ``judge_cached`` and ``judge_unresolved``. In mode ``always``
        also ``judge_agreement`` and ``judge_kappa``: the pair (rules, judge) of 0 or 1 where both decided, else ``None``. Of
        a judge that was measured also `fitness_metrics`.
    """
    acc = float(record["verdict"] == RuleVerdict.SAME.value)
    unfinished = record.get("unfinished_verdict")
    fmt = float(record["format_failure"] is None)
    metrics: dict[str, Any] = {
        "acc": acc,
        "fmt": fmt,
        "score": composite(acc, fmt),
        "thinking_valid": float(record["thinking_valid"]),
        "acc_unfinished": acc if unfinished is None else float(unfinished == RuleVerdict.SAME.value),
    }
    for failure in FormatFailure:
        metrics[failure_metric(failure)] = float(record["format_failure"] == failure.value)
    metrics["no_answer"] = float("extracted" in record and record["extracted"] is None)
    metrics["undecided"] = float(record["verdict"] == RuleVerdict.CANT_TELL.value)
    metrics["over_limit"] = float(record["over_limit"])
    metrics["judged"] = float(record["decided_by"] != DecidedBy.RULE.value)
    if record["judge_mode"] != "off":
        metrics["judge_cached"] = float(record["judge_source"] == "cache")
        metrics["judge_unresolved"] = float(record["judge_source"] == "unresolved")
    if record["judge_mode"] == "always":
        pair = None
        if record["judge_same"] is not None and record["rule_verdict"] != RuleVerdict.CANT_TELL.value:
            pair = (int(record["rule_verdict"] == RuleVerdict.SAME.value), int(record["judge_same"]))
        metrics["judge_agreement"] = pair
        metrics["judge_kappa"] = pair
    fitness = record.get("judge_fitness")  # an earlier version didn't measure it
    return metrics | fitness_metrics(fitness, acc, metrics["judged"]) if fitness else metrics


METRICS: Mapping[str, bool | None] = {
    "acc": True,
    "fmt": True,
    "score": True,
    "thinking_valid": True,
    "acc_unfinished": True,
    **{failure_metric(failure): False for failure in FormatFailure},
    "no_answer": False,
    "undecided": False,
    "over_limit": False,
    "judged": None,
    "judge_cached": None,
    "judge_unresolved": False,
    "judge_agreement": True,
    "judge_kappa": True,
    "judge_fitness_kappa": True,
    "judge_sensitivity": True,
    "judge_specificity": True,
    "acc_corrected": True,
    "acc_corrected_low": None,
    "acc_corrected_high": None,
}
"""The metrics of `scores` -> whether higher is better, ``None`` where neither is."""


def aggregate(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """Every metric over all items of a task, as lm-eval computes it.

    Args:
        records: What `decide` returned for each item of one task, all with the same judge mode.

    Returns:
        For each metric its value and its standard error (sample standard deviation over root n); the latter is ``None``
        for fewer than two items and for metrics that aren't means.
    """
    columns: dict[str, list[Any]] = {}
    for record in records:
        for metric, value in scores(record).items():
            columns.setdefault(metric, []).append(value)
    return {
        metric: (AGGREGATIONS[metric](values), None) if metric in AGGREGATIONS else _mean_and_stderr(values)
        for metric, values in columns.items()
    }


def _mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance) / math.sqrt(len(values))
