"""Intervals and tests against values computed by hand, by enumeration, and by scipy's own general routines."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.evaluation.statistics import (
    average_interval,
    holm,
    mcnemar_p,
    mean_interval,
    paired_test,
    paired_test_of_averages,
)


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


@pytest.mark.parametrize(
    ("first_only", "second_only", "p"),
    [
        (0, 0, 1),
        (3, 3, 1),
        (0, 6, Fraction(2, 64)),
        (1, 5, Fraction(2 * (1 + 6), 64)),
        (5, 1, Fraction(2 * (1 + 6), 64)),
        (2, 8, Fraction(2 * (1 + 10 + 45), 1024)),
    ],
)
def test_mcnemar_by_hand(first_only: int, second_only: int, p: Fraction) -> None:
    # Of n items on which the two differ, each is the first's with probability 1/2: twice the binomial tail.
    assert mcnemar_p(first_only, second_only) == pytest.approx(float(p))


def test_compare_counts_the_items_that_differ() -> None:
    first = array(1, 1, 0, 0, 0, 0, 0, 1, 1, 0)
    second = array(1, 0, 1, 1, 1, 1, 1, 1, 1, 0)
    test = paired_test(first, second)
    assert (test.items, test.first_only, test.second_only) == (10, 1, 5)
    assert test.difference == pytest.approx(0.4)
    assert test.p == pytest.approx(14 / 64)
    assert test.test == "McNemar (exact)"
    other_way = paired_test(second, first)
    assert other_way.p == test.p
    assert test.reversed.difference == other_way.difference
    assert (test.reversed.first_only, test.reversed.second_only) == (5, 1)


def test_bootstrap_interval_by_hand() -> None:
    # Resampling (0, 0, 0, 1): P(mean = 1) = 1/256 < 2.5%, P(mean >= 3/4) = 13/256 > 2.5%; P(mean = 0) = 81/256.
    interval = mean_interval(array(0, 0, 0, 1))
    assert (interval.low, interval.high, interval.exact) == (0, 0.75, False)
    assert mean_interval(array(0, 1)).low == 0
    assert mean_interval(array(0, 1)).high == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=2, max_size=5).filter(lambda v: len(set(v)) > 1))
def test_bootstrap_interval_by_enumeration(values: list[float]) -> None:
    """The ends lie between the exact quantiles a little inside and a little outside 2.5% and 97.5%."""
    means = np.sort([np.mean(resample) for resample in product(values, repeat=len(values))])
    interval = mean_interval(np.array(values))
    tolerance, sampling = 1e-9, 0.008  # five standard errors of a share of 2.5% in 10,000 draws
    for end, share in ((interval.low, 0.025), (interval.high, 0.975)):
        low, high = np.quantile(means, [share - sampling, share + sampling], method="inverted_cdf")
        assert low - tolerance <= end <= high + tolerance


def test_bootstrap_interval_equals_scipys() -> None:
    values = np.random.default_rng(1).choice([0.0, 0.3, 0.7, 1.0], size=400, p=[0.2, 0.1, 0.2, 0.5])
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=2)
    ours = mean_interval(values)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.003)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.003)


def test_items_that_all_agree_get_the_exact_bounds() -> None:
    # Clopper-Pearson: with 10 of 10 right the lower bound q solves q ** 10 = 2.5%.
    bound = 0.025 ** (1 / 10)
    right, wrong = mean_interval(np.ones(10)), mean_interval(np.zeros(10))
    assert (right.low, right.high, right.exact) == (pytest.approx(bound), 1, True)
    assert (wrong.low, wrong.high, wrong.exact) == (0, pytest.approx(1 - bound), True)
    score = mean_interval(np.full(10, 0.7))
    assert (score.low, score.high) == (pytest.approx(0.7 * bound), pytest.approx(0.7 + 0.3 * (1 - bound)))


def test_an_average_counts_every_data_set_the_same() -> None:
    large, small = np.ones(1000), array(0, 0, 1, 1)
    interval = average_interval([large, small])
    # The large one never varies, so the average's interval is that of the small one, halved and moved by 1/2.
    alone = mean_interval(small)
    assert interval.low == pytest.approx(0.5 + alone.low / 2)
    assert interval.high == pytest.approx(0.5 + alone.high / 2)
    test = paired_test_of_averages([(np.zeros(1000), large), (small, small)])
    assert test.difference == pytest.approx(0.5)


def test_data_sets_with_equal_results_are_resampled_independently() -> None:
    values = np.tile([0.0, 1.0], 200)
    alone, twice = mean_interval(values), average_interval([values, values.copy()])
    assert (twice.high - twice.low) / (alone.high - alone.low) == pytest.approx(0.5**0.5, rel=0.05)


def test_sign_flips_by_hand() -> None:
    # Differences 0.7, 0.7, 0.3: of the 8 ways to choose signs 2 give a sum as far from 0 as 1.7.
    test = paired_test(array(0.3, 0.3, 0.7), array(1.0, 1.0, 1.0))
    assert test.test == "sign-flip permutation"
    assert test.p == pytest.approx(2 / 8, abs=0.02)
    assert paired_test(array(0.3), array(1.0)).p == 1  # a single item proves nothing


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.7, -0.4, -0.3, 0.0, 0.3, 0.7, 1.0]), min_size=1, max_size=8))
def test_sign_flips_by_enumeration(differences: list[float]) -> None:
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    exact = np.mean([total >= abs(sum(differences)) - 1e-9 for total in sums])
    test = paired_test_of_averages([(np.zeros(len(differences)), np.array(differences))])
    assert test.p == pytest.approx(exact, abs=0.025)


def test_sign_flips_equal_scipys_and_on_binary_items_mcnemar() -> None:
    generator = np.random.default_rng(5)
    first, second = (generator.random(200) < rate for rate in (0.6, 0.68))
    differences = second.astype(float) - first
    theirs = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    ours = paired_test_of_averages([(first.astype(float), second.astype(float))]).p
    assert ours == pytest.approx(theirs, abs=0.015)
    assert ours == pytest.approx(paired_test(first.astype(float), second.astype(float)).p, abs=0.015)


def test_equal_methods_do_not_differ() -> None:
    values = array(0, 1, 1, 0.3)
    test = paired_test(values, values)
    assert (test.difference, test.p, test.interval.low, test.interval.high) == (0, 1, 0, 0)


def test_holm_by_hand() -> None:
    # Ordered 0.01, 0.03, 0.04 times 3, 2, 1, each at least the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_same_items_give_the_same_figures() -> None:
    values = np.random.default_rng(3).random(50).round(1)
    assert mean_interval(values) == mean_interval(np.flip(values))


def test_what_cannot_be_computed_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        mean_interval(array())
    with pytest.raises(ValueError, match="the same items"):
        paired_test(array(1), array(1, 0))
    with pytest.raises(ValueError, match="at least one shared item"):
        paired_test_of_averages([])
