"""Treated samples that are of one class, more than by chance: counted, and said on pages."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.tasks.selection import one_class, one_class_said

NAMES = ["dog", "c|at", "bird"]


def found(labels: np.ndarray, taken: np.ndarray, truth: np.ndarray | None = None) -> dict[str, Any] | None:
    """What is said of a run with these labels of its training samples."""
    scores = pd.DataFrame({"label": labels, "truth": labels if truth is None else truth})
    data = SimpleNamespace(class_names=NAMES, noise_known=truth is not None)
    return one_class(SimpleNamespace(scores=scores, data=data), taken)  # type: ignore[arg-type]


def rows(labels: np.ndarray, *counts: int) -> np.ndarray:
    """The first `counts` samples of each class, bool (n,)."""
    return np.isin(
        np.arange(len(labels)), [i for k, n in enumerate(counts) for i in np.flatnonzero(labels == k)[:n]]
    )


def tail(most: int, own: int, count: int, total: int) -> float:
    """The chance to draw `most` or more of `own` samples in `count` draws of `total`, by counting ways."""
    ways = [math.comb(own, k) * math.comb(total - own, count - k) for k in range(min(own, count) + 1)]
    return sum(ways[most:]) / sum(ways)


THREE = np.arange(180) % 3


def test_fifteen_of_eighteen_of_three_classes_are_more_than_chance() -> None:
    """The trial of a folder of pictures: result.json knew, the page did not say."""
    said = found(THREE, rows(THREE, 2, 15, 1))
    assert said is not None
    assert said.pop("p") == pytest.approx(3 * tail(15, 60, 18, 180))
    assert said == {
        "class": {"index": 1, "name": "c|at"},
        "treated": 15,
        "of": 18,
        "training": 60,
        "wrong": None,
        "flagged": True,
    }
    words = one_class_said(said, 180, {"name": "remove", "balance": "none"})
    assert words == (
        "15 of the 18 treated samples are of class c|at, as are 60 of the 180 training samples; with "
        "treatment.balance=class the budget is spent in every class alike."
    )
    for spec in ({"name": "remove", "balance": "class"}, {"name": "reweight", "balance": "none"}):
        assert one_class_said(said, 180, spec).endswith("as are 60 of the 180 training samples.")


@pytest.mark.parametrize(
    ("counts", "flagged"),
    [
        ((6, 6, 6), False),
        ((3, 0, 0), False),  # of three samples one in nine are of one class
        ((0, 0, 8), True),
        ((30, 15, 15), False),
        ((60, 60, 60), False),  # everything is treated
        ((40, 1, 1), True),
        ((26, 17, 17), False),  # unlikely enough, but not half of them
    ],
)
def test_what_is_no_more_than_chance_or_less_than_half_is_not_said(counts: tuple[int, ...], flagged: bool) -> None:
    said = found(THREE, rows(THREE, *counts))
    assert said is not None
    assert said["flagged"] is flagged
    assert bool(one_class_said(said, 180, {"name": "remove"})) is flagged


@pytest.mark.parametrize(
    ("taken", "flagged"), [((9, 0), False), ((18, 0), True), ((15, 3), False), ((30, 6), True)]
)
def test_of_two_classes_half_is_nothing(taken: tuple[int, int], flagged: bool) -> None:
    labels = np.arange(200) % 2
    said = found(labels, rows(labels, *taken))
    assert said is not None
    assert said["p"] == pytest.approx(2 * tail(taken[0], 100, sum(taken), 200))
    assert said["flagged"] is flagged


def test_a_class_that_is_most_of_the_training_samples_may_be_most_of_the_treated() -> None:
    """Nine in ten of one class: eighteen of twenty are what chance gives."""
    labels = np.r_[np.zeros(180, int), np.ones(20, int)]
    assert not found(labels, rows(labels, 18, 2))["flagged"]  # type: ignore[index]
    assert found(labels, rows(labels, 2, 18))["flagged"]  # type: ignore[index]


def test_harm_of_one_class_is_told_from_a_score_that_likes_one() -> None:
    truth = THREE.copy()
    truth[np.flatnonzero(THREE == 1)[:12]] = 0
    said = found(THREE, rows(THREE, 2, 15, 1), truth)
    assert said is not None
    assert said["wrong"] == 12
    words = one_class_said(said, 180, {"name": "relabel"})
    assert "as are 60 of the 180 training samples, and 12 of those labels are known to be wrong; with" in words


def test_of_nothing_treated_nothing_is_said() -> None:
    assert found(THREE, np.zeros(180, bool)) is None
    assert one_class_said(None, 180, {"name": "remove"}) == ""
