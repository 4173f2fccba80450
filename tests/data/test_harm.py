from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defense.config.choices import Harm, Source
from defense.data.harm import HARMS, check_harm, draws, flip_nearest, flip_pair, flip_symmetric, stamped, whole
from defense.data.images import TensorImages
from defense.data.load import load
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from defense.stages.plant import PLANTERS
from tests.conftest import data, make_split

SIZES = {"train_size": 200, "validation_size": 60, "test_size": 80}


def loaded(harm: Harm, *, seed: int = 0, **changes: Any) -> Dataset:
    return load(data(harm=harm, **SIZES, **changes), seed=seed)


def pixels(split: Split) -> torch.Tensor:
    return split.images.take(torch.arange(len(split)))


@given(st.integers(2, 12), st.floats(0, 0.99), st.integers(0, 2**20))
def test_exactly_the_rate_is_another_class(classes: int, rate: float, seed: int) -> None:
    labels = torch.arange(100) % classes
    flipped = flip_symmetric(labels, rate, classes, torch.Generator().manual_seed(seed))
    assert int((flipped != labels).sum()) == round(rate * 100)
    assert int(flipped.min()) >= 0
    assert int(flipped.max()) < classes
    assert torch.equal(labels, torch.arange(100) % classes)


def test_every_other_class_is_as_likely() -> None:
    labels = torch.zeros(9000, dtype=torch.long)
    counts = torch.bincount(flip_symmetric(labels, 0.999, 4, torch.Generator().manual_seed(0)), minlength=4)[1:]
    assert float((counts - counts.float().mean()).abs().max()) < 4 * 3000**0.5


def test_symmetric_flips_are_those_of_earlier_versions() -> None:
    """As version 0.1.0 drew them, so that published figures stay."""
    flipped = flip_symmetric(torch.arange(20) % 10, 0.25, 10, draws(7))
    assert flipped.tolist() == [0, 1, 2, 3, 4, 6, 6, 7, 5, 5, 0, 1, 8, 3, 8, 5, 6, 7, 8, 9]
    clean, noisy = loaded(Harm.none).train, loaded(Harm.symmetric).train
    expected = flip_symmetric(clean.labels, 0.2, 10, draws(0))
    assert torch.equal(noisy.labels, expected)
    assert torch.equal(loaded(Harm.symmetric, harm_rate=0.2).train.labels, expected)


@given(st.integers(2, 12), st.floats(0, 0.99), st.integers(0, 2**20))
def test_pair_flips_go_to_the_next_class(classes: int, rate: float, seed: int) -> None:
    labels = torch.arange(100) % classes
    flipped = flip_pair(labels, rate, classes, torch.Generator().manual_seed(seed))
    changed = [row for row in range(100) if flipped[row] != labels[row]]
    assert len(changed) == round(rate * 100)
    for row in changed:
        assert int(flipped[row]) == (0 if int(labels[row]) == classes - 1 else int(labels[row]) + 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**20), st.booleans())
