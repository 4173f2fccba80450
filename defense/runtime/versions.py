"""The versions of installed packages."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache  # the metadata of a package take a millisecond to read, and every key asks for four
def version(package: str) -> str:
    """Return the version of an installed package; raises PackageNotFoundError if there is none of that name."""
    return metadata.version(package)
