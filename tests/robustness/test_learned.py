"""Whether there is anything to compare: models that have learned something, an attack that breaks some samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from defense.config.choices import Doubt
from defense.reporting.statistics import tango
from defense.robustness.checks import FEW, compared_under, learned

TEN = np.arange(200) % 10  # labels of ten classes of one size
RARE = np.r_[np.zeros(190, int), np.ones(10, int)]  # one in twenty is of the other class


def replaced(labels: np.ndarray, right: int, by: int) -> np.ndarray:
    """Return predictions of class `by`, but for the first samples of other labels, `right` of which are right."""
    given = np.full_like(labels, by)
    others = np.flatnonzero(labels != by)[:right]
    given[others] = labels[others]
    return given


@pytest.mark.parametrize("by", [0, 3, 9])
def test_one_class_for_everything_is_nothing_learned_however_often_it_is_right(by: int) -> None:
    for labels, given in ((TEN, by), (RARE, 0), (RARE, 1), (RARE, by)):
        found = learned(labels, np.full_like(labels, given))
        assert (found.learned, found.doubt) == (False, Doubt.one_class)
        assert (found.predicted_class, found.predicted_count) == (given, len(labels))
        assert found.right == int((labels == given).sum())
        assert found.p_class == 1


def test_nearly_one_class_is_as_little() -> None:
    """A tenth of the samples that have another class is the line, whether those few are right or not."""
    assert learned(TEN, replaced(TEN, 18, 0)).doubt is Doubt.nearly_one_class
    assert learned(TEN, replaced(TEN, 40, 0)).learned
    two = np.arange(200) % 2
    assert learned(two, replaced(two, 10, 1)).doubt is Doubt.nearly_one_class
    assert learned(two, replaced(two, 60, 1)).doubt is None


def test_what_finds_a_rare_class_has_learned_though_it_is_right_no_more_often() -> None:
    """Half of ten samples among 200 found, at one false alarm: accuracy 97 %, where the largest class has 95 %."""
    given = replaced(RARE, 5, 0)
    given[0] = 1
    found = learned(RARE, given)
    assert (found.right, found.largest_class, found.largest_count) == (194, 0, 190)
    assert found.p_right > 0.001
    ways = [math.comb(10, k) * math.comb(190, 6 - k) for k in range(7)]
    assert found.p_class == pytest.approx(2 * sum(ways[5:]) / sum(ways))  # Fisher's exact test, of two classes
    assert (found.learned, found.doubt) == (True, Doubt.largest_class)


def test_the_accuracy_that_is_no_more_than_chance_is_where_the_binomial_says() -> None:
    """Of two classes of one size, for several numbers of samples; p by summing up."""
    for count in (20, 50, 120):
        labels = np.arange(count) % 2
        for right in range(count // 2, count + 1):
            given = np.where(np.arange(count) < right, labels, 1 - labels)
            found = learned(labels, given)
            tail = sum(math.comb(count, k) for k in range(right, count + 1)) / 2**count
            assert found.p_right == pytest.approx(tail)
            assert (found.doubt is None) == (tail <= 0.001)


def test_guesses_are_seldom_called_learned_and_models_that_know_a_little_seldom_are_not() -> None:
    """At most two in a thousand guesses; with 40 % right of ten classes in 100 samples all are."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 10
    guesses = [learned(labels, rng.integers(0, 10, 100)) for _ in range(500)]
    assert sum(found.learned for found in guesses) <= 4  # 1 on the mean; more than 4 once in 500
    assert {found.doubt for found in guesses if not found.learned} == {Doubt.chance}
    for _ in range(50):
        given = np.where(rng.random(100) < 0.4, labels, rng.integers(0, 10, 100))
        found = learned(labels, given)
        assert cohen_kappa_score(labels, given) > 0.2
        assert (found.learned, found.doubt) == (True, None)


def test_classes_without_a_test_sample_or_never_predicted_count_for_nothing() -> None:
    """Class 5 is in no label, class 7 in no prediction; one sample alone says nothing."""
    labels = np.r_[np.zeros(50, int), np.full(50, 7)]
    assert learned(labels, np.where(np.arange(100) < 50, 0, 5)).learned
    assert not learned(np.array([0]), np.array([0])).learned
    assert learned(labels, np.full(100, 5)).right == 0


@pytest.mark.parametrize(
    ("standing", "doubt"),
    [
        ((0, 0, 0), Doubt.too_strong),
        ((3, 1, 0), Doubt.too_strong),
        ((4, 0, 0), None),
        ((25, 20, 30), None),
        ((50, 50, 50), Doubt.too_weak),
        ((47, 50, 49), Doubt.too_weak),
        ((46, 50, 50), None),
        ((0, 50, 50), None),
    ],
)
def test_an_attack_that_leaves_nothing_or_everything_compares_no_arms(
    standing: tuple[int, int, int], doubt: Doubt | None
) -> None:
    arms = {name: np.arange(50) < count for name, count in zip("abc", standing, strict=True)}
    found = compared_under(arms, dict.fromkeys(arms, np.ones(50, bool)))
    assert found.doubt is doubt
    assert (found.samples, found.standing) == (50, dict(zip("abc", standing, strict=True)))


def test_with_so_few_right_no_difference_leaves_zero_out_and_with_one_more_some_does() -> None:
    for count in (50, 500, 5000):
        assert all(tango(right, 0, count, confidence=0.95)[0] < 0 for right in range(FEW + 1))
        assert tango(FEW + 1, 0, count, confidence=0.95)[0] > 0


def test_of_a_handful_of_samples_fewer_are_few() -> None:
    none = {count: {"a": np.zeros(count, bool)} for count in (2, 10, 29, 30, 1000)}
    assert [compared_under(each, each).allowed for each in none.values()] == [0, 1, 2, FEW, FEW]
    half = {"a": np.array([True, True, False, False])}
    assert compared_under(half, {"a": np.ones(4, bool)}).doubt is None


def test_an_attack_that_breaks_nothing_that_was_right_is_too_weak_however_many_are_wrong() -> None:
    clean = {"a": np.arange(50) < 40, "b": np.arange(50) < 42}
    found = compared_under({"a": np.arange(50) < 38, "b": clean["b"]}, clean)
    assert (found.doubt, found.broken) == (Doubt.too_weak, {"a": 2, "b": 0})
    assert compared_under({"a": np.arange(50) < 36, "b": clean["b"]}, clean).doubt is None
