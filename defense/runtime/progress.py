"""How far a long stage is: a bar on a terminal or in a notebook, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
EVERY = 10.0  # seconds between two lines if there is no terminal


Progress = Callable[..., None]  # (done, total, **numbers): parts done, parts in all, numbers to show beside


def no_progress(done: int, total: int, **numbers: float) -> None:
    """Show nothing."""


@contextmanager
def show_progress(label: str, console: Console | None = None) -> Iterator[Progress]:
    """Yield a function `progress(done, total, **numbers)` that shows the progress of the stage `label`."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = console or Console()
    if not (console.is_terminal or console.is_jupyter):
        yield plain_lines(label)
        return
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Bars(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None, numbers="")

        def progress(done: int, total: int, **numbers: float) -> None:
            bar.update(task, completed=done, total=total, numbers=in_words(numbers))

        yield progress


def plain_lines(label: str) -> Progress:
    """Return a function that logs a line every `EVERY` seconds."""
    begin = last = time.monotonic()

    def progress(done: int, total: int, **numbers: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY and 0 < done < total:
            last = now
            left = (now - begin) / done * (total - done)
            words = f", {in_words(numbers)}" if numbers else ""
            log.info("%s: %d %%%s, %.0f s left", label, 100 * done // total, words, left)

    return progress


def in_words(numbers: dict[str, float]) -> str:
    """Return 'loss 0.213, accuracy 94.1'."""
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
