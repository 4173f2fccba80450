"""Tell the cells of a sweep: each notes in its folder which sweep it is of, and the sweep in its own which it is.

So another sweep into the same folder, earlier or at the same time, is not taken for a part of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defense.errors import InputError

SWEEP, CELL = "sweep.json", "cell.json"  # in the folder of a sweep, and in that of each cell
SUBDIR = "hydra.sweep.subdir"


def begin(folder: Path, sweep: str, cells: int | None) -> None:
    """Note that `sweep` is the last into a folder, and how many cells it will have, if that is known.

    Raises InputError if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / SWEEP, {"sweep": sweep, "cells": cells})
    except OSError as error:
        said = f"expected a folder that can be written ({error.strerror})"
        raise InputError("hydra.sweep.dir", folder, said) from error


def own(folder: Path, sweep: str | None, number: int) -> None:
    """Raise InputError if a folder is that of another cell of the sweep."""
    found = noted(folder / CELL)
    if sweep is not None and found.get("sweep") == sweep and found.get("cell") != number:
        raise shared(folder, found.get("cell"), number)


def enter(folder: Path, sweep: str | None, number: int) -> None:
    """Note that a folder is that of one cell of a sweep; nothing if the sweep has no name."""
    if sweep is not None:
        write(folder / CELL, {"sweep": sweep, "cell": number})


def below(name: str) -> None:
    """Raise InputError unless the folder of a cell, by its name there, is below that of its sweep."""
    whole = os.path.normpath(name)
    if os.path.isabs(whole) or whole.split(os.sep)[0] in (os.curdir, os.pardir):
        raise InputError(SUBDIR, name or "''", "expected a folder below hydra.sweep.dir")


def shared(folder: Path | str, first: Any, second: Any) -> InputError:
    """Return the error of two cells that have one folder."""
    expected = "expected a folder for each, as hydra.sweep.subdir='${hydra.job.num}' gives"
    return InputError(SUBDIR, folder, f"cells {first} and {second} of the sweep share it; {expected}")


def left(paths: Sequence[Path], name: str, sweep: str | None = None) -> list[Path]:
    """Return the files of that name below `paths` that count: those of the last sweep into a folder, or of none.

    sweep: the one to count in place of the last, in the folder of a sweep that is a path. What is directly in a
    path counts always.
    """
    return [file for path in paths for file in path.rglob(name) if counts(file.parent, path, sweep)]


def uncounted(paths: Sequence[Path], names: Sequence[str], sweep: str | None = None) -> int:
    """Return how many folders below `paths` have files of these names that do not count; see `left`."""
    return len(
        {
            file.parent.resolve()
            for path in paths
            for name in names
            for file in path.rglob(name)
            if not counts(file.parent, path, sweep)
        }
    )


def counts(folder: Path, path: Path, sweep: str | None = None) -> bool:
    """Return whether the cell in a folder is of the last sweep into the nearest folder above it, up to `path`."""
    if folder == path:
        return True
    for parent in folder.parents:
        if last := noted(parent / SWEEP):
            own = sweep if sweep is not None and parent == path else last["sweep"]
            return noted(folder / CELL).get("sweep") == own
        if parent == path:
            break
    return True


def sweep_above(folder: Path) -> Path | None:
    """Return the folder of the sweep that noted the cell in `folder`; None if the last one there is another."""
    own = noted(folder / CELL).get("sweep")
    above = next((parent for parent in folder.parents if (parent / SWEEP).exists()), None)
    return above if own is not None and above is not None and noted(above / SWEEP).get("sweep") == own else None


def noted(file: Path) -> dict[str, Any]:
    """Return what a note says, nothing if there is none; raises InputError if it is no note."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        found["sweep"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("PATH", file, f"not what a sweep notes of itself ({error!r})") from error
    return dict(found)


def write(file: Path, note: dict[str, Any]) -> None:
    """Write a note so that nobody reads half of it."""
    whole = file.with_name(f"{file.name}.{os.getpid()}.part")
    whole.write_text(json.dumps(note), encoding="utf-8")
    whole.replace(file)
