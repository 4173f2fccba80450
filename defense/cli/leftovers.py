"""The folder of a run that never began: what was made for it is taken away again, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

OF_HYDRA = ("config.yaml", "hydra.yaml", "overrides.yaml")  # what Hydra writes of a run
made: list[Path] = []  # folders that this process makes for its run, the innermost first


def note(folder: Path) -> None:
    """Remember which of the folder of a run and those above it are still to be made."""
    folder = folder.absolute()
    made[:] = [each for each in (folder, *folder.parents) if not each.exists()]


def remove_unbegun(subdir: str | None) -> None:
    """Remove the folder of the run if this process made it and it holds only empty logs and Hydra's files.

    subdir: where Hydra writes its files, below the folder. Folders above it that were made for it go, too.
    """
    if not made:
        return
    folder = made[0]
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if not all(is_trivial(file, folder / (subdir or "")) for file in files):
        return
    close_logs(folder)
    for file in files:
        file.unlink()
    for empty in [*(path for path in folder.rglob("*") if path.is_dir()), *made]:
        try:
            empty.rmdir()
        except OSError:  # another run has come into it
            break
    made.clear()


def is_trivial(file: Path, written: Path) -> bool:
    """Return whether a file says nothing of a run but its settings; written: the folder of Hydra's files."""
    if file.suffix == ".log":
        return file.stat().st_size == 0
    return file.parent == written and file.name in OF_HYDRA


def close_logs(folder: Path) -> None:
    """Close the logs that this process writes into a folder."""
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler) and folder in Path(handler.baseFilename).parents:
            logging.getLogger().removeHandler(handler)
            handler.close()
