"""`defense-report store`: what is in the store, and what of it no run needs any more.

An entry is needed by the runs whose result.json names it. Of the rest, nothing is removed that was made or used
within some hours, since a run that is not at its end has no result.json yet; nor anything whose lock another
process has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defense.disk import CORRUPT, LOCK, PART, beside, usable
from defense.errors import InputError
from defense.locking import free, seize
from defense.reporting.tables import markdown

STORE = Path("runs/store")
HOURS = 24.0  # longer than a run should take from the last use of an entry to its result.json
NAME = re.compile(rf"([0-9a-f]{{24}})({re.escape(PART)}|{re.escape(LOCK)}|{re.escape(CORRUPT)}\d+)?")
KINDS = {"unfinished": PART, "damaged": CORRUPT, "locks": LOCK, "entries": ""}  # by how their names go on


@dataclass(frozen=True)
class Piece:
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


def report(arguments: Sequence[str]) -> str:
    """Carry out `defense-report store` and return what is to be said; raises InputError."""
    parser = argparse.ArgumentParser(prog="defense-report store", description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--list", action="store_true", help="show how many entries there are, and how large")
    task.add_argument("--prune", action="store_true", help="remove what no run needs")
    parser.add_argument("--store", type=Path, default=STORE, metavar="FOLDER")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="of the runs to keep; of runs/store, runs")
    parser.add_argument("--hours", type=float, default=HOURS, help=f"younger things stay; {HOURS:g} unless given")
    parser.add_argument("--dry-run", action="store_true", help="show what --prune would remove")
    parser.add_argument(
        "--forget-older", action="store_true", help="runs of older versions, which name no entries, do not count"
    )
    given = parser.parse_args(arguments)
    if not given.store.is_dir():
        raise InputError("--store", given.store, "no such folder; expected that of finished stages, as runs/store")
    if not given.hours >= 0:  # written so that NaN fails
        raise InputError("--hours", given.hours, "expected a number of at least 0")
    with usable(given.store):
        if given.list:
            return listed(pieces(given.store))
        if given.runs is None and given.store != STORE:
            raise InputError("--runs", "", f"expected the folder of the runs that {given.store} is of")
        needed = keys_of(given.runs or STORE.parent, forget_older=given.forget_older)
        return prune(given.store, needed, hours=given.hours, dry=given.dry_run)


def pieces(store: Path) -> list[Piece]:
    """Return what there is in a store, and nothing that has not the name of such a thing."""
    found = []
    for path in sorted(store.glob("*/*")):
        if match := NAME.fullmatch(path.name):
            key, rest = match[1], match[2] or ""
            kind = next(kind for kind, suffix in KINDS.items() if rest.startswith(suffix))
            found.append(Piece(path, path.with_name(key), kind, size_of(path)))
    return found


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; what goes meanwhile counts nothing."""
    total = 0
    for each in (path, *path.rglob("*")):
        try:
            total += each.stat().st_size if each.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def listed(found: Sequence[Piece]) -> str:
    """Return a table of the stages: how many things of every kind, and their size."""
    stages: dict[str, list[Piece]] = {}
    for piece in found:
        stages.setdefault(piece.entry.parent.name, []).append(piece)

    def row(name: str, those: Sequence[Piece]) -> list[str]:
        counts = {kind: sum(piece.kind == kind for piece in those) for kind in KINDS}
        whole = sum(piece.size for piece in those if piece.kind == "entries")
        left = sum(piece.size for piece in those) - whole
        *others, entries = map(str, counts.values())
        return [name, entries, in_bytes(whole), *others, in_bytes(left)]

    *others, entries = KINDS
    head = ["stage", entries, "size", *others, "size of these"]
    return markdown(head, [*(row(name, those) for name, those in stages.items()), row("all", found)])


def keys_of(runs: Path, *, forget_older: bool) -> set[str]:
    """Return the entries that the runs below a folder name; raises InputError where one does not say.

    A folder without any run is refused too: it would rather be the wrong one than mean that nothing is needed.
    """
    if not runs.is_dir():
        raise InputError("--runs", runs, "no such folder; expected that of the runs to keep")
    needed: set[str] = set()
    older, count = [], 0
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
        if isinstance(content.get("keys"), dict):
            needed.update(content["keys"].values())
        else:
            older.append(file)
    if older and not forget_older:
        found = f"does not say what it needs, as {len(older)} of {count} runs, of an older version"
        raise InputError("--runs", older[0], f"{found}; run them again, or give --forget-older to not count them")
    if count == 0:
        raise InputError("--runs", runs, "no run below it, so that nothing would stay; to do so, remove the store")
    return needed


def results_below(runs: Path) -> list[Path]:
    """Return every result.json below a folder, behind links too; raises OSError where one cannot be looked at."""

    def refused(error: OSError) -> None:
        raise error

    found, seen = [], set()
    for folder, folders, files in os.walk(runs, followlinks=True, onerror=refused):
        if (place := os.path.realpath(folder)) in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(place)
        found += [Path(folder) / name for name in files if name == "result.json"]
    return found


def prune(store: Path, needed: set[str], *, hours: float, dry: bool) -> str:
    """Remove what is neither needed nor younger nor in use, or only look with `dry`; return what was removed."""
    before = time.time() - 3600 * hours
    found = pieces(store)
    superfluous: dict[Path, list[Piece]] = {}
    for piece in found:
        if not (piece.kind == "entries" and piece.key in needed):
            superfluous.setdefault(piece.entry, []).append(piece)
    removed: list[Piece] = []
    busy = 0
    for entry, those in superfluous.items():
        if any(old(piece, before) for piece in those):
            gone = remove(entry, those, before, dry=dry)
            busy += gone is None
            removed += gone or []
    lines = [f"{piece.path}  {in_bytes(piece.size)}" for piece in removed]
    size = in_bytes(sum(piece.size for piece in removed))
    stay = sum(piece.kind == "entries" for piece in found) - sum(piece.kind == "entries" for piece in removed)
    did = "would remove" if dry else "removed"
    named = len({piece.key for piece in found if piece.kind == "entries"} & needed)
    kept = f"{stay} entries stay, of which runs name {named}"
    lines.append(f"{did} {len(removed)} things, {size}; {kept}" + (f"; {busy} are in use" if busy else ""))
    return "\n".join(lines)


def old(piece: Piece, before: float) -> bool:
    """Return whether a thing is still there and was last of use before a time."""
    try:
        return piece.used <= before
    except FileNotFoundError:
        return False


def remove(entry: Path, those: Sequence[Piece], before: float, *, dry: bool) -> list[Piece] | None:
    """Remove those things of one key that are old, its lock being held; None where another process holds it."""
    path = beside(entry, LOCK)
    chosen = [piece for piece in those if old(piece, before)]
    if dry:
        return chosen if free(path) else None
    if (lock := seize(path)) is None:
        return None
    try:
        chosen = [piece for piece in chosen if piece.kind == "locks" or old(piece, before)]  # used meanwhile?
        for piece in chosen:
            if piece.kind == "entries":  # a removal that is cut short must not leave half an entry
                remove_tree(piece.path.rename(beside(entry, f"{CORRUPT}{time.time_ns()}")))
            elif piece.kind != "locks":
                remove_tree(piece.path)
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


def in_bytes(size: float) -> str:
    """Return '1.2 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