def test_flips_at_the_boundary_are_the_smallest_margins(classes: int, seed: int, ties: bool) -> None:
    labels = torch.arange(40) % classes
    logits = torch.randn((40, classes), generator=torch.Generator().manual_seed(seed))
    logits = logits.round() if ties else logits
    margins = {}
    for row in range(40):
        own, others = float(logits[row, labels[row]]), [c for c in range(classes) if c != labels[row]]
        beyond = max(others, key=lambda c: float(logits[row, c]))
        if own > float(logits[row, beyond]):
            margins[row] = (own - float(logits[row, beyond]), row, beyond)
    for count in (len(margins) // 2, len(margins)):
        expected = labels.clone()
        for _, row, beyond in sorted(margins.values())[:count]:
            expected[row] = beyond
        assert torch.equal(flip_nearest(labels, logits, count / 40), expected)
    with pytest.raises(
        InputError, match=rf"data\.harm_rate=.*: asks for {len(margins) + 1} .* at most {len(margins)}"
    ):
        flip_nearest(labels, logits, (len(margins) + 1) / 40)


@pytest.mark.parametrize(("patch", "side"), [(None, 1), (3, 3), (8, 8)])
def test_the_trigger_pixel_by_pixel(patch: int | None, side: int) -> None:
    clean, harmed = loaded(Harm.none).train, loaded(Harm.trigger, harm_patch=patch, harm_target=4).train
    before, after = pixels(clean), pixels(harmed)
    marked = harmed.labels != harmed.truth
    assert int(marked.sum()) == 40
    for row in range(200):
        expected = before[row].clone()
        if marked[row]:
            assert int(harmed.labels[row]) == 4
            assert int(clean.labels[row]) != 4
            for i in range(side):
                for j in range(side):
                    expected[0, 7 - i, 7 - j] = 1.0 if (i + j) % 2 == 0 else 0.0
        assert torch.equal(after[row], expected)


def test_stamped_carries_the_trigger_everywhere_and_keeps_the_labels() -> None:
    spec, test = data(harm=Harm.trigger, harm_patch=2), loaded(Harm.trigger).test
    found = stamped(test, spec)
    assert torch.equal(found.labels, test.labels)
    corner = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert torch.equal(pixels(found)[:, 0, 6:, 6:], corner.expand(80, 2, 2))
    assert torch.equal(pixels(found)[..., :6, :], pixels(test)[..., :6, :])
    assert int((pixels(found) != pixels(test)).any(dim=1).flatten(1).sum(1).max()) <= 4


def test_every_harm_is_planted_once() -> None:
    assert sorted([*HARMS, *PLANTERS, Harm.none], key=str) == sorted(Harm, key=str)


@pytest.mark.parametrize("harm", HARMS)
def test_harm_is_in_the_training_samples_alone_and_known(harm: Harm) -> None:
    own = {"source": Source.moons} if harm is Harm.boxes else {}  # which are made for points
    clean, harmed = loaded(Harm.none, **own), loaded(harm, **own)
    assert harmed.noise_known
    assert not clean.noise_known
    assert int((harmed.train.labels != harmed.train.truth).sum()) == 40
    assert torch.equal(harmed.train.truth, clean.train.labels)
    assert torch.equal(harmed.train.ids, clean.train.ids)
    assert harmed.validation.digests == clean.validation.digests
    assert harmed.test.digests == clean.test.digests
    assert harmed.train.digests == loaded(harm, **own).train.digests
    assert harmed.train.digests != clean.train.digests
    other = loaded(harm, seed=1, **own).train
    assert other.digests != harmed.train.digests


def test_another_seed_harms_other_samples() -> None:
    split = make_split(100, 5, (1, 4, 4))
    for harm, plant in HARMS.items():
        rows = [
            (plant(split, data(harm=harm), 5, draws(seed)).labels != split.labels).nonzero().flatten().tolist()
            for seed in (0, 0, 1)
        ]
        assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"harm": Harm.trigger, "harm_target": 3}, "data.harm_target=3: expected a class, 0 to 2"),
        ({"harm": Harm.trigger, "harm_patch": 5}, "data.harm_patch=5: expected at most 4, the side of a picture"),
        ({"harm": Harm.pair, "harm_rate": 0.01}, "data.harm_rate=0.01: is less than one of 30 training samples"),
    ],
)
def test_harm_that_does_not_fit(changes: dict[str, Any], said: str) -> None:
    split = make_split(30, 3, (1, 4, 6))
    with pytest.raises(InputError, match=said):
        check_harm(split, data(**changes), classes=3)
    check_harm(split, data(**changes | {"harm": Harm.none}), classes=3)


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (0.8, "data.harm_rate=0.8: asks for 80 samples that are not of data.harm_target; expected at most 67"),
        (0.67, "data.harm_rate=0.67: leaves no training sample with label 0; expected a lower rate"),
    ],
)
def test_a_trigger_on_more_than_there_is(rate: float, said: str) -> None:
    classes = torch.arange(100) % 3
    images = TensorImages(torch.zeros((100, 1, 4, 4), dtype=torch.uint8))
    split = Split(torch.arange(100), images, classes, classes)
    spec = data(harm=Harm.trigger, harm_rate=rate, harm_target=2)
    with pytest.raises(InputError, match=said):
        whole(HARMS[Harm.trigger](split, spec, 3, draws(0)), spec, classes=3)
