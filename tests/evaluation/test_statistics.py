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
    kappa_interval,
    mcnemar_p,
    mean_interval,
    paired_test,
    paired_test_of_averages,
    rogan_gladen,
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


# A judge's errors


def test_rogan_gladen_by_hand() -> None:
    # 60 of 100 called the same by a judge of sensitivity 0.9 and specificity 0.8: (0.6 + 0.8 - 1) / 0.7.
    value, interval = rogan_gladen(0, 0, 60, 40, (90, 10, 80, 20))
    assert value == pytest.approx(4 / 7)
    assert interval is not None
    assert interval.low < value < interval.high
    # Beside 100 items that the rules decided, 50 correct.
    assert rogan_gladen(50, 50, 60, 40, (90, 10, 80, 20))[0] == pytest.approx((0.5 + 4 / 7) / 2)


def test_a_judge_without_errors_changes_nothing() -> None:
    assert rogan_gladen(3, 4, 5, 6, (48, 0, 48, 0))[0] == pytest.approx(8 / 18)


@pytest.mark.parametrize("errors", [(5, 5, 5, 5), (1, 9, 1, 9), (0, 0, 9, 1), (9, 1, 0, 0), (0, 0, 0, 0), (4, 6, 6, 4)])
def test_of_a_judge_no_better_than_chance_nothing_is_known(errors: tuple[int, int, int, int]) -> None:
    value, interval = rogan_gladen(10, 10, 5, 5, errors)
    assert np.isnan(value)
    assert interval is None
    # What it did not decide is known all the same.
    value, interval = rogan_gladen(10, 10, 0, 0, errors)
    assert (value, interval) == (0.5, mean_interval(array(*[1] * 10, *[0] * 10)))


def test_no_items_no_figure() -> None:
    assert np.isnan(rogan_gladen(0, 0, 0, 0, (9, 1, 9, 1))[0])


@given(st.tuples(*[st.integers(0, 40)] * 4), st.tuples(*[st.integers(0, 50)] * 4))
@settings(max_examples=40, deadline=None)
def test_a_corrected_share_is_a_share(cells: tuple[int, int, int, int], errors: tuple[int, int, int, int]) -> None:
    value, interval = rogan_gladen(*cells, errors)
    assert np.isnan(value) == (interval is None)
    if interval is not None:
        assert -1e-12 <= interval.low <= value <= interval.high <= 1 + 1e-12


@pytest.mark.parametrize(
    ("share", "judged", "sensitivity", "specificity"),
    [
        (0.6, 1.0, 0.95, 0.9),
        (0.3, 0.4, 0.85, 0.95),
        (0.9, 0.5, 0.98, 0.8),
        (0.05, 1.0, 0.9, 0.9),
        (0.5, 0.2, 0.7, 0.75),
    ],
)
def test_the_corrected_share_and_its_interval_by_simulation(
    share: float, judged: float, sensitivity: float, specificity: float
) -> None:
    """300 evaluations of 400 items by a judge whose rates are known from 48 pairs of each verdict."""
    random = np.random.default_rng(7)
    corrected, raw, covered = [], [], 0
    for _ in range(300):
        truth, by_judge = random.random(400) < share, random.random(400) < judged
        says_yes = np.where(truth, random.random(400) < sensitivity, random.random(400) >= specificity)
        same_right, different_right = random.binomial(48, sensitivity), random.binomial(48, specificity)
        counts = [
            int(np.sum(part))
            for part in (truth & ~by_judge, ~truth & ~by_judge, says_yes & by_judge, ~says_yes & by_judge)
        ]
        value, interval = rogan_gladen(*counts, (same_right, 48 - same_right, different_right, 48 - different_right))
        assert interval is not None
        corrected.append(value)
        raw.append((counts[0] + counts[2]) / 400)
        covered += interval.low <= share <= interval.high
    assert covered / 300 > 0.92
    assert abs(np.mean(corrected) - share) < 0.02
    bias = judged * (share * sensitivity + (1 - share) * (1 - specificity) - share)
    assert np.mean(raw) - share == pytest.approx(bias, abs=0.01)
    assert abs(bias) < 0.02 or abs(np.mean(corrected) - share) < abs(bias) / 2


def test_the_interval_of_kappa() -> None:
    perfect = kappa_interval([(1, 1), (0, 0)] * 72)
    assert 0.93 < perfect.low < perfect.high <= 1
    chance = kappa_interval([(1, 1), (0, 0), (1, 0), (0, 1)] * 36)
    assert chance.low < 0 < chance.high
    # Asymptotically: kappa 0.8 of 200 balanced pairs has a standard error of 2 sqrt(0.9 * 0.1 / 200).
    some = kappa_interval([(1, 1), (0, 0)] * 90 + [(1, 0), (0, 1)] * 10)
    half = 1.96 * 2 * (0.9 * 0.1 / 200) ** 0.5
    assert (some.low, some.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.015)
