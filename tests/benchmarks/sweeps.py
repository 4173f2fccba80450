"""What a sweep costs beside its stages: run `python -m tests.benchmarks.sweeps [--cells 1000]`.

Three measurements, each in processes of their own and on an empty folder:

- 12 cells of the default (3 seeds, 2 scorers, 2 budgets): wall time over the seconds of distinct stages and the
  start of Python;
- the same again, with every stage and page in the store: seconds a cell beyond the start of Python;
- many small cells, all stored: seconds a cell, and the largest memory beside that of a tenth of the cells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRID = ["-m", "seed=range(3)", "scorer=ip,loss", "treatment.budget=0.1,0.2"]
START = "import defense.tasks.registry, defense.tasks.writing, defense.reporting.charts, defense.cli.plan"
SMALL = [
    "data=moons", "model.hidden=[4]", "data.train_size=100", "data.validation_size=20", "data.test_size=40",
    "train.epochs=1", "evaluation.checked=0", "evaluation.trusted=false", "evaluation.attacks.pgd.steps=1",
    "evaluation.attacks.apgd_t.steps=1",
]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cells", type=int, default=1000, help="of the sweep of small ones; a multiple of 10")
    cells = parser.parse_args().cells
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = min(timed([sys.executable, "-c", START], folder)[0] for _ in range(3))
        print(f"start of Python, with all imports: {start:.2f} s")
        report_default(folder, start)
        report_many(folder, start, cells)


def report_default(folder: Path, start: float) -> None:
    """Print what the default grid costs, computed and stored."""
    wall, _ = swept(folder, "computed", *GRID)
    stages = distinct_seconds(folder / "computed")
    print(
        f"12 cells, empty store: {wall:.1f} s, {wall / (start + stages):.2f} of start and stages ({stages:.1f} s)"
    )
    wall, _ = swept(folder, "stored", *GRID)
    print(f"12 cells, all stored: {wall:.1f} s, {(wall - start) / 12:.2f} s a cell beyond the start")


def report_many(folder: Path, start: float, cells: int) -> None:
    """Print what many stored cells cost in time and memory."""
    tenth = ["-m", *SMALL, "seed=0", f"treatment.budget={budgets(cells // 10)}"]
    every = ["-m", *SMALL, "seed=range(10)", f"treatment.budget={budgets(cells // 10)}"]
    swept(folder, "first", *every)
    _, few = swept(folder, "few", *tenth)
    wall, many = swept(folder, "many", *every)
    print(f"{cells} small cells, all stored: {wall / 60:.1f} min, {(wall - start) / cells:.2f} s a cell")
    print(f"memory of {cells} cells: {many:.0f} MB; of {cells // 10}: {few:.0f} MB")


def budgets(count: int) -> str:
    """Return so many budgets as an override takes them."""
    return ",".join(f"{0.05 + 0.4 * number / count:.4f}" for number in range(count))


def swept(folder: Path, name: str, *words: str) -> tuple[float, float]:
    """Run a sweep into a folder of that name; return its wall time in seconds and its memory in MB."""
    return timed([sys.executable, "-m", "defense", *words, "store=store", f"hydra.sweep.dir={name}"], folder)


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return its wall time in seconds and its largest memory in MB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}:\n{said}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def distinct_seconds(sweep: Path) -> float:
    """Return the seconds of every stage that the cells of a sweep computed, each once."""
    found: dict[str, float] = {}
    for file in sweep.glob("*/result.json"):
        result = json.loads(file.read_text("utf-8"))
        for label, key in result["keys"].items():
            if label not in result["reused"]:
                found[key] = result["seconds"][label]
    return sum(found.values())


if __name__ == "__main__":
    main()
