from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from defense.runtime import checkpoint as checkpoint
from defense.runtime.checkpoint import ThrottledCheckpoint, packed, unpacked


def same(one: Any, other: Any) -> bool:
    """Return whether two states are the same, types of numbers and keys included."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


def test_a_state_comes_back_as_it_was() -> None:
    state = {
        "weights": {0: torch.rand(3), "0": torch.tensor(7), "none": {}},
        "numbers": [0.1 + 0.2, -math.inf, 1e-300, 3, True, None, "text", []],
        "epochs": {4: {"x": torch.rand(2, 2, dtype=torch.float64)}, 10: {"x": torch.ones(1, dtype=torch.bool)}},
        "tensor": "a name that is also a mark",
    }
    tensors = packed(state)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    assert same(unpacked(tensors), state)
    assert not same(unpacked(tensors), state | {"tensor": "another"})


def test_keeping_is_seldom_and_more_so_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took, kept = [0.0], [0.1], []

    class Slow(checkpoint.NoCheckpoint):
        def save(self, part: str, tensors: dict[str, torch.Tensor]) -> None:
            kept.append((part, now[0]))
            now[0] += took[0]

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    seldom = ThrottledCheckpoint(Slow())

    def work(seconds: int) -> list[float]:
        kept.clear()
        for _ in range(seconds):
            now[0] += 1.0
            if seldom.due():
                seldom.save("a", {})
        return [when for _, when in kept]

    assert work(100) == pytest.approx([30, 60.1, 90.2])
    took[0] = 4.0
    times = work(1000)
    assert times[1] - times[0] == pytest.approx(124, abs=1)  # a thirtieth: 4 s in 124
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    work(200)
    assert len(work(10)) == 10
