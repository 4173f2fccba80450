"""Points in the plane, and boxes of flipped labels, against scikit-learn and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from defense.config.choices import Harm, Source
from defense.data.load import load
from defense.data.points import DRAWN, MOONS, ROOM
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from defense.randomness import derive
from tests.conftest import data

SIZES = {"train_size": 250, "validation_size": 60, "test_size": 80}


def points(split: Split) -> np.ndarray:
    return split.images.take(torch.arange(len(split))).flatten(1).numpy()


def loaded(source: Source, *, seed: int = 0, **changes: Any) -> Dataset:
    return load(data(source=source, **(SIZES | changes)), seed=seed)


def test_moons_are_those_of_scikit_learn_moved_into_the_unit_square() -> None:
    spec = data(source=Source.moons, spread=0.125, **SIZES)
    found = DRAWN[Source.moons](spec, seed=3).train
    expected, labels = make_moons(390, noise=0.125, random_state=derive(3, "points"))
    low, high = MOONS[0] - ROOM * 0.125, MOONS[1] + ROOM * 0.125
    np.testing.assert_allclose(points(found) * (high - low) + low, expected, atol=1e-5)
    assert found.labels.tolist() == labels.tolist()
    assert found.images.shape == (2, 1, 1)


def test_blobs_lie_around_their_centres() -> None:
    found = loaded(Source.blobs, train_size=4000, spread=0.8)
    low, high = -1 - ROOM * 0.8, 1 + ROOM * 0.8
    x, labels = points(found.train) * (high - low) + low, found.train.truth.numpy()
    for label, centre in ((0, -1.0), (1, 1.0)):
        assert np.allclose(x[labels == label].mean(0), centre, atol=0.08)
        assert np.allclose(x[labels == label].std(0), 0.8, atol=0.05)


@pytest.mark.parametrize("source", [Source.blobs, Source.moons])
def test_every_seed_is_a_draw_of_its_own(source: Source) -> None:
    first, again, other = loaded(source), loaded(source), loaded(source, seed=1)
    assert [len(split) for split in first.splits.values()] == [250, 60, 80]
    assert first.train.digests == again.train.digests
    assert not np.array_equal(points(first.train), points(other.train))
    for split in first.splits.values():
        assert points(split).min() >= 0
        assert points(split).max() <= 1
    assert len({tuple(x) for split in first.splits.values() for x in points(split).tolist()}) == 390


def test_points_without_a_number_are_an_error() -> None:
    with pytest.raises(InputError, match=r"data\.test_size=null: expected a number: points are drawn, data=moons"):
        loaded(Source.moons, test_size=None)


def test_a_box_holds_ten_flipped_labels_of_each_class_and_none_are_outside() -> None:
    """Looked at from outside: of a class, what is flipped is nearer to some sample of it than all the rest."""
    for seed in range(5):
        train = loaded(Source.moons, seed=seed, harm=Harm.boxes, harm_rate=0.08).train
        x, labels, truth = points(train), train.labels.numpy(), train.truth.numpy()
        for label in (0, 1):
            own = [row for row in range(250) if truth[row] == label]
            flipped = {row for row in own if labels[row] != label}
            assert len(flipped) == 10
            nearest = [
                {row for _, row in sorted((np.abs(x[row] - x[centre]).max(), row) for row in own)[:10]}
                for centre in own
            ]
            assert flipped in nearest
    assert (
        train.labels.tolist()
        == loaded(Source.moons, seed=4, harm=Harm.boxes, harm_rate=0.08).train.labels.tolist()
    )


def test_an_odd_number_of_flips_is_shared_out_as_evenly_as_it_can_be() -> None:
    train = loaded(Source.blobs, harm=Harm.boxes, harm_rate=0.02).train  # five
    wrong = train.labels != train.truth
    assert torch.bincount(train.truth[wrong]).tolist() == [3, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": Source.digits}, r"data\.harm=boxes: expected points, as those of data=moons"),
        (
            {"source": Source.moons, "harm_rate": 0.999, "train_size": 251},
            r"asks for more samples in a box",
        ),
        ({"source": Source.moons, "harm_rate": 0.001}, r"is less than one of 250 training samples"),
    ],
)
def test_boxes_that_cannot_be_are_an_error(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(data(harm=Harm.boxes, **(SIZES | changes)), seed=0)
