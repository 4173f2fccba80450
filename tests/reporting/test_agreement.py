"""Orders compared by loops over pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from defense.tasks.order.report import agreement, auc_of, overlap

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.standard_normal(40), RNG.standard_normal(40)


def test_rank_correlations_are_those_of_a_loop() -> None:
    found = agreement(FIRST, SECOND, 0.1)
    ranks = [np.array([sum(b < a for b in values) for a in values]) for values in (FIRST, SECOND)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    signs = [np.sign((FIRST[i] - FIRST[j]) * (SECOND[i] - SECOND[j])) for i, j in combinations(range(40), 2)]
    assert found["kendall"] == pytest.approx(np.mean(signs))


def test_the_same_order_and_the_reverse() -> None:
    same, reverse = agreement(FIRST, np.exp(FIRST), 0.1), agreement(FIRST, -FIRST, 0.1)
    assert same == pytest.approx({"spearman": 1, "kendall": 1, "overlap": 1})
    assert reverse == pytest.approx({"spearman": -1, "kendall": -1, "overlap": 0})
    assert agreement(FIRST, np.ones(40), 0.1)["spearman"] == 0


def test_overlap_counts_the_lowest_of_both() -> None:
    assert overlap(np.arange(10), np.array([9, 0, 1, 2, 3, 4, 5, 6, 7, 8]), 0.2) == 0.5
    assert overlap(np.arange(10), np.arange(10), 0.01) == 1  # one sample at least
    chance = [overlap(RNG.random(200), RNG.random(200), 0.05) for _ in range(400)]
    assert np.mean(chance) == pytest.approx(0.05, abs=0.01)


def test_auc() -> None:
    wrong = np.arange(40) < 8
    pairs = [FIRST[i] < FIRST[j] for i in range(8) for j in range(8, 40)]
    assert auc_of(FIRST, wrong) == pytest.approx(np.mean(pairs))
    assert auc_of(FIRST, np.zeros(40, dtype=bool)) is None
