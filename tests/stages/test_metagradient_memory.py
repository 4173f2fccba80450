"""The memory of metagradients: about two roots of the number of steps in states, and some steps of a training."""

from __future__ import annotations

import os
import subprocess
import sys
from math import sqrt
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_roots_of_states_and_four_steps() -> None:
    peaks: dict[str, int] = {}
    size = total = 0
    for what in ("nothing", "step", "scores"):
        command = [sys.executable, "-m", "tests.metagradient_memory", what]
        given_back = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed, at once
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | given_back
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=500
        )
        peaks[what], size, total = map(int, done.stdout.split())
    step = peaks["step"] - peaks["nothing"]
    allowed = (2 * sqrt(total) + 4) * size + 4 * step
    assert peaks["scores"] - peaks["nothing"] <= allowed, peaks
