"""Two processes that share scores and attacks take little more than half of the processor time each."""

from __future__ import annotations

import pytest
import torch

from defense.runtime.processes import spawned
from tests.benchmarks.sharing import ROUNDS, measured


@pytest.mark.slow
@pytest.mark.timed
def test_two_processes_are_faster() -> None:
    """By the time of the busier processor, beside two that do all: seconds tell of the rest of the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = spawned(measured, 2, ["score", "attack"], ROUNDS)
    finally:
        torch.set_num_threads(threads)
    for name, taken in found.items():
        assert taken.busy_factor > 1.5, (name, taken)
