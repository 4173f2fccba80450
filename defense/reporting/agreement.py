"""How alike two orders of the same samples are."""

from __future__ import annotations

import numpy as np
from scipy.stats import kendalltau, spearmanr


def agreement(first: np.ndarray, second: np.ndarray, share: float) -> dict[str, float]:
    """Return Spearman's rho, Kendall's tau-b, and the overlap of the lowest `share`, of two scores (n,).

    Both correlations are in [-1, 1], and 0 where one of the scores is the same for all: that orders nothing.
    overlap: see `overlap`; for scores that have nothing to do with each other it is `share` on the mean.
    """
    flat = np.ptp(first) == 0 or np.ptp(second) == 0
    return {
        "spearman": rank_correlation(first, second),
        "kendall": 0.0 if flat else float(kendalltau(first, second).statistic),
        "overlap": overlap(first, second, share),
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rho of two rows of numbers (n,), in [-1, 1]; 0 if all numbers of one are the same."""
    return 0.0 if np.ptp(first) == 0 or np.ptp(second) == 0 else float(spearmanr(first, second).statistic)


def overlap(first: np.ndarray, second: np.ndarray, share: float) -> float:
    """Return which part of the round(share * n) lowest, one at least, of one score are among those of the other.

    Ties go to the lower row.
    """
    count = max(1, round(share * len(first)))
    lowest = [set(np.argsort(scores, kind="stable")[:count].tolist()) for scores in (first, second)]
    return len(lowest[0] & lowest[1]) / count


def auc_of(scores: np.ndarray, wrong: np.ndarray) -> float | None:
    """Return the chance that a `wrong` sample, bool (n,), scores lower than another; None without both kinds."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, -scores)) if 0 < wrong.mean() < 1 else None
