"""The store under fire: processes killed at any moment, many at once, and bytes that flip. Minutes long."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from defense.store.store import verified_manifest
from tests.cli.test_cli import Command, result
from tests.conftest import TINY

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RUNS, JOBS = 12, 8
SETTINGS = [  # every stage takes about as long as the others
    *TINY[:3],
    "train.epochs=30",
    "train.ema=0.9",
    "attack.steps=120",
    "evaluation.batch_size=16",
    "scorer=ip_ensemble",
    "scorer.count=8",
    "scorer.batch_size=16",
    "evaluation.checked=0",
    "hydra.run.dir=out",
]


@dataclass
class Broken:
    """What happened to one run."""

    folder: Path
    kills: list[str] = field(default_factory=list)  # the stage that each fell into, or between for none
    flips: int = 0
    output: str = ""


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in `folder`; return when it has imported everything."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "tests.fire.driver", str(folder / "side"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    pipe = subprocess.PIPE
    job = subprocess.Popen(words, cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    assert job.stdout
    assert job.stdout.readline() == "ready\n"
    return job


def finished(folder: Path, *arguments: str) -> tuple[str, float]:
    """Run the command to its end; return what it said and the seconds after its imports."""
    job, begin = started(folder, *arguments), time.monotonic()
    output, _ = job.communicate(timeout=200)
    assert job.returncode == 0, output
    return output, time.monotonic() - begin


def flipped(file: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def steps(side: Path) -> int:
    """Return how many stages have begun or ended, as the driver writes them down."""
    return len(side.read_text("utf-8").split()) if side.exists() else 0


def broken(folder: Path, seed: int, seconds: float, whole: int) -> Broken:
    """Kill the command once or twice, sometimes with a flip in what it kept, then let it end.

    A kill comes some time after one of the `whole` steps of a run, that took `seconds`: any, whatever the load.
    """
    chance, found = random.Random(seed), Broken(folder)
    for _ in range(1 + (chance.random() < 0.3)):
        before = steps(folder / "side")
        job = started(folder, *SETTINGS)
        step, delay = before + chance.randrange(whole), chance.uniform(0, 2 * seconds / whole)
        while job.poll() is None and steps(folder / "side") < step:
            time.sleep(0.002)
        try:
            job.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            job.kill()
            found.output += job.communicate()[0]
            last = (folder / "side").read_text("utf-8").split()[-1:] if (folder / "side").exists() else []
            found.kills.append(last[0].partition("_")[0] if last and last != ["-"] else "between")
        kept = sorted(folder.glob("runs/store/*/*.part/progress/*.tensors"))
        if kept and chance.random() < 0.4:
            file = chance.choice(kept)
            flipped(file, chance.randrange(file.stat().st_size), chance.randrange(8))
            found.flips += 1
    found.output += finished(folder, *SETTINGS)[0]
    return found


def content(store: Path) -> dict[str, str]:
    """Return the checksum of every file of a store; of a manifest without its times, of whose seal none.

    Pages show times, and are left out.
    """
    found = {}
    for file in sorted(store.rglob("*")):
        if file.is_dir() or file.name == "manifest.sha256" or file.relative_to(store).parts[0] == "pages":
            continue
        content = file.read_bytes()
        if file.name == "manifest.json":
            content = json.dumps(json.loads(content) | {"seconds": None}).encode()
        found[str(file.relative_to(store))] = hashlib.sha256(content).hexdigest()
    return found


def numbers(folder: Path) -> dict[str, Any]:
    """Return what two runs of the same settings have in common, whatever times their pages show."""
    found = result(folder)
    keys = {stage: key for stage, key in found["keys"].items() if stage != "pages"}
    return {name: found[name] for name in ("arms", "checks", "selection", "verdict", "sizes")} | {"keys": keys}


def test_killed_at_any_moment_and_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, seconds = finished(tmp_path / "whole", *SETTINGS)
    expected = numbers(tmp_path / "whole/out")
    with ThreadPoolExecutor(2) as pool:
        whole = steps(tmp_path / "whole/side")
        runs = list(pool.map(lambda seed: broken(tmp_path / str(seed), seed, seconds, whole), range(RUNS)))
    stages = Counter(stage for run in runs for stage in run.kills)
    went_on = sum(run.output.count("going on from what") for run in runs)
    damaged = sum(run.output.count("is damaged: computed again") for run in runs)
    with capsys.disabled():
        kills, flips = sum(map(len, (run.kills for run in runs))), sum(run.flips for run in runs)
        print(
            f"\n{seconds:.1f} s unbroken; {kills} kills in {len(runs)} runs: {dict(stages.most_common())}; ",
            end="",
        )
        print(f"{went_on} stages went on, {flips} flips in what was kept, of which {damaged} were looked at")
    for run in runs:
        assert numbers(run.folder / "out") == expected
        assert content(run.folder / "runs/store") == content(tmp_path / "whole/runs/store")  # and so no leftovers
        for name in ("scores.parquet", "per_sample.parquet"):
            assert (run.folder / "out" / name).read_bytes() == (tmp_path / "whole/out" / name).read_bytes()
    assert sum(stages.values()) >= RUNS // 2
    assert len(set(stages) - {"between"}) >= 3
    assert went_on >= 5
    assert "corrupt" not in "".join(run.output for run in runs)


def test_eight_at_once_compute_every_stage_once(tmp_path: Path) -> None:
    alone = [*SETTINGS[:-1], f"store={tmp_path / 'store'}"]
    with ThreadPoolExecutor(JOBS) as pool:
        jobs = pool.map(lambda n: finished(tmp_path / str(n), *alone, "hydra.run.dir=out"), range(JOBS))
        outputs = [output for output, _ in jobs]
    results = [result(tmp_path / str(number) / "out") for number in range(JOBS)]
    made = Counter(
        key for found in results for label, key in found["keys"].items() if label not in found["reused"]
    )
    assert set(made) == set(results[0]["keys"].values())  # and one of them has drawn the pages
    assert set(made.values()) == {1}
    for number in range(JOBS):
        assert numbers(tmp_path / str(number) / "out") == numbers(tmp_path / "0/out")
    assert not [path for path in (tmp_path / "store").glob("*/*") if path.suffix]
    assert not [output for output in outputs if "damaged" in output or "Traceback" in output]


def test_a_byte_that_flips_in_any_file_is_noticed(command: Command, tmp_path: Path) -> None:
    assert command(*TINY, "hydra.run.dir=a")[0] == 0
    expected = numbers(tmp_path / "a")
    store = tmp_path / "runs/store"
    whole = content(store)
    files = sorted(file.relative_to(store) for file in store.rglob("*") if file.is_file())
    files = [name for name in files if name.parts[0] != "pages"]
    assert len(files) >= 40
    chance = random.Random(0)
    for number, name in enumerate(files):
        file, entry = store / name, store / name.parent
        size = file.stat().st_size
        places = [0, size // 2, size - 1, chance.randrange(size)]
        for place in places:
            kept = file.read_bytes()
            flipped(file, place, chance.randrange(8))
            assert verified_manifest(entry) is None, f"{name}, byte {place}"
            (aside,) = entry.parent.glob("*.corrupt-*")
            aside.rename(entry)
            file.write_bytes(kept)
        flipped(file, places[number % 4], chance.randrange(8))
        code, out, _ = command(*TINY, "hydra.run.dir=b")
        assert code == 0
        assert "is damaged (" in out
        assert numbers(tmp_path / "b") == expected
        assert len(set(result(tmp_path / "b")["reused"]) - {"pages"}) == len(expected["keys"]) - 1
        (aside,) = entry.parent.glob("*.corrupt-*")
        aside.rename(tmp_path / f"aside {number}")
    assert content(store) == whole
