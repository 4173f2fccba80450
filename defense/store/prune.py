"""List what is in a store, and remove entries that no run needs.

A run needs the entries that its result.json names. Of the others, nothing is removed that was made or used within
some hours, since an unfinished run has no result.json yet; nor anything whose lock another process holds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defense.errors import InputError
from defense.runtime.lock import free, seize
from defense.store.files import CORRUPT, LOCK, PART, beside

NAME = re.compile(rf"([0-9a-f]{{24}})({re.escape(PART)}|{re.escape(LOCK)}|{re.escape(CORRUPT)}\d+)?")
KINDS = {"unfinished": PART, "damaged": CORRUPT, "locks": LOCK, "entries": ""}  # by how their names go on


@dataclass(frozen=True)
class StoreItem:
    """Something in a store: an entry, or what was left beside one."""

    path: Path
    entry: Path  # there or not
    kind: str  # of KINDS
    size: int  # bytes

    @property
    def used(self) -> float:
        """When it was last of use, in seconds since 1970: the store marks entries, an attempt changes files."""
        inside = self.path.rglob("*") if self.kind == "unfinished" else ()
        return max(path.stat().st_mtime for path in (self.path, *inside))

    @property
    def key(self) -> str:
        """The name of the entry, as in train/<key>."""
        return f"{self.entry.parent.name}/{self.entry.name}"


@dataclass(frozen=True)
class Pruned:
    """The things that were removed from a store, or would be, and how many stay."""

    removed: list[StoreItem]
    in_use: int  # entries and leftovers whose lock another process holds
    kept: int  # entries
    named: int  # entries that were there and that a run names


def items_in(store: Path) -> list[StoreItem]:
    """Return the things in a store; files with other names are not the store's and are left out."""
    found = []
    for path in sorted(store.glob("*/*")):
        if match := NAME.fullmatch(path.name):
            key, rest = match[1], match[2] or ""
            kind = next(kind for kind, suffix in KINDS.items() if rest.startswith(suffix))
            found.append(StoreItem(path, path.with_name(key), kind, size_of(path)))
    return found


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; a file that vanishes meanwhile counts nothing."""
    total = 0
    for each in (path, *path.rglob("*")):
        try:
            total += each.stat().st_size if each.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def needed_keys(runs: Path) -> set[str]:
    """Return the entries that the runs below a folder name; raises InputError if one names none.

    Raises InputError for a folder without runs, too: it is more likely the wrong one than a wish to remove all.
    """
    if not runs.is_dir():
        raise InputError("--runs", runs, "no such folder; expected that of the runs to keep")
    needed: set[str] = set()
    count = 0
    for file in sorted(results_below(runs)):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                "--runs", file, f"cannot be read ({error}); remove this run, or run it again"
            ) from error
        if not isinstance(content, dict) or "task" not in content:
            continue  # of a benchmark, or of somebody else
        count += 1
        if not isinstance(content.get("keys"), dict):
            raise InputError("--runs", file, "names no entries of the store; remove this run, or run it again")
        needed.update(content["keys"].values())
    if count == 0:
        found = "contains no runs, so every entry would be removed"
        raise InputError("--runs", runs, f"{found}; if you want that, delete the folder of the store itself")
    return needed


def results_below(runs: Path) -> list[Path]:
    """Return every result.json below a folder, behind links too; raises OSError if a folder cannot be read."""

    def refuse(error: OSError) -> None:
        raise error

    found, seen = [], set()
    for folder, folders, files in os.walk(runs, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(real)
        found += [Path(folder) / name for name in files if name == "result.json"]
    return found


def prune(store: Path, needed: set[str], *, hours: float, dry: bool) -> Pruned:
    """Remove things that no run needs and nobody has used for `hours`; `dry` only finds them."""
    before = time.time() - 3600 * hours
    found = items_in(store)
    candidates: dict[Path, list[StoreItem]] = {}
    for item in found:
        if not (item.kind == "entries" and item.key in needed):
            candidates.setdefault(item.entry, []).append(item)
    removed: list[StoreItem] = []
    in_use = 0
    for entry, items in candidates.items():
        if any(unused_since(item, before) for item in items):
            gone = remove(entry, items, before, dry=dry)
            in_use += gone is None
            removed += gone or []
    kept = sum(item.kind == "entries" for item in found) - sum(item.kind == "entries" for item in removed)
    named = len({item.key for item in found if item.kind == "entries"} & needed)
    return Pruned(removed, in_use, kept, named)


def unused_since(item: StoreItem, before: float) -> bool:
    """Return whether a thing is still there and was last used before a time, in seconds since 1970."""
    try:
        return item.used <= before
    except FileNotFoundError:
        return False


def remove(entry: Path, items: Sequence[StoreItem], before: float, *, dry: bool) -> list[StoreItem] | None:
    """Remove the old things of one key while its lock is held; return None if another process holds it."""
    path = beside(entry, LOCK)
    chosen = [item for item in items if unused_since(item, before)]
    if dry:
        return chosen if free(path) else None
    if (lock := seize(path)) is None:
        return None
    try:
        chosen = [item for item in chosen if item.kind == "locks" or unused_since(item, before)]  # used meanwhile?
        for item in chosen:
            if item.kind == "entries":  # a removal that is cut short must not leave half an entry
                remove_tree(item.path.rename(beside(entry, f"{CORRUPT}{time.time_ns()}")))
            elif item.kind != "locks":
                remove_tree(item.path)
        lock.remove()
    finally:
        lock.release()
    return chosen


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, or a file."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
