from __future__ import annotations

import torch

from defense.randomness import derive, generator, global_seed


def test_purposes_are_independent_and_repeatable() -> None:
    assert derive(0, "a") == derive(0, "a")
    assert len({derive(seed, purpose) for seed in range(20) for purpose in ("a", "b")}) == 40
    assert torch.equal(torch.rand(3, generator=generator(0, "a")), torch.rand(3, generator=generator(0, "a")))


def test_global_generator_is_put_back() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with global_seed(5, "x"):
        torch.rand(7)
    assert torch.equal(torch.rand(2), expected)
