"""Which points are moved, and how far they may go."""

from __future__ import annotations

import pytest
import torch

from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.errors import InputError
from defense.stages.evade import median_length, mixed, movers

X = torch.zeros(5, 2, 1, 1)
SPLIT = Split(torch.arange(5), TensorImages(X), torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long))


def test_a_larger_share_moves_those_of_a_smaller_one_too() -> None:
    few, many = (movers(40, share, seed=0) for share in (0.1, 0.25))
    assert (int(few.sum()), int(many.sum())) == (4, 10)
    assert bool(many[few].all())
    assert not torch.equal(few, movers(40, 0.1, seed=1))


def test_a_share_that_moves_nothing_is_said() -> None:
    with pytest.raises(InputError, match=r"evade.shares=0.01: moves none of 40 points"):
        movers(40, 0.01, seed=0)


def test_the_reach_is_the_median_way() -> None:
    """Ways of 5, 0, 13, 10 and 1: the median is 5."""
    ways = torch.tensor([[3.0, 4], [0, 0], [5, 12], [-6, 8], [0, -1]])
    assert median_length(SPLIT, ways[:, :, None, None]) == pytest.approx(5)


def test_chosen_points_are_replaced_and_no_others() -> None:
    chosen = torch.tensor([True, False, False, True, False])
    found = mixed(SPLIT, X + 1, chosen).images.take(torch.arange(5))
    assert torch.equal(found.flatten(1)[:, 0], chosen.float())
