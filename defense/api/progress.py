"""Progress bars of the functions that a notebook calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec

from rich.console import Console

from defense.runtime.progress import Progress, no_progress, show_progress


def bars(progress: bool | None) -> Callable[[str], AbstractContextManager[Progress]]:
    """Return a function that draws the progress of a stage by its label.

    None: on a terminal, and in a notebook if ipywidgets are installed.
    """
    console = Console(stderr=True)
    if progress is None:
        progress = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    return partial(show_progress, console=console) if progress else nothing


@contextmanager
def nothing(label: str) -> Iterator[Progress]:
    """Yield a function that draws nothing."""
    yield no_progress
