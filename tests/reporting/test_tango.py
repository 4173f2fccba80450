"""Intervals over test samples: Tango's score interval of the difference of two paired proportions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats

from defense.reporting.statistics import paired_accuracies, percent, points, tango


def likeliest(gained: int, lost: int, count: int, apart: float) -> float:
    """The share that is lost which makes the counts likeliest, if so much more is gained; by search."""
    least, most = max(0.0, -apart), (1 - apart) / 2

    def unlikely(share: float) -> float:
        shares = (share + apart, share, 1 - 2 * share - apart)
        counts = (gained, lost, count - gained - lost)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True) if k)

    inner = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
    return float(min((least, inner, most), key=unlikely))


def score(gained: int, lost: int, count: int, apart: float) -> float:
    """How many standard errors the counts are from a true difference."""
    variance = count * (2 * likeliest(gained, lost, count, apart) + apart * (1 - apart))
    return (gained - lost - count * apart) / math.sqrt(variance)


CASES = [(1, 7, 21), (6, 16, 161), (40, 20, 160), (0, 1, 44), (3, 0, 10), (0, 9, 10), (5, 5, 12), (200, 150, 2000)]


@pytest.mark.parametrize("confidence", [0.95, 1 - 0.05 / 12])
@pytest.mark.parametrize(("gained", "lost", "count"), CASES)
def test_the_ends_are_where_the_score_test_turns(gained: int, lost: int, count: int, confidence: float) -> None:
    z = stats.norm.ppf((1 + confidence) / 2)
    middle = (gained - lost) / count
    tiny = 1e-7

    def end(sign: int) -> float:
        return float(
            optimize.brentq(
                lambda apart: score(gained, lost, count, apart) + sign * z, middle + sign * tiny, sign * (1 - tiny)
            )
        )

    low, high = tango(gained, lost, count, confidence=confidence)
    assert (low, high) == pytest.approx((end(-1), end(1)), abs=1e-5)


def test_the_published_ends() -> None:
    """Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014: hyper-responsive airways of 21 children."""
    assert tango(1, 7, 21, confidence=0.95) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_without_a_sample_that_differs_the_ends_are_those_of_the_closed_form() -> None:
    for count, confidence in product((1, 50, 10_000), (0.9, 0.95, 0.999)):
        square = stats.norm.ppf((1 + confidence) / 2) ** 2
        end = square / (count + square)
        assert tango(0, 0, count, confidence=confidence) == pytest.approx((-end, end), abs=1e-9)


@pytest.mark.parametrize("right", [0, 30, 50])
def test_two_models_that_are_right_alike_may_differ_by_seven_points_of_fifty_samples(right: int) -> None:
    alike = np.arange(50) < right
    found = paired_accuracies(alike, alike)
    assert (found.mean, found.count) == (0.0, 50)
    assert (found.low, found.high) == pytest.approx((-7.1348, 7.1348), abs=1e-3)
    assert found.judgeable
    assert not found.differs_from_zero
    assert str(found) == "+0.0 (-7.1 to +7.1)"


def test_ends_are_within_what_is_possible_and_change_sides_with_the_models() -> None:
    for gained, lost in product(range(9), range(9)):
        if gained + lost <= 8:
            low, high = tango(gained, lost, 8, confidence=0.95)
            assert -1 <= low < high <= 1
            assert low <= (gained - lost) / 8 <= high
            assert tango(lost, gained, 8, confidence=0.95) == pytest.approx((-high, -low), abs=1e-9)


def test_which_samples_differ_does_not_matter_only_how_many() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(40) < 0.7, rng.random(40) < 0.5
    order = rng.permutation(40)
    found = paired_accuracies(first, second)
    assert found == paired_accuracies(first[order], second[order])
    assert found.mean == pytest.approx(100 * (first.mean() - second.mean()))
    ends = tango(int((first & ~second).sum()), int((~first & second).sum()), 40, confidence=0.95)
    assert (found.low, found.high) == pytest.approx((100 * ends[0], 100 * ends[1]))


@pytest.mark.parametrize(("gain", "loss", "count"), [(0.03, 0.01, 50), (0.08, 0.0, 50), (0.005, 0.0, 200)])
def test_the_truth_is_covered_where_few_samples_differ(gain: float, loss: float, count: int) -> None:
    """Summed over counts; of intervals of 95 % by Student's t over samples fewer do, as few as 63 %."""
    covered, usual, every = 0.0, 0.0, 0.0
    for gained, lost in product(range(20), range(12)):
        cells = (gained, lost, count - gained - lost)
        chance = float(stats.multinomial.pmf(cells, count, (gain, loss, 1 - gain - loss)))
        low, high = tango(gained, lost, count, confidence=0.95)
        mean, square = (gained - lost) / count, (gained + lost) / count
        half = stats.t.ppf(0.975, count - 1) * math.sqrt(max(square - mean**2, 0) / (count - 1))
        covered += chance * (low <= gain - loss <= high)
        usual += chance * (abs(mean - (gain - loss)) <= half)
        every += chance
    assert every > 0.999
    assert covered > 0.93
    assert usual < 0.93


@pytest.mark.parametrize(
    ("count", "total", "found"), [(7, 50, 14.0), (29, 50, 58.0), (1, 3, 100 / 3), (0, 9, 0.0)]
)
def test_percents_are_the_floats_next_to_them(count: int, total: int, found: float) -> None:
    assert repr(percent(count, total)) == repr(found)
    assert repr(percent(np.int64(count), total)) == repr(found)


def test_seven_of_fifty_by_the_mean_are_not_fourteen() -> None:
    """The reason for `percent`: this is what was in result.json."""
    assert 100 * float((np.arange(50) < 7).mean()) == 14.000000000000002
    assert [points(value) for value in (14.000000000000002, 1.6999999999999993, -0.1)] == [14.0, 1.7, -0.1]
    assert percent(29, 50) != 100 * (29 / 50)
