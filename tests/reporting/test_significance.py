"""Tests of paired results, held against enumeration, closed testing and simulation."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from defense.reporting.statistics import FEWEST, compared, holm, mcnemar


def test_t_is_scipys_paired_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 7), rng.normal(0, 1, 7)
    found = compared(first, second)
    assert found.t == pytest.approx(float(stats.ttest_rel(first, second).pvalue))
    assert (found.t < 0.05) == found.difference.differs_from_zero  # type: ignore[operator]


@pytest.mark.parametrize(
    "gains", [[1, 2, 3, 4, 5], [1, 1, -2, 3, 3], [0.5, 0, 2, -1, -1, 4], [-3, -1, -2, -2, 0, 0]]
)
def test_wilcoxon_is_what_all_signs_give(gains: list[float]) -> None:
    """Of every way to sign the ranks, the share whose sum is as far from the middle; ties share, zeros go."""
    left = np.array([gain for gain in gains if gain])
    ranks = stats.rankdata(np.abs(left))
    sums = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up)
        for signs in product((0, 1), repeat=len(left))
    ]
    middle, own = ranks.sum() / 2, ranks[left > 0].sum()
    expected = np.mean([abs(total - middle) >= abs(own - middle) - 1e-12 for total in sums])
    assert compared(gains, np.zeros(len(gains))).wilcoxon == pytest.approx(expected)


def test_wilcoxon_is_scipys_where_no_ranks_are_shared() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 5, 12, 30):
        gains = rng.normal(0.3, 1, count)
        expected = float(stats.wilcoxon(gains, method="exact").pvalue)
        assert compared(gains, np.zeros(count)).wilcoxon == pytest.approx(expected)


def test_wilcoxon_reaches_a_twentieth_with_as_many_seeds_as_the_page_says_and_not_before() -> None:
    for count in range(2, 9):
        lowest = compared(np.arange(1.0, count + 1), np.zeros(count)).wilcoxon
        assert lowest is not None
        assert (lowest < 0.05) == (count >= FEWEST)


@pytest.mark.parametrize("gains", [[3.0], [0.4, 0.4], [0.0, 0.0, 0.0]])
def test_what_has_no_spread_has_no_p_value(gains: list[float]) -> None:
    """Two seeds with one gain, by the rounding of an accuracy: an interval of no width would call it certain."""
    found = compared(gains, np.zeros(len(gains)))
    assert found.t is None
    assert not found.difference.differs_from_zero


def test_gains_that_differ_in_the_last_bit_alone_are_the_same() -> None:
    found = compared([0.3, 0.4, 29.4], [0.1, 0.2, 29.2])
    assert (found.t, found.difference.differs_from_zero) == (None, False)
    assert compared([0.3, 0.4, 29.4], [0.1, 0.2, 29.2]).wilcoxon == pytest.approx(0.25)  # three ties of one sign


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A row is different where every set of rows that holds it is, each by Bonferroni's own correction."""
    corrected = holm(p_values)
    rows = range(len(p_values))
    for row in rows:
        sets = (held for size in range(1, len(p_values) + 1) for held in combinations(rows, size) if row in held)
        expected = max(min(1.0, len(held) * min(p_values[other] for other in held)) for held in sets)
        assert corrected[row] == pytest.approx(expected)


def test_holm_counts_those_alone_that_have_a_p_value() -> None:
    assert holm([0.03, None, 0.01, None]) == pytest.approx([0.03, None, 0.02, None])
    assert holm([]) == []


def test_mcnemar_is_a_fair_coin_over_the_samples_that_differ() -> None:
    first = np.array([1] * 9 + [0] * 2 + [1] * 30 + [0] * 5, dtype=bool)
    second = np.array([0] * 9 + [1] * 2 + [1] * 30 + [0] * 5, dtype=bool)
    assert mcnemar(first, second) == pytest.approx(2 * sum(comb(11, heads) for heads in range(3)) / 2**11)
    assert mcnemar(first, second) == mcnemar(second, first)
    assert mcnemar(first, first) == 1
