"""Means with intervals, tests of paired results, corrections for their number, and agreement of orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.stats import spearmanr

FEWEST = 6  # seeds: with fewer no Wilcoxon test can reach 0.05, for 2 / 2^5 = 0.0625
ALPHA = 0.05  # the level of every judgement
SAME = 1e-9  # points: values that are no further apart are one value, as 0.3 - 0.1 and 0.4 - 0.2 are
DECIMALS = 9  # of differences in points, for the same reason
PRECISE = 1e-10  # of the ends of an interval, as shares


@dataclass(frozen=True)
class Mean:
    """A mean with its interval (95 % unless said) over `count` values; NaN if there is no luck to allow for.

    Over seeds by Student's t, infinite for one value; over test samples by Tango's score.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def judgeable(self) -> bool:
        """Whether the values say how far chance moves them: there are several, and not all are the same.

        Accuracies move in steps of one sample. Two seeds with one gain have no spread by that rounding alone, and
        an interval without width would call any gain certain.
        """
        return self.count > 1 and self.high > self.low

    @property
    def differs_from_zero(self) -> bool:
        """Whether the values can be judged, and the interval leaves zero out."""
        return self.judgeable and (self.low > 0 or self.high < 0)

    def columns(self, name: str) -> dict[str, float]:
        """Return the mean and the ends of its interval as columns of a table; NaN if there is no interval."""
        low, high = (self.low, self.high) if self.judgeable else (np.nan, np.nan)
        return {name: self.mean, f"{name}_low": low, f"{name}_high": high}

    def as_json(self, counted: str) -> dict[str, float | int | None]:
        """Return the mean, the ends of its interval (null if there is none), and the count under a name."""
        low, high = (self.low, self.high) if self.judgeable else (None, None)
        return {"mean": self.mean, "low": low, "high": high, counted: self.count}

    def within(self, low: float, high: float) -> Mean:
        """Return the mean with the ends of its interval within [low, high], as of correlations."""
        return Mean(self.mean, max(self.low, low), min(self.high, high), self.count)

    def text(self, decimals: int = 1, *, signed: bool = True) -> str:
        """Return '+5.2 (+1.3 to +9.1)'; without the interval of one value, or of the same one every time."""
        mean, low, high = (
            format(value, f"{'+' * signed}.{decimals}f") for value in (self.mean, self.low, self.high)
        )
        return f"{mean} ({low} to {high})" if self.judgeable else mean

    def __str__(self) -> str:
        return self.text()


def mean_interval(values: Sequence[float] | np.ndarray, *, confidence: float = 0.95) -> Mean:
    """Return the mean of `values` (n,), n >= 1, with its interval; raises ValueError for NaN."""
    numbers = np.asarray(values, dtype=float)
    if np.isnan(numbers).any():
        raise ValueError("a mean of NaN was asked for")
    mean, count = float(numbers.mean()), len(numbers)
    if count == 1:
        return Mean(mean, -np.inf, np.inf, 1)
    if np.ptp(numbers) < SAME:
        return Mean(mean, mean, mean, count)
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1) * stats.sem(numbers))
    return Mean(mean, mean - half, mean + half, count)


def deviation(values: Sequence[float] | np.ndarray) -> float:
    """Return the standard deviation of `values` (n,), with n - 1; NaN of one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def geometric(values: Sequence[float] | np.ndarray) -> Mean:
    """Return the geometric mean of `values` (n,) above 0 with its 95 % interval: that of ratios and times."""
    found = mean_interval(np.log(np.asarray(values, dtype=float)))
    mean, low, high = (float(np.exp(value)) for value in (found.mean, found.low, found.high))
    return Mean(mean, low, high, found.count)


def paired_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, confidence: float = 0.95
) -> Mean:
    """Return the mean of first - second with its interval; row i of both is the same seed."""
    apart = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    return mean_interval(np.round(apart, DECIMALS), confidence=confidence)


def percent(count: int, total: int) -> float:
    """Return `count` of `total` in percent, the float next to it: 7 of 50 are 14.0, not 14.000000000000002."""
    return 100 * int(count) / int(total)


def points(value: float) -> float:
    """Return a difference or a mean of percents without the dust of its computation."""
    return round(float(value), DECIMALS)


def paired_accuracies(
    first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray, *, confidence: float = 0.95
) -> Mean:
    """Return the accuracy of one model minus that of another in points, with Tango's interval over samples.

    first, second: bool (n,), whether each is right on a sample, the same in both.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    gained, lost = int((one & ~other).sum()), int((~one & other).sum())
    low, high = tango(gained, lost, len(one), confidence=confidence)
    return Mean(100 * (gained - lost) / len(one), 100 * low, 100 * high, len(one))


