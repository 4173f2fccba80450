from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defense.data.images import TensorImages
from defense.data.load import draw, held_out, load
from defense.data.splits import Dataset
from defense.errors import InputError
from tests.conftest import data, make_split


def test_disjoint_by_id_and_stable(digits: Dataset) -> None:
    ids = [set(part.ids.tolist()) for part in (digits.train, digits.validation, digits.test)]
    assert [len(part) for part in ids] == [200, 60, 80]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]
    assert not ids[1] & ids[2]
    again = load(data(train_size=200, validation_size=60, test_size=80), seed=0)
    assert again.train.digests == digits.train.digests
    other = load(data(train_size=200, validation_size=60, test_size=80), seed=1)
    assert other.train.digests != digits.train.digests


def test_an_id_names_the_same_picture_in_every_run(digits: Dataset) -> None:
    other = load(data(validation_size=300, test_size=450), seed=7)
    rows = {int(sample): row for row, sample in enumerate(other.train.ids)}
    shared = [row for row, sample in enumerate(digits.train.ids) if int(sample) in rows]
    assert len(shared) > 50
    there = torch.tensor([rows[int(digits.train.ids[row])] for row in shared])
    here = torch.tensor(shared)
    assert torch.equal(digits.train.images.take(here), other.train.images.take(there))
    assert torch.equal(digits.train.truth[here], other.train.truth[there])


def test_noise_is_in_the_training_labels_alone(digits: Dataset) -> None:
    assert int((digits.train.labels != digits.train.truth).sum()) == 40
    for part in (digits.validation, digits.test):
        assert torch.equal(part.labels, part.truth)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 87), st.integers(0, 1000))
def test_every_class_has_its_share(size: int, seed: int) -> None:
    split = make_split(90, 3, (1, 2, 2))
    chosen, rest = draw(split, size, "data.train_size", seed)
    assert sorted([*chosen.ids.tolist(), *rest.ids.tolist()]) == list(range(90))
    assert len(chosen) == size
    counts = torch.bincount(chosen.labels, minlength=3)
    assert int(counts.max() - counts.min()) <= 1


@pytest.mark.parametrize("size", [2, 88, 91])
def test_sizes_that_do_not_fit(size: int) -> None:
    with pytest.raises(InputError, match=f"data.test_size={size}: 90 samples are there to draw from; expected 3"):
        draw(make_split(90, 3, (1, 2, 2)), size, "data.test_size", 0)


def test_trusted_samples_come_after_those_of_training(digits: Dataset) -> None:
    """Of validation, and of the part of it that is held out for a choice: each with its label and picture."""
    data = held_out(digits, 0.5, seed=0)
    assert data.choice is not None
    parts = (data.train, data.validation, data.choice)
    found = data.trusting
    for name in ("ids", "labels", "truth"):
        assert torch.equal(getattr(found.train, name), torch.cat([getattr(part, name) for part in parts]))
    pictures = [part.images.take(torch.arange(len(part))) for part in parts]
    assert torch.equal(found.train.images.take(torch.arange(260)), torch.cat(pictures))
    assert (len(found.train), len(found.validation), found.choice) == (260, 0, None)
    assert len(set(found.train.ids.tolist())) == 260
    assert found.test is digits.test
    assert torch.equal(digits.trusting.train.ids, torch.cat([digits.train.ids, digits.validation.ids]))
    assert len(data.train) == 200


def test_groups_are_joined_if_both_have_them() -> None:
    split = make_split(4, 2, (1, 2, 2))
    grouped = replace(split, groups=torch.tensor([0, 1, 1, 0]))
    assert grouped.joined(grouped).groups.tolist() == [0, 1, 1, 0, 0, 1, 1, 0]  # type: ignore[union-attr]
    assert grouped.joined(split).groups is None


def test_a_digest_tells_shape_and_type() -> None:
    flat = torch.arange(64, dtype=torch.uint8)
    forms = [flat.view(1, 1, 8, 8), flat.view(1, 1, 4, 16), flat.view(1, 1, 8, 8).view(torch.uint8).float()]
    assert len({TensorImages(pixels).digest() for pixels in forms}) == 3


def test_batches_cover_the_split_in_order() -> None:
    split = make_split(10, 2, (1, 2, 2))
    rows, pictures, labels = zip(*split.batches(4), strict=True)
    assert [(r.start, r.stop) for r in rows] == [(0, 4), (4, 8), (8, 10)]
    assert torch.equal(torch.cat(pictures), split.images.take(torch.arange(10)))
    assert torch.equal(torch.cat(labels), split.labels)


def test_a_class_with_one_sample_left_is_named() -> None:
    split = make_split(9, 3, (1, 2, 2)).subset(torch.tensor([0, 1, 3, 4, 6, 7, 8]))
    with pytest.raises(
        InputError, match=r"data\.test_size=3: one sample of class tree is there to draw from; expected"
    ):
        draw(split, 3, "data.test_size", 0, ["house", "street", "tree"])
