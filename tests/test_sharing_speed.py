"""Two processes of one thread score and attack nearly twice as fast as one; see tests.benchmarks.sharing."""

from __future__ import annotations

import os

import pytest
import torch

from defense.processes import spawned
from tests.benchmarks.sharing import ROUNDS, measured


@pytest.mark.slow
def test_two_processes_are_faster() -> None:
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if cores - load < 1.5:
        pytest.skip(f"of {cores} cores {load:.1f} are at work for others: seconds would say nothing")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = spawned(measured, 2, ["score", "attack"], ROUNDS)
    finally:
        torch.set_num_threads(threads)
    for name, taken in found.items():
        assert taken.factor > 1.5, (name, taken)
