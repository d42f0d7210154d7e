"""Intervals and paired tests over items, which the paper's tables lack.

Everything here takes plain arrays with one number per item. A bootstrap of a mean only depends on how often each
distinct value occurs, and the items of a benchmark take very few distinct values (0 and 1, or the four of Score), so
resamples are drawn as multinomial counts: the same distribution as resampling the items, thousands of times cheaper.

Acc and Fmt are compared by the exact McNemar test. Under its null hypothesis each difference could as well have had the
other sign; the sign-flip permutation test says the same for any numbers, and is what Score and averages use. (A
p-value from the bootstrap itself would call a difference on three items significant.)
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sftkey.util.extras import extra

RESAMPLES = 10_000
CONFIDENCE = 0.95
SIGNIFICANT = 0.05

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95% interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        exact: Whether all items agree, so that resampling has zero width and the ends are exact binomial
            (Clopper-Pearson) bounds.
    """

    low: float
    high: float
    exact: bool = False


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two runs on the same items.

    Attributes:
        items: How many items both answered.
        difference: Mean of the second minus mean of the first.
        interval: 95% bootstrap interval of the difference, items resampled in pairs.
        p: Two-sided p-value.
        test: ``McNemar (exact)`` or ``sign-flip permutation``.
        first_only: Items that only the first got right; ``None`` for a metric that isn't 0 or 1.
        second_only: Items that only the second got right.
    """

    items: int
    difference: float
    interval: Interval
    p: float
    test: str
    first_only: int | None = None
    second_only: int | None = None

    @property
    def reversed(self) -> PairedTest:
        """The same test with the runs the other way round."""
        return replace(
            self,
            difference=-self.difference,
            interval=Interval(-self.interval.high, -self.interval.low, self.interval.exact),
            first_only=self.second_only,
            second_only=self.first_only,
        )


def mean_interval(values: Values) -> Interval:
    """The 95% percentile-bootstrap interval of a mean over items, each a number in [0, 1].

    Raises:
        ValueError: There are no items.
    """
    return average_interval([values])


def average_interval(groups: Sequence[Values]) -> Interval:
    """The 95% interval of an average over data sets, the items of each resampled among themselves.

    Args:
        groups: One array of numbers in [0, 1] per data set; each counts the same, as in the paper's averages.

    Raises:
        ValueError: There is no group, or one is empty.
    """
    if not groups or any(len(group) == 0 for group in groups):
        raise ValueError("an interval needs at least one item in each data set")
    if all(np.ptp(group) == 0 for group in groups):
        # Bonferroni over the data sets: each mean stays in its own bounds with the joint probability of at least 95%.
        bounds = [_exact_bounds(group, len(groups)) for group in groups]
        low, high = np.mean(bounds, axis=0)
        return Interval(float(low), float(high), exact=True)
    return _percentiles(_resampled_average(groups))


def _exact_bounds(values: Values, groups: int) -> tuple[float, float]:
    """Bounds of the mean of items that all have one value, widened by what unseen items could change."""
    with extra("eval"):
        from statsmodels.stats.proportion import proportion_confint

    value = float(values[0])
    low, _ = proportion_confint(len(values), len(values), alpha=(1 - CONFIDENCE) / groups, method="beta")
    unseen = 1 - float(low)
    return value * (1 - unseen), value + (1 - value) * unseen


def _resampled_average(groups: Sequence[Values]) -> Values:
    """Means of bootstrap resamples, averaged over groups; shape ``(RESAMPLES,)``, the same on every call."""
    total = np.zeros(RESAMPLES)
    for index, group in enumerate(groups):
        distinct, counts = np.unique(group, return_counts=True)
        drawn = _generator(index, distinct, counts).multinomial(len(group), counts / len(group), size=RESAMPLES)
        total += drawn @ distinct / len(group)
    return total / len(groups)


def _generator(index: int, distinct: Values, counts: npt.NDArray[np.int64]) -> np.random.Generator:
    """Seeded by the data: the same items give the same figures in every report, whatever else is in it.

    The index keeps two data sets with equal results from being resampled in step.
    """
    return np.random.default_rng([index, zlib.crc32(distinct.tobytes()), zlib.crc32(counts.astype("<i8").tobytes())])


def _percentiles(resampled: Values) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(float(low), float(high))


def mcnemar_p(first_only: int, second_only: int) -> float:
    """P-value of the exact two-sided McNemar test, from the numbers of items that only one of the runs got right."""
    with extra("eval"):
        from statsmodels.stats.contingency_tables import mcnemar

    if first_only + second_only == 0:
        return 1.0
    return float(min(1.0, mcnemar([[0, first_only], [second_only, 0]], exact=True).pvalue))


def paired_test(first: Values, second: Values) -> PairedTest:
    """Compare two runs on the same items of one data set.

    Args:
        first: One number per item.
        second: The other run's numbers for the same items, in the same order.

    Returns:
        McNemar's exact test where both are 0 or 1 throughout, else the sign-flip permutation test.

    Raises:
        ValueError: The lengths differ, or there are no items.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} items: a paired test needs the same items")
    test = paired_test_of_averages([(first, second)])
    if not np.isin([first, second], (0.0, 1.0)).all():
        return test
    first_only, second_only = int(np.sum(first > second)), int(np.sum(first < second))
    p = mcnemar_p(first_only, second_only)
    return replace(test, p=p, test="McNemar (exact)", first_only=first_only, second_only=second_only)


