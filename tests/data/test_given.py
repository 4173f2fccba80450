from __future__ import annotations

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies

from defense.data.given import Given, halves, origins_of
from defense.errors import InputError
from tests.conftest import make_split


def test_versions_of_one_text_have_one_origin() -> None:
    texts = [
        "the film is a quiet joy from start to finish",
        "nothing here is worth the ticket",
        "the film is a qu1et joy from start to finish",  # a typing error
        "nothing here is worth the price",
        "The FILM is a quiet joy from start to end , honestly",
    ]
    assert origins_of(texts).tolist() == [0, 1, 0, 1, 0]


def test_a_chain_of_versions_has_one_origin() -> None:
    assert origins_of(["a b c d", "e f g h", "c d e f"]).tolist() == [0, 0, 0]  # a third of the words each


@drawn(
    origins=strategies.lists(strategies.integers(0, 9), min_size=20, max_size=60),
    seed=strategies.integers(0, 1000),
)
def test_halves_share_no_origin_and_have_every_class_in_its_share(origins: list[int], seed: int) -> None:
    found = torch.tensor([*origins, *range(10, 20)])  # and some that are alone
    split = make_split(len(found), 2, (1, 1, 4))
    labels = found % 2  # of a class are versions of one
    split = type(split)(split.ids, split.images, labels, labels)
    parts = halves(Given(split, found), seed=seed)
    own = {name: set(found[part.ids].tolist()) for name, part in parts.items()}
    assert not own["validation"] & own["test"]
    assert sorted(torch.cat([part.ids for part in parts.values()]).tolist()) == list(range(len(found)))
    largest = int(found.bincount().max())
    counts = [part.labels.bincount(minlength=2) for part in parts.values()]
    assert int((counts[0] - counts[1]).abs().max()) <= largest


def test_halves_differ_between_seeds_and_not_within_one() -> None:
    split = make_split(40, 2, (1, 1, 4))
    whole = Given(split, torch.arange(40))
    first, again, other = (halves(whole, seed=seed)["test"].ids.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_a_class_of_one_origin_cannot_be_halved() -> None:
    split = make_split(6, 2, (1, 1, 4))
    with pytest.raises(InputError, match="expected two origins of each class"):
        halves(Given(split, torch.tensor([0, 1, 2, 1, 4, 1])), seed=0)
