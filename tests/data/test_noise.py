from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from defense.data.noise import flip_symmetric


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
