"""Whether paired results differ by more than chance: over seeds, over the samples of one seed, over a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from defense.reporting.statistics import Mean, paired_difference

FEWEST = 6  # seeds: with fewer no Wilcoxon test can reach 0.05, for 2 / 2^5 = 0.0625


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
