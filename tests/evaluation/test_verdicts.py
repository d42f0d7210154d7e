"""Verdicts and metrics, against numbers worked out by hand and against lm-eval's own aggregation."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftkey.evaluation.judge_metrics import agreement, cohens_kappa
from sftkey.evaluation.verdicts import (
    Item,
    RuleVerdict,
    aggregate,
    composite,
    decide,
    failure_metric,
    item_of,
    needs_judge,
    scores,
)
from sftkey.format.response_format import FormatFailure


def item(
    rule: RuleVerdict = RuleVerdict.SAME, extracted: str | None = "4", failure: FormatFailure | None = None
) -> Item:
    return Item("2+2?", "4", extracted, "answer block", rule, "equal numbers", False, failure, failure is None)


@pytest.mark.parametrize(
    ("mode", "rule", "extracted", "asked"),
    [
        ("off", RuleVerdict.CANT_TELL, "four", False),
        ("fallback", RuleVerdict.CANT_TELL, "four", True),
        ("fallback", RuleVerdict.SAME, "4", False),
        ("fallback", RuleVerdict.DIFFERENT, "5", False),
        ("always", RuleVerdict.SAME, "4", True),
        ("always", RuleVerdict.DIFFERENT, "5", True),
        ("always", RuleVerdict.DIFFERENT, None, False),
    ],
)
def test_who_is_judged(mode, rule, extracted, asked):
    assert needs_judge(item(rule, extracted), mode) is asked


@pytest.mark.parametrize(
    ("rule", "source", "judged", "acc", "decided_by", "undecided"),
    [
        (RuleVerdict.SAME, None, None, 1, "rule", 0),
        (RuleVerdict.DIFFERENT, None, None, 0, "rule", 0),
        (RuleVerdict.CANT_TELL, None, None, 0, "rule", 1),
        (RuleVerdict.CANT_TELL, "judge", True, 1, "judge", 0),
        (RuleVerdict.CANT_TELL, "judge", False, 0, "judge", 0),
        (RuleVerdict.CANT_TELL, "cache", True, 1, "cache", 0),
        (RuleVerdict.CANT_TELL, "unresolved", None, 0, "rule", 1),
        # In mode always the judge's verdict counts, and the rules' where it has none.
        (RuleVerdict.SAME, "judge", False, 0, "judge", 0),
        (RuleVerdict.DIFFERENT, "judge", True, 1, "judge", 0),
        (RuleVerdict.SAME, "unresolved", None, 1, "rule", 0),
        (RuleVerdict.DIFFERENT, "unresolved", None, 0, "rule", 0),
    ],
)
def test_verdicts(rule, source, judged, acc, decided_by, undecided):
    record = decide(item(rule), mode="always", judge_same=judged, judge_source=source)
    metrics = scores(record)
    assert metrics["acc"] == acc
    assert record["decided_by"] == decided_by
    assert metrics["undecided"] == undecided
    assert metrics["judged"] == (decided_by != "rule")
    assert metrics["judge_cached"] == (source == "cache")
    assert metrics["judge_unresolved"] == (source == "unresolved")
    both = judged is not None and rule is not RuleVerdict.CANT_TELL
    assert metrics["judge_kappa"] == ((int(rule is RuleVerdict.SAME), int(judged)) if both else None)


def test_judge_metrics_are_there_only_with_a_judge():
    assert not {"judge_cached", "judge_unresolved", "judge_kappa"} & scores(decide(item())).keys()
    assert not {"judge_kappa", "judge_agreement"} & scores(decide(item(), mode="fallback")).keys()
    assert {"judge_cached", "judge_unresolved"} <= scores(decide(item(), mode="fallback")).keys()


@pytest.mark.parametrize(("acc", "fmt", "score"), [(0, 0, 0.0), (1, 1, 1.0), (1, 0, 0.7), (0, 1, 0.3), (0.5, 0.5, 0.5)])
def test_composite(acc, fmt, score):
    assert composite(acc, fmt) == pytest.approx(score, abs=1e-15)


@pytest.mark.parametrize("failure", [None, *FormatFailure])
def test_fmt_and_the_failures_sum_to_one(failure):
    metrics = scores(decide(item(failure=failure)))
    assert metrics["fmt"] + sum(metrics[failure_metric(kind)] for kind in FormatFailure) == 1
    assert metrics["fmt"] == (failure is None)


items = st.builds(
    Item,
    question=st.text(),
    reference=st.text(),
    extracted=st.none() | st.text(),
    extraction=st.text(),
    rule_verdict=st.sampled_from(RuleVerdict),
    rule_detail=st.text(),
    over_limit=st.booleans(),
    format_failure=st.none() | st.sampled_from(FormatFailure),
    thinking_valid=st.booleans(),
)


@given(items)
def test_a_logged_record_gives_the_item_back(original):
    record = decide(original, mode="fallback", judge_same=True, judge_source="judge", judge_detail="yes")
    logged = json.loads(json.dumps(record | scores(record)))
    assert item_of(logged) == original
    # Judging later starts from there and comes to the same record.
    again = decide(item_of(logged), mode="fallback", judge_same=True, judge_source="judge", judge_detail="yes")
    assert again == record


def test_a_record_of_something_else_is_an_error():
    with pytest.raises(KeyError):
        item_of({"question": "2+2?"})
    with pytest.raises(ValueError, match="maybe"):
        item_of(decide(item()) | {"rule_verdict": "maybe"})


def test_kappa_by_hand():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa = 0.4.
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15 + [None] * 7
    assert agreement(pairs) == pytest.approx(0.7)
    assert cohens_kappa(pairs) == pytest.approx(0.4)


def test_kappa_is_undefined_without_variation():
    assert math.isnan(cohens_kappa([]))
    assert math.isnan(cohens_kappa([None]))
    assert math.isnan(cohens_kappa([(1, 1)] * 3))
    assert math.isnan(agreement([None]))
    assert cohens_kappa([(1, 1), (0, 0)]) == 1
    assert cohens_kappa([(1, 0), (0, 1)]) == -1


@given(st.lists(st.tuples(items, st.sampled_from([None, True, False])), min_size=2, max_size=30))
def test_aggregates_are_lm_evals(cases):
    metrics = pytest.importorskip("lm_eval.api.metrics")
    records = [
        decide(case, mode="fallback", judge_same=same, judge_source="unresolved" if same is None else "judge")
        for case, same in cases
    ]
    for metric, (value, error) in aggregate(records).items():
        column = [scores(record)[metric] for record in records]
        assert value == pytest.approx(metrics.mean(column), abs=1e-12)
        assert error == pytest.approx(metrics.mean_stderr(column), abs=1e-12)


def test_aggregates_of_one_item_have_no_standard_error():
    assert aggregate([decide(item())])["acc"] == (1.0, None)
