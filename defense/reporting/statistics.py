"""Means with intervals, and when two arms differ by more than luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Mean:
    """A mean with its interval (Student's t, 95 % unless said) over `count` values; infinite for one value."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def differs_from_zero(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        """'+5.2 (+1.3 to +9.1)'; without the interval where there is one value only."""
        if self.count < 2:
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
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1) * stats.sem(numbers))
    return Mean(mean, mean - half, mean + half, count)


def paired_difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, confidence: float = 0.95
) -> Mean:
    """Return the mean of first - second with its interval; row i of both is the same sample or seed."""
    return mean_interval(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), confidence=confidence)


def judged(gain: Mean, *, rival: str) -> str:
    """Return a gain over `rival`, one value per seed, in words: points, interval and judgement."""
    if gain.count < 2:
        return f"{gain.mean:+.1f} points over random (one seed: no interval, no judgement)"
    outcome = f"not distinguishable from {rival}"
    if gain.differs_from_zero:
        outcome = f"better than {rival}" if gain.mean > 0 else f"worse than {rival}"
    interval = f"95 % interval over {gain.count} seeds {gain.low:+.1f} to {gain.high:+.1f}"
    return f"{gain.mean:+.1f} points over random ({interval}), {outcome}"
