"""The memory of scoring does not grow with the number of samples, but for a row of the table each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (2_000, 8_000, 32_000)
PER_SAMPLE = 1_000  # bytes: id, labels, score and the name of a file; a picture is 3,072 here, its logits 4,000


@pytest.mark.slow
def test_scoring_holds_a_batch_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(50):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    peaks = {}
    for count in COUNTS:
        command = [sys.executable, "-m", "tests.scoring_memory", str(tmp_path), str(count)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=500
        )
        peaks[count] = int(done.stdout.split()[0])
    growth = (peaks[COUNTS[-1]] - peaks[COUNTS[0]]) / (COUNTS[-1] - COUNTS[0])
    assert growth < PER_SAMPLE, peaks