def tango(gained: int, lost: int, count: int, *, confidence: float) -> tuple[float, float]:
    """Return the score interval of (gained - lost) / count, the difference of two paired proportions, in [-1, 1].

    All differences d with (gained - lost - n d)^2 <= z^2 n (2 q + d (1 - d)); q is the maximum likelihood estimate
    of the share that is lost if the difference is d. Right for few discordant pairs, too: without any it is
    +-z^2 / (n + z^2) (Tango, Statistics in Medicine 17, 1998).
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))

    def upper(gained: int, lost: int) -> float:
        inside, outside = (gained - lost) / count, 1.0
        while outside - inside > PRECISE:
            middle = (inside + outside) / 2
            b = (2 * count - gained + lost) * middle - gained - lost
            share = (np.sqrt(b * b + 8 * count * lost * middle * (1 - middle)) - b) / (4 * count)
            variance = count * (2 * share + middle * (1 - middle))
            if (gained - lost - count * middle) ** 2 <= z * z * variance:
                inside = middle
            else:
                outside = middle
        return outside

    return -upper(lost, gained), upper(gained, lost)


def p_value(p: float | None) -> str:
    """Return a p-value as it is printed: '0.031', '<0.001', '-' if there is none."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True)
class Paired:
    """A mean difference, paired by seed, with two-sided p-values; None where nothing can be said."""

    difference: Mean
    t: float | None
    wilcoxon: float | None


def compared(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Paired:
    """Return first - second, both (n,), by Student's paired t test and Wilcoxon's signed-rank test.

    One value has no p-value. Nor have differences without spread one by t: see Mean.judgeable. Wilcoxon's test,
    exact for few seeds, needs a difference other than zero.
    """
    difference = paired_difference(first, second)
    apart = np.round(
        np.asarray(first, dtype=float) - np.asarray(second, dtype=float), 9
    )  # 0.3 - 0.1 ties 0.4 - 0.2
    t = float(stats.ttest_1samp(apart, 0).pvalue) if difference.judgeable else None
    ranks = signed_ranks(apart) if len(apart) > 1 and apart.any() else None
    return Paired(difference, t, ranks)


def signed_ranks(differences: np.ndarray) -> float:
    """Return the exact two-sided p-value of Wilcoxon's signed-rank test; of `differences` (n,) zeros are left out.

    The share of all 2^n ways to sign the ranks whose sum is as far from the middle as that of the positive ones;
    ties share their rank. (With ties scipy.stats.wilcoxon goes through every way: seconds for twelve seeds.)
    """
    left = differences[differences != 0]
    ranks = np.rint(2 * stats.rankdata(np.abs(left))).astype(int)  # doubled: those of ties are halves
    ways = np.ones(1)  # how many give each sum
    for rank in ranks:
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    middle, own = ranks.sum() / 2, ranks[left > 0].sum()
    far = np.abs(np.arange(len(ways)) - middle) >= abs(own - middle)
    return float(ways[far].sum() / ways.sum())


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for how many there are, by Holm's step-down method; None stays None, uncounted.

    The k-th smallest of m becomes the largest of (m - j + 1) p_j over j <= k, at most 1. Calling different what is
    below 0.05 then calls one or more wrongly in at most 5 % of tables, however its rows depend on each other
    (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    known = sorted((p, row) for row, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, row) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[row] = highest
    return corrected


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return McNemar's exact two-sided p-value of two models, each right or wrong, bool (n,), on the same samples.

    Only samples on which one is right and the other wrong count: under chance either is as likely (binomial).
    """
    one, other = int((first & ~second).sum()), int((~first & second).sum())
    return float(stats.binomtest(one, one + other).pvalue) if one + other else 1.0


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rho of two rows of numbers (n,), in [-1, 1]; 0 if all numbers of one are the same."""
    return 0.0 if np.ptp(first) == 0 or np.ptp(second) == 0 else float(spearmanr(first, second).statistic)
