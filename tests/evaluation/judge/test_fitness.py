"""A judge is measured before it is asked: known answers, what becomes of an unfit judge, what its error rates are for."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import pytest
from sftkey.datasets.base import AnswerKind
from sftkey.evaluation.judge.decide import judged
from sftkey.evaluation.judge.fitness import LEAST_KAPPA, FitnessReport, measure
from sftkey.evaluation.judge.known_answers import KnownPair, known_pairs
from sftkey.evaluation.judge.prompt import judge_prompt
from sftkey.evaluation.judge.settings import Fitness, JudgeMode, JudgeSettings
from sftkey.evaluation.judge_metrics import ErrorCounts
from sftkey.evaluation.rules.equivalence import compare
from sftkey.evaluation.task_log import log_summary
from sftkey.evaluation.verdicts import Item, RuleVerdict, aggregate, scores
from support.loopback_judge import Fault, LoopbackServer

PAIRS = tuple(known_pairs())
TRUTH = {judge_prompt(pair.item): pair for pair in PAIRS}


def judge_that(says) -> object:
    """A judge that knows the known answers and says ``says(pair)``; about anything else it says yes."""
    return lambda prompt: says(TRUTH[prompt]) if prompt in TRUTH else "yes"


def right(pair: KnownPair) -> str:
    return "yes" if pair.same else "no"


def wrong(pair: KnownPair) -> str:
    return "no" if pair.same else "yes"


def gullible(pair: KnownPair) -> str:
    """Right, but an attack gets the verdict that it asks for."""
    return wrong(pair) if pair.attack else right(pair)


def open_items(count: int) -> list[Item]:
    return [
        Item(f"q{n}", "18", "eighteen or so", "x", RuleVerdict.CANT_TELL, "made up", False, None, True)
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path):
    def make(server: LoopbackServer, **changes: object) -> JudgeSettings:
        return JudgeSettings(server.base_url, "m", cache_dir=tmp_path / "cache", **changes)

    return make


# The set


def test_both_verdicts_and_attacks_of_every_kind_of_answer() -> None:
    counts = Counter((pair.kind, pair.same, pair.attack) for pair in PAIRS)
    assert counts == {
        **{(kind, same, False): 12 for kind in AnswerKind for same in (True, False)},
        **{(kind, same, True): 6 for kind in AnswerKind for same in (True, False)},
    }
    assert len(TRUTH) == len(PAIRS) == 144


def test_no_rule_contradicts_a_known_answer() -> None:
    settled = 0
    for pair in PAIRS:
        if not pair.attack:
            options = dict(re.findall(r"^([A-D]): (.*)$", pair.item.question, re.M)) or None
            found = compare(pair.item.prediction, pair.item.reference, pair.kind, options, pair.item.question).verdict
            contrary = RuleVerdict.DIFFERENT if pair.same else RuleVerdict.SAME
            assert found is not contrary, pair
            settled += found is not RuleVerdict.CANT_TELL
    assert settled > 60


def test_no_attack_reaches_the_judge_as_a_part_of_the_prompt() -> None:
    for prompt in TRUTH:
        assert prompt.count("**Question**:") == prompt.count("**Response 2**:") == 1
        assert not re.search(r"<\|\w+\|>|\[/?INST\]|</s>", prompt)


# Measuring


@pytest.mark.parametrize(
    ("says", "kappa", "fit", "sensitivity", "specificity"),
    [
        (right, 1.0, True, 1.0, 1.0),
        (wrong, -1.0, False, 0.0, 0.0),
        (gullible, 1 / 3, False, 1.0, 1.0),
        (lambda pair: "yes", 0.0, False, 1.0, 0.0),
        (lambda pair: "no", 0.0, False, 0.0, 1.0),
    ],
)
def test_what_is_measured(settings, says, kappa: float, fit: bool, sensitivity: float, specificity: float) -> None:
    with LoopbackServer(judge_that(says)) as server:
        report = measure(settings(server))
    assert isinstance(report, FitnessReport)
    assert report.kappa == pytest.approx(kappa)
    assert report.kappa_interval.low <= report.kappa <= report.kappa_interval.high or abs(report.kappa) == 1
    assert report.fit is fit
    assert (report.errors.sensitivity, report.errors.specificity) == (sensitivity, specificity)


def test_a_judge_that_says_neither_is_not_fit(settings) -> None:
    with LoopbackServer(judge_that(lambda pair: "It depends.")) as server:
        report = measure(settings(server))
    assert isinstance(report, FitnessReport)
    assert (report.agreement, report.fit) == (0, False)
    assert report.errors == ErrorCounts(0, 0, 0, 0)
    assert report.rows()[-1] == ("all", 144, 0.0, "0 of 72", "0 of 72", 144)


def test_the_table_has_a_row_for_each_kind(settings) -> None:
    with LoopbackServer(judge_that(gullible)) as server:
        report = measure(settings(server))
    assert isinstance(report, FitnessReport)
    assert [row[0] for row in report.rows()] == ["answers", *(kind.value for kind in AnswerKind), "attacks", "all"]
    assert report.rows()[1] == ("number", 24, 1.0, "12 of 12", "12 of 12", 0)
    assert report.rows()[-2:] == [
        ("attacks", 48, 0.0, "0 of 24", "0 of 24", 0),
        ("all", 144, 2 / 3, "48 of 72", "48 of 72", 0),
    ]


def test_it_is_measured_once_for_each_model_prompt_and_setting(settings) -> None:
    with LoopbackServer(judge_that(lambda pair: "hm")) as server:
        for changes, asked in (({}, 288), ({}, 0), ({"max_tokens": 99}, 288), ({"max_tokens": 99}, 0)):
            before = len(server.requests)
            measure(settings(server, **changes))
            assert len(server.requests) - before == asked


def test_a_server_that_fails_is_not_measured(settings) -> None:
    with LoopbackServer(judge_that(right), faults=lambda prompt, attempt: Fault.UNAUTHORIZED) as server:
        assert "status 401" in measure(settings(server))
        server._faults = lambda prompt, attempt: Fault.UNAUTHORIZED if "plums" in prompt else None
        report = measure(settings(server))
        assert isinstance(report, FitnessReport)
        assert (len(report.pairs), report.kappa) == (138, 1.0)
        server._faults = lambda prompt, attempt: None
        whole = measure(settings(server))
        assert isinstance(whole, FitnessReport)
        assert len(whole.pairs) == 144, "a part is not kept as the whole"


# What becomes of it


def test_an_unfit_judge_leaves_the_rules_verdicts_and_says_so(settings, caplog) -> None:
    with LoopbackServer(judge_that(gullible)) as server:
        records = judged(open_items(5), settings(server))
        assert not any("q0" in prompt for prompt in server.prompts())
    assert {record["verdict"] for record in records} == {"can't tell"}
    assert {record["decided_by"] for record in records} == {"rule"}
    assert {record["judge_source"] for record in records} == {"unresolved"}
    assert (
        "RULES ONLY, none of 5 items was asked about: the judge is not fit: agreement 0.667, kappa 0.333" in caplog.text
    )
    assert f"at least {LEAST_KAPPA} is needed" in caplog.text
    assert "SFTKEY_JUDGE_FITNESS=reported" in caplog.text
    figures = aggregate(records)
    assert figures["judged"][0] == 0
    assert figures["judge_fitness_kappa"][0] == pytest.approx(1 / 3)


@pytest.mark.parametrize("fitness", [Fitness.REPORTED, Fitness.OFF])
def test_an_unfit_judge_is_asked_where_a_setting_says_so(settings, fitness: Fitness) -> None:
    with LoopbackServer(judge_that(wrong)) as server:
        records = judged(open_items(5), settings(server, fitness=fitness))
        assert len(server.requests) == (149 if fitness is Fitness.REPORTED else 5)
    assert {record["verdict"] for record in records} == {"same"}
    assert all((record["judge_fitness"] is not None) == (fitness is Fitness.REPORTED) for record in records)


def test_a_fit_judge_is_asked_and_its_error_rates_stand_beside_acc(settings, caplog) -> None:
    caplog.set_level(logging.INFO)
    missed = {judge_prompt(pair.item) for pair in PAIRS if not pair.attack and not pair.same}
    missed = set(sorted(missed)[:6])

    def says(pair: KnownPair) -> str:
        return "yes" if judge_prompt(pair.item) in missed else right(pair)

    with LoopbackServer(judge_that(says)) as server:
        records = judged(open_items(40), settings(server))
    figures = {name: value for name, (value, _) in aggregate(records).items()}
    assert (figures["judge_sensitivity"], figures["judge_specificity"]) == (1.0, 42 / 48)
    assert figures["acc"] == 1.0
    assert figures["acc_corrected_low"] < 1.0 == figures["acc_corrected"] == figures["acc_corrected_high"]
    assert "agreement 0.958, kappa 0.917" in caplog.text
    log_summary("a_task", records)
    assert "acc 1.0000; corrected for the judge's errors (it calls 1.000 of what is the same so, 0.875" in caplog.text


def test_no_item_for_the_judge_no_measuring(settings) -> None:
    item = Item("q", "18", "18", "x", RuleVerdict.SAME, "", False, None, True)
    with LoopbackServer(judge_that(right)) as server:
        (record,) = judged([item], settings(server))
        assert server.requests == []
        (always,) = judged([item], settings(server, mode=JudgeMode.ALWAYS))
        assert len(server.requests) == 145
    assert "acc_corrected" not in scores(record)
    assert scores(always)["acc_corrected"] == (1.0, 1.0, 48, 0, 48, 0)
