"""Workers of a sweep end with the process that started them, and no other process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

WORKER = """
import multiprocessing, os, sys, time
from defense.runtime.orphans import end_with_parent
multiprocessing.current_process().name = sys.argv[2]
end_with_parent()
end_with_parent()
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORKER!r}, *sys.argv[1:]])
"""


def orphaned(folder: Path, name: str) -> int:
    """Return the process of a worker whose parent was killed with no chance to clean up."""
    file = folder / "pid"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file), name])
    until = time.monotonic() + 60
    while not (file.exists() and file.read_text("utf-8")):
        assert time.monotonic() < until
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    return int(file.read_text("utf-8"))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    # Z: dead, not yet collected
    return not state.exists() or state.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"


def test_a_worker_of_joblib_ends_with_its_parent(tmp_path: Path) -> None:
    worker = orphaned(tmp_path, "LokyProcess-1")
    until = time.monotonic() + 30
    while alive(worker):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_no_other_process_does(tmp_path: Path) -> None:
    """As one that runs on after the shell that it was started in."""
    worker = orphaned(tmp_path, "MainProcess")
    time.sleep(3)
    assert alive(worker)
    os.kill(worker, signal.SIGKILL)
