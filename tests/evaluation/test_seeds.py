"""Intervals over seeds and items against statsmodels' mixed model, scipy's t-test, and simulated data of known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sftkey.evaluation.seeds import detectable, difference_over, mean_over, ratio_over
from sftkey.evaluation.statistics import holm, mean_interval, paired_test

RUNS = 400


def share_bounds(share: float, runs: int = RUNS) -> tuple[float, float]:
    """Where a simulated share lies but once in 10,000 times."""
    low, high = scipy.stats.binom(runs, share).interval(0.9999)
    return low / runs, high / runs


def layout(
    generator: np.random.Generator, seeds: int, items: int, of_seed: float, of_item: float, rest: float
) -> np.ndarray:
    """Values of mean 0 with the three standard deviations."""
    return (
        of_seed * generator.standard_normal((seeds, 1))
        + of_item * generator.standard_normal((1, items))
        + rest * generator.standard_normal((seeds, items))
    )


def answers(generator: np.random.Generator, arms: int, seeds: int, items: int, gain: float = 0.0) -> np.ndarray:
    """0 and 1 of shape ``(arms, seeds, items)``: items of any difficulty, seeds of an arm that are better or worse.

    The first arm is the control; of every other the mean probability is `gain` higher.
    """
    difficulty = generator.uniform(0.2, 0.7, (1, 1, items))
    run = generator.normal(0, 0.03, (arms, seeds, 1))
    own = generator.normal(0, 0.1, (arms, 1, items))
    chance = np.clip(difficulty + run + own, 0.01, 0.85)
    chance[1:] += gain
    return (generator.random((arms, seeds, items)) < chance).astype(float)


def test_the_standard_error_is_that_of_statsmodels_mixed_model() -> None:
    import pandas as pd
    import statsmodels.formula.api as smf

    values = layout(np.random.default_rng(4), 4, 12, 0.5, 0.7, 1.0) + 0.3
    found = mean_over(values, bounds=(-9, 9))
    seeds, items = np.indices(values.shape)
    frame = pd.DataFrame({"y": values.ravel(), "seed": seeds.ravel(), "item": items.ravel(), "all": 1})
    parts = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    fit = smf.mixedlm("y ~ 1", frame, groups="all", vc_formula=parts, re_formula="0").fit(reml=True)
    assert found.value == pytest.approx(fit.params["Intercept"])
    assert found.standard_error == pytest.approx(fit.bse["Intercept"], rel=0.01)
    of_item, of_seed = fit.vcomp  # in the order of their names
    assert found.variances == pytest.approx((of_seed, of_item, fit.scale), rel=0.02)


def test_where_only_seeds_differ_it_is_the_t_test_of_the_seeds() -> None:
    means = np.array([0.1, 0.3, -0.05, 0.2, 0.15])
    first = np.full((5, 40), 0.5)
    found = difference_over(first, first + means[:, None])
    expected = scipy.stats.ttest_1samp(means, 0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval()
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))
    assert found.freedom == pytest.approx(4)
    assert found.by_seed == pytest.approx(tuple(means))


def test_where_only_items_differ_more_seeds_are_no_more_evidence() -> None:
    items = np.random.default_rng(1).choice([0.0, 1.0], 50)
    first = np.full((3, 50), 0.5)
    found = difference_over(first, np.tile(items, (3, 1)))
    expected = scipy.stats.ttest_1samp(items - 0.5, 0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.freedom == pytest.approx(49)


def test_one_seed_is_tested_over_its_items_and_says_so() -> None:
    first, second = np.array([[1, 1, 0, 0, 0, 0, 0, 1, 1, 0.0]]), np.array([[1, 0, 1, 1, 1, 1, 1, 1, 1, 0.0]])
    found, test = difference_over(first, second), paired_test(first[0], second[0])
    assert (found.p, found.test, found.interval, found.over) == (14 / 64, "McNemar (exact)", test.interval, "items")
    assert mean_over(first).interval == mean_interval(first[0])
    assert detectable(found, seeds=5) is None  # one seed doesn't tell how far others are
    assert difference_over(np.tile(first, (2, 1)), np.tile(second, (2, 1))).over == "seeds and items"


def test_runs_that_do_not_differ_are_bounded_by_the_number_of_items() -> None:
    values = np.tile([1.0, 0.0, 1.0, 1.0], (3, 10))
    found = difference_over(values, values)
    assert (found.value, found.p, detectable(found)) == (0, 1, None)
    # Of 40 items none differs: the exact binomial bound of a count of 0.
    bound = scipy.stats.binomtest(0, 40).proportion_ci(0.95).high
    assert (found.interval.low, found.interval.high) == pytest.approx((-bound, bound))
    # With one seed, too: one item that differs doesn't show that all do.
    one = difference_over(np.zeros((1, 1)), np.ones((1, 1)))
    assert (one.p, one.over) == (1, "items")
    assert one.interval.low < 0 < one.interval.high == 1
    with pytest.raises(ValueError, match="same seeds and items"):
        difference_over(values, values[:, 1:])


def bootstrap_holds(values: np.ndarray, generator: np.random.Generator, draws: int = 300) -> bool:
    """Whether the percentile interval of a bootstrap that draws seeds and items holds 0."""
    seeds, items = values.shape
    of_seeds = generator.multinomial(seeds, [1 / seeds] * seeds, draws) / seeds
    of_items = generator.multinomial(items, [1 / items] * items, draws) / items
    low, high = np.percentile(np.einsum("bs,si,bi->b", of_seeds, values, of_items), [2.5, 97.5])
    return bool(low <= 0 <= high)


@pytest.mark.parametrize(
    ("seeds", "of_seed"), [(2, 0.045), (3, 0.045), (5, 0.045), (8, 0.045), (5, 0.02), (5, 0.0), (2, 0.0)]
)
def test_the_interval_holds_the_truth_in_95_of_100_cases(seeds: int, of_seed: float) -> None:
    generator = np.random.default_rng(seeds)
    held = resampled = 0
    for _ in range(RUNS):
        values = layout(generator, seeds, 150, of_seed, 0.14, 0.32)
        interval = mean_over(values, bounds=(-9, 9)).interval
        held += interval.low <= 0 <= interval.high
        resampled += seeds == 2 and bool(of_seed) and bootstrap_holds(values, generator)
    low, high = share_bounds(0.95)
    assert held / RUNS >= low
    if seeds >= 5 and of_seed:
        assert held / RUNS <= max(high, 0.985)  # and isn't wide for nothing
    if seeds == 2 and of_seed:
        # Why it isn't a bootstrap.
        assert resampled / RUNS < low


@pytest.mark.parametrize("seeds", [2, 5])
def test_one_of_several_comparisons_with_a_control_is_significant_by_chance_in_5_of_100_cases(
    seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gc.collect", lambda: 0
    )  # statsmodels collects garbage at each adjustment, which takes most of the time
    generator = np.random.default_rng(10 + seeds)
    wrong = 0
    for _ in range(RUNS):
        control, *others = answers(generator, 4, seeds, 120)
        p_values = [difference_over(control, other).p for other in others]
        wrong += min(holm([p for p in p_values if p is not None])) < 0.05
    assert wrong / RUNS <= share_bounds(0.05)[1]


def test_a_true_difference_of_the_stated_size_is_found_in_80_of_100_cases() -> None:
    generator = np.random.default_rng(3)
    seeds, items, spread = 6, 150, (0.02, 0.14, 0.32)
    first = np.full((seeds, items), 0.5)
    shown = difference_over(first, first + layout(generator, seeds, items, *spread))
    gain = detectable(replace(shown, variances=tuple(one**2 for one in spread)))
    assert gain is not None
    found = 0
    for _ in range(RUNS):
        p = difference_over(first, first + layout(generator, seeds, items, *spread) + gain).p
        found += p is not None and p < 0.05
    assert found / RUNS == pytest.approx(0.8, abs=0.07)


def test_more_seeds_items_or_fewer_comparisons_show_smaller_differences() -> None:
    generator = np.random.default_rng(5)
    control, other = answers(generator, 2, 4, 200)
    found = difference_over(control, other)
    now = detectable(found)
    assert now is not None
    for easier in (detectable(found, seeds=12), detectable(found, items=2_000), detectable(found, power=0.5)):
        assert easier is not None
        assert easier < now
    harder = detectable(found, comparisons=5)
    assert harder is not None
    assert harder > now


def test_a_share_of_a_share() -> None:
    right = np.array([[1, 1, 0, 0, 1, 0.0], [1, 0, 0, 1, 1, 1]])
    formed = np.array([[1, 1, 1, 0, 1, 1.0], [1, 1, 0, 1, 1, 1]])
    found = ratio_over(right * formed, formed)
    assert found is not None
    assert found.value == pytest.approx(7 / 10)
    assert found.by_seed == pytest.approx((3 / 5, 4 / 5))
    assert 0 <= found.interval.low < 0.7 < found.interval.high <= 1
    assert ratio_over(right * 0, formed * 0) is None
    everything = ratio_over(right, np.ones_like(right))
    assert everything is not None
    assert everything.standard_error == pytest.approx(mean_over(right).standard_error)
    # All well-formed ones right: binomial, not of no width.
    certain = ratio_over(formed, formed)
    assert certain is not None
    assert certain.interval.low < 1 == certain.interval.high


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 10**6))
def test_any_layout_of_zeros_and_ones(seeds: int, items: int, number: int) -> None:
    generator = np.random.default_rng(number)
    first, second = (generator.random((2, seeds, items)) < generator.random((2, 1, 1))).astype(float)
    found, back = difference_over(first, second), difference_over(second, first)
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert back.value == pytest.approx(-found.value)
    assert found.p is not None
    assert 0 <= found.p <= 1
    assert back.p == pytest.approx(found.p)
    assert -1 <= found.interval.low <= found.value + 1e-9
    assert found.value <= found.interval.high + 1e-9 <= 1 + 2e-9
    assert found.interval.low < found.interval.high
    mean = mean_over(first)
    assert 0 <= mean.interval.low <= mean.value + 1e-9
    assert mean.value <= mean.interval.high + 1e-9 <= 1 + 2e-9
    needed = detectable(found)
    assert needed is None or needed > 0
