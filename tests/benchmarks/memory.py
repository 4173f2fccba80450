"""The most memory that a case takes above what is there before it, in a process of its own.

    python -m tests.benchmarks.memory CASE MODEL COUNT VALIDATION_COUNT        prints bytes

After a call on a few samples the kernel's record of the largest resident size is reset, the case is called once,
and the record is read. Blocks of 128 KiB and more go back to the system when freed, so that nothing freed before
is there to be used again. Needs Linux and glibc.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.cases import CASES, Row, Setting

ROOT = Path(__file__).resolve().parents[2]
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def peak_of(row: Row) -> int:
    """Return the bytes that one call of `row` takes at most, measured in a fresh process."""
    setting = row.setting
    numbers = (str(setting.count), str(setting.validation_count))
    command = [sys.executable, "-m", "tests.benchmarks.memory", row.case.name, setting.name, *numbers]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | MALLOC, stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def measure(row: Row) -> int:
    """Return the bytes that one call of `row` takes at most, in this process."""
    call = row.warmed()
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident size is now the present one
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Return a size of this process in bytes, as the kernel gives it."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) * 1024


if __name__ == "__main__":
    name, model, count, validation_count = sys.argv[1:]
    case = next(case for case in CASES if case.name == name)
    print(measure(Row(case, Setting(model, int(count), int(validation_count)), 1)))
