from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from defense.reporting.statistics import geometric, mean_interval, paired_difference


def test_equals_scipys_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 12), rng.normal(0, 1, 12)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = paired_difference(first, second)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(float((first - second).mean()))


def test_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = [m.low <= 0.3 <= m.high for m in (mean_interval(rng.normal(0.3, 2, 5)) for _ in range(2000))]
    assert 0.935 < np.mean(inside) < 0.965


def test_one_value_has_no_interval_and_no_difference_is_no_difference() -> None:
    one = mean_interval([3.0])
    assert math.isinf(one.high)
    assert not one.differs_from_zero
    assert str(one) == "+3.0"
    same = paired_difference(np.ones(5), np.ones(5))
    assert (same.low, same.mean, same.high) == (0, 0, 0)
    assert not same.differs_from_zero


def test_columns_have_no_ends_where_there_is_no_interval() -> None:
    assert mean_interval([1.0, 3.0]).columns("gain").keys() == {"gain", "gain_low", "gain_high"}
    assert mean_interval([1.0, 3.0]).columns("gain")["gain_high"] == pytest.approx(mean_interval([1.0, 3.0]).high)
    for values in ([2.0], [2.0, 2.0]):
        found = mean_interval(values).columns("gain")
        assert found["gain"] == 2.0
        assert math.isnan(found["gain_low"])
        assert math.isnan(found["gain_high"])


def test_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        mean_interval([1.0, math.nan])


@pytest.mark.parametrize(
    ("values", "form", "text"),
    [
        ([2.0, 2.1, 1.9], {}, "+2.0 (+1.8 to +2.2)"),
        ([2.0, 2.1, 1.9], {"decimals": 2, "signed": False}, "2.00 (1.75 to 2.25)"),
        ([-2.0], {}, "-2.0"),
        ([2.0, 2.0], {}, "+2.0"),
    ],
)
def test_a_mean_is_written_with_its_interval_if_it_has_one(
    values: list[float], form: dict[str, Any], text: str
) -> None:
    assert mean_interval(values).text(**form) == text


def test_no_end_of_an_interval_leaves_its_limits() -> None:
    assert mean_interval([0.2, 1.0]).within(-1, 1).text(3) == "+0.600 (-1.000 to +1.000)"
    assert mean_interval([0.5, 0.6, 0.7]).within(-1, 1).text(3) == "+0.600 (+0.352 to +0.848)"


def test_the_geometric_mean_of_ratios() -> None:
    """That of the inverse ratios is its inverse, interval and all; one value is itself."""
    values = [2.0, 3.0, 7.0]
    found, inverse = geometric(values), geometric([1 / value for value in values])
    assert found.mean == pytest.approx(stats.gmean(values))
    assert (found.low, found.high) == pytest.approx((1 / inverse.high, 1 / inverse.low))
    assert geometric([5.0]).mean == pytest.approx(5)
    assert not geometric([5.0]).judgeable
