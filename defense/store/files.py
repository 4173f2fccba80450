"""What the store asks of a disk, and what is said where that refuses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from defense.errors import InputError
from defense.runtime.lock import NO_LOCKS

# What may stand beside an entry <key> of the store: <key>.part, where it is made; <key>.lock; <key>.corrupt-<time>
PART, LOCK, CORRUPT = ".part", ".lock", ".corrupt-"


def beside(entry: Path, suffix: str) -> Path:
    """Return what has the name of an entry and a suffix."""
    return entry.with_name(entry.name + suffix)


@contextmanager
def usable(root: Path) -> Iterator[None]:
    """Turn what a folder or its disk refuses into an InputError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        if number in NO_LOCKS:
            expected = (
                "its file system has no locks (flock), which keep parallel jobs apart; expected another folder"
            )
        else:
            expected = f"cannot be used ({reason(error)}); expected a folder with room that can be written"
        raise InputError("store", root, expected) from error


def reason(error: Exception) -> str:
    """Return the reason of an error, and the file that it is about, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make the content of a file or folder last beyond a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_files(folder: Path) -> None:
    """Remove the files of a folder, and leave its folders."""
    for file in list(folder.iterdir()):
        if file.is_file():
            file.unlink()
