"""Means with intervals, and when two arms differ by more than luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ALPHA = 0.05  # the level of every judgement
SAME = 1e-9  # points: values that are no further apart are one value, as 0.3 - 0.1 and 0.4 - 0.2 are
DECIMALS = 9  # of differences in points, for the same reason
PRECISE = 1e-10  # of the ends of an interval, as shares


@dataclass(frozen=True)
class Mean:
    """A mean with its interval (95 % unless said) over `count` values; NaN where there is no luck to allow for.

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
        """Return the mean and the ends of its interval as columns of a table; NaN where there is no interval."""
        low, high = (self.low, self.high) if self.judgeable else (np.nan, np.nan)
        return {name: self.mean, f"{name}_low": low, f"{name}_high": high}

    def as_json(self, counted: str) -> dict[str, float | int | None]:
        """Return the mean, the ends of its interval (null where there is none), and the count under a name."""
        low, high = (self.low, self.high) if self.judgeable else (None, None)
        return {"mean": self.mean, "low": low, "high": high, counted: self.count}

    def __str__(self) -> str:
        """'+5.2 (+1.3 to +9.1)'; without the interval where there is one value, or the same one every time."""
        if not self.judgeable:
            return f"{self.mean:+.1f}"
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


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


def judged(gain: Mean, *, rival: str, p: float | None = None, rows: int = 1) -> str:
    """Return a gain over `rival`, one value per seed, in words: points, interval and judgement.

    p: the p-value, after correction where the gain is one of several `rows`; it then decides.
    """
    if gain.count < 2:
        return f"{gain.mean:+.1f} points over random (one seed: no interval, no judgement)"
    if not gain.judgeable:
        return f"{gain.mean:+.1f} points over random (the same in all {gain.count} seeds: no spread, no judgement)"
    differs = gain.differs_from_zero if p is None else p < ALPHA
    outcome = f"not distinguishable from {rival}"
    if differs:
        outcome = f"better than {rival}" if gain.mean > 0 else f"worse than {rival}"
    interval = f"95 % interval over {gain.count} seeds {gain.low:+.1f} to {gain.high:+.1f}"
    tested = "" if p is None else f"; p {p_value(p)}{' after Holm correction' if rows > 1 else ''}"
    return f"{gain.mean:+.1f} points over random ({interval}{tested}), {outcome}"


def p_value(p: float | None) -> str:
    """Return a p-value as it is printed: '0.031', '<0.001', '-' where there is none."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