def paired_test_of_averages(pairs: Sequence[tuple[Values, Values]]) -> PairedTest:
    """Compare two runs' averages over data sets; items are resampled, and signs flipped, within each data set.

    Args:
        pairs: For each data set the two runs' numbers for the same items.

    Raises:
        ValueError: There is no data set, or one has no items.
    """
    if not pairs or any(len(first) == 0 for first, _ in pairs):
        raise ValueError("a paired comparison needs at least one shared item in each data set")
    # Rounded so that differences of Score that are equal on paper are one value, not several a few 1e-17 apart.
    differences = [np.round(second - first, 12) for first, second in pairs]
    observed = float(np.mean([group.mean() for group in differences]))
    # The observed sample counts as one of the permutations, so that no finite number of them claims p = 0.
    as_extreme = int(np.sum(np.abs(_flipped_average(differences)) >= abs(observed) - 1e-12))
    return PairedTest(
        sum(len(group) for group in differences),
        observed,
        _percentiles(_resampled_average(differences)),
        (1 + as_extreme) / (1 + RESAMPLES),
        "sign-flip permutation",
    )


def unpaired_test(first: Values, second: Values) -> PairedTest:
    """Compare two runs on different items of one data set, at least one each: a permutation test of their means."""
    pooled = np.concatenate([first, second])
    distinct, counts = np.unique(pooled, return_counts=True)
    observed = float(second.mean() - first.mean())
    drawn = _generator(len(first), distinct, counts).multivariate_hypergeometric(counts, len(first), size=RESAMPLES)
    means = drawn @ distinct / len(first)
    differences = (pooled.sum() - means * len(first)) / len(second) - means
    as_extreme = int(np.sum(np.abs(differences) >= abs(observed) - 1e-12))
    # A group of one zero before the second keeps the two from being resampled in step.
    interval = _percentiles(2 * _resampled_average([np.zeros(1), second]) - _resampled_average([first]))
    return PairedTest(len(pooled), observed, interval, (1 + as_extreme) / (1 + RESAMPLES), "permutation")


def _flipped_average(groups: Sequence[Values]) -> Values:
    """Averages of differences whose signs are drawn at random; shape ``(RESAMPLES,)``."""
    total = np.zeros(RESAMPLES)
    for index, group in enumerate(groups):
        sizes, counts = np.unique(np.abs(group), return_counts=True)
        positive = _generator(index, sizes, counts).binomial(counts, 0.5, size=(RESAMPLES, len(sizes)))
        total += (2 * positive - counts) @ sizes / len(group)
    return total / len(groups)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of one family of tests for their number (Holm's step-down method)."""
    if not p_values:
        return []
    with extra("eval"):
        from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, alpha=SIGNIFICANT, method="holm")[1]]


def kappa_interval(pairs: Sequence[tuple[int, int]]) -> Interval:
    """The 95% interval of Cohen's kappa of two raters who say 0 or 1, from the posterior of the four cells."""
    cells = np.bincount([2 * first + second for first, second in pairs], minlength=4)
    neither, second_only, first_only, both = (
        _generator(0, np.arange(4, dtype=np.float64), cells).dirichlet(cells + 0.25, RESAMPLES).T
    )
    observed, first, second = neither + both, first_only + both, second_only + both
    expected = first * second + (1 - first) * (1 - second)
    return _percentiles((observed - expected) / (1 - expected))


def rogan_gladen(
    right: int, wrong: int, yes: int, no: int, errors: tuple[int, int, int, int]
) -> tuple[float, Interval | None]:
    """Acc corrected for the error rates of the judge that decided a part of the items (Rogan and Gladen, 1978).

    The share of yes among what it decided is what its sensitivity and specificity make of the true share, solved for
    that. The interval allows for the items, and for the few comparisons that the two rates are known from.

    Args:
        right: Items that the rules decided, correct.
        wrong: The same, not correct.
        yes: Items that the judge called correct.
        no: Items that it didn't.
        errors: Known pairs that are the same, called so and not; pairs that are different, called so and not.

    Returns:
        The corrected Acc and its 95% interval; NaN and ``None`` where there are no items, or a judge no better than
        chance decided any.
    """
    items, judged = right + wrong + yes + no, yes + no
    same_right, same_wrong, different_right, different_wrong = errors
    if items == 0:
        return float("nan"), None
    generator = _generator(0, np.array([right, wrong, yes, no], float), np.array(errors, np.int64))
    drawn = generator.multinomial(items, [right / items, wrong / items, judged / items], size=RESAMPLES) / items
    if judged == 0:
        values = np.repeat([1.0, 0.0], [right, wrong])
        return right / items, mean_interval(values)
    if not (same_right + same_wrong and different_right + different_wrong):
        return float("nan"), None
    sensitivity = same_right / (same_right + same_wrong)
    specificity = different_right / (different_right + different_wrong)
    if sensitivity + specificity <= 1:
        return float("nan"), None
    true_share = np.clip((yes / judged + specificity - 1) / (sensitivity + specificity - 1), 0, 1)

    # Jeffreys' prior for each rate: without it a judge that made no mistake yet would be taken for one that makes none.
    share, sensitivities, specificities = (
        generator.beta(successes + 0.5, failures + 0.5, RESAMPLES)
        for successes, failures in ((yes, no), (same_right, same_wrong), (different_right, different_wrong))
    )
    skill = sensitivities + specificities - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.clip((share + specificities - 1) / skill, 0, 1)
    tail = 50 * (1 - CONFIDENCE)
    # Where the judge may be no better than chance, its items may all be correct or none.
    low = np.percentile(drawn[:, 0] + drawn[:, 2] * np.where(skill > 0, shares, 0), tail)
    high = np.percentile(drawn[:, 0] + drawn[:, 2] * np.where(skill > 0, shares, 1), 100 - tail)
    value = float((right + judged * true_share) / items)
    return value, Interval(min(float(low), value), max(float(high), value))
