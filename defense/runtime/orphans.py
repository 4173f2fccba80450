"""Workers of a sweep end when what hands out its cells is killed: joblib's would go on with the queue."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

WORKERS = "LokyProcess"  # how joblib names them
EVERY = 1.0  # seconds
NAME = "end with parent"  # of the thread


def end_with_parent() -> None:
    """Have this process end soon after its parent, if it is a worker of joblib; what a stage has kept stays."""
    if multiprocessing.current_process().name.startswith(WORKERS) and not watched():
        threading.Thread(target=watch_parent, args=(os.getppid(),), name=NAME, daemon=True).start()


def watched() -> bool:
    """Return whether the parent is looked after already: a worker has one cell after another."""
    return any(thread.name == NAME for thread in threading.enumerate())


def watch_parent(parent: int) -> None:
    """Wait until this process has another parent, and end it at once."""
    while os.getppid() == parent:
        time.sleep(EVERY)
    os._exit(1)
