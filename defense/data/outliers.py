"""Numbers of a table that are far beyond all others of their column: min-max makes a point of those."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from defense.config.choices import Outliers
from defense.errors import InputError

log = logging.getLogger(__name__)

FAR = 100  # times as far from the median as the farthest other
SHARE = 0.05  # of the rows: more are no outliers
MIDDLE = 0.98  # of the rows: those that should spread over more than a hundredth of the range
ADVICE = "data.outliers=clip cuts it off there, data.outliers=keep keeps it"


def beyond(numbers: np.ndarray) -> np.ndarray:
    """Return which of n finite numbers are outliers, bool (n,): at most SHARE of them, FAR beyond the others.

    Distances are from the median. Nothing is an outlier if nearly all numbers are the same, for a column that is
    mostly 0 says nothing of how far the others reach.
    """
    distance = np.abs(numbers - np.median(numbers))
    order = np.sort(distance)
    least = len(order) - max(1, int(SHARE * len(order)))  # the lowest place in order that an outlier may have
    for place in range(max(least, 1), len(order)):
        near, usual = order[place - 1], order[int(MIDDLE * (place - 1))]
        if usual > 0 and order[place] > FAR * near:
            return distance >= order[place]
    return np.zeros(len(numbers), dtype=bool)


def without_outliers(
    rows: pd.DataFrame, numeric: list[str], choice: Outliers, field: str, path: object
) -> pd.DataFrame:
    """Return training rows with outliers cut off at the farthest other number, or as they are, as `choice` says.

    Raises InputError for the first outlier if it says refuse. The log names columns whose range is far wider than
    that of the middle of their rows without an outlier.
    """
    changed = {}
    for name in numeric:
        numbers = rows[name].to_numpy(dtype=np.float64)
        far = beyond(numbers)
        if not far.any() or choice is Outliers.keep:
            skewed(name, numbers)
            continue
        low, high = numbers[~far].min(), numbers[~far].max()
        if choice is Outliers.refuse:
            row = rows.index[int(np.argmax(far))] + 1
            said = f"column {name} has the value {numbers[far][0]:.12g} in row {row} below the header"
            others = f"{far.sum()} of {len(far)} rows are far beyond the others, {low:g} to {high:g}"
            raise InputError(field, path, f"{said}: {others}; correct it, or {ADVICE}")
        log.info("column %s: values beyond %g to %g are cut off there, in %d rows", name, low, high, far.sum())
        changed[name] = rows[name].clip(low, high)
    return rows.assign(**changed)


def skewed(name: str, numbers: np.ndarray) -> None:
    """Say in the log if the middle of a column spreads over less than a hundredth of its range."""
    low, high = np.quantile(numbers, [(1 - MIDDLE) / 2, (1 + MIDDLE) / 2])
    if 0 < FAR * (high - low) < np.ptp(numbers):
        share = 100 * (high - low) / np.ptp(numbers)
        log.info(
            "column %s: %.0f %% of the rows share %.2g %% of its range; a logarithm spreads them",
            name,
            100 * MIDDLE,
            share,
        )
