"""The command `defense-report store`: list what is in the store, and remove entries that no run needs.

A run needs the entries that its result.json names. Entries that were made or used within some hours stay, and so
do entries that another process uses.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defense.errors import InputError
from defense.reporting.escaping import markdown
from defense.store.files import usable
from defense.store.fingerprint import differences
from defense.store.prune import KINDS, Pruned, StoreItem, items_in, needed_keys, prune
from defense.store.store import MANIFEST, keyed

STORE = Path("runs/store")
HOURS = 24.0  # longer than a run should take from the last use of an entry to its result.json


def run_store_command(arguments: Sequence[str]) -> str:
    """Carry out `defense-report store` and return its output; raises InputError."""
    parser = argparse.ArgumentParser(prog="defense-report store", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--list", action="store_true", help="show how many entries there are, and how large")
    action.add_argument("--why", nargs=2, metavar=("A", "B"), help="show how the keys of two entries differ")
    action.add_argument("--prune", action="store_true", help="remove entries that no run needs")
    parser.add_argument("--store", type=Path, default=STORE, metavar="FOLDER")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="of the runs to keep; of runs/store, runs")
    parser.add_argument("--hours", type=float, default=HOURS, help=f"younger things stay; default {HOURS:g}")
    parser.add_argument("--dry-run", action="store_true", help="show what --prune would remove")
    given = parser.parse_args(arguments)
    if not given.store.is_dir():
        raise InputError("--store", given.store, "no such folder; expected that of finished stages, as runs/store")
    if not given.hours >= 0:  # written so that NaN fails
        raise InputError("--hours", given.hours, "expected a number of at least 0")
    with usable(given.store):
        if given.why:
            return explain(given.store, *given.why)
        if given.list:
            return stages_table(items_in(given.store))
        if given.runs is None and given.store != STORE:
            raise InputError("--runs", "", f"expected the folder of the runs that {given.store} is of")
        needed = needed_keys(given.runs or STORE.parent)
        return summary(prune(given.store, needed, hours=given.hours, dry=given.dry_run), dry=given.dry_run)


def explain(store: Path, first: str, second: str) -> str:
    """Return what differs between the keys of two entries, as train/1f2e, a line each."""
    one, other = (manifest_of(store, name) for name in (first, second))
    return "\n".join(differences(keyed(one), keyed(other))) or "nothing: both are one entry"


def manifest_of(store: Path, name: str) -> dict[str, Any]:
    """Return the manifest of the one entry whose name begins so, as train/1f2e; raises InputError if not one."""
    stage, _, key = name.rpartition("/")
    found = sorted(store.glob(f"{stage or '*'}/{key}*/{MANIFEST}")) if key.isalnum() else []
    if len(found) != 1:
        names = ", ".join(f"{file.parent.parent.name}/{file.parent.name}" for file in found[:3])
        valid = f"the name of {len(found)} entries begins so: {names}" if found else "no such entry"
        raise InputError("--why", name, f"{valid}; expected STAGE/KEY, as the keys in a result.json")
    content: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8"))
    return content


def stages_table(items: Sequence[StoreItem]) -> str:
    """Return a table of the stages: how many things of every kind, and their size."""
    stages: dict[str, list[StoreItem]] = {}
    for item in items:
        stages.setdefault(item.entry.parent.name, []).append(item)

    def row(name: str, own: Sequence[StoreItem]) -> list[str]:
        *leftovers, entries = (str(sum(item.kind == kind for item in own)) for kind in KINDS)
        whole = sum(item.size for item in own if item.kind == "entries")
        rest = sum(item.size for item in own) - whole
        return [name, entries, in_bytes(whole), *leftovers, in_bytes(rest)]

    *leftovers, entries = KINDS
    header = ["stage", entries, "size", *leftovers, "size of these"]
    return markdown(header, [*(row(name, own) for name, own in stages.items()), row("all", items)])


def summary(pruned: Pruned, *, dry: bool) -> str:
    """Return a line for every thing removed, and one that sums up."""
    lines = [f"{item.path}  {in_bytes(item.size)}" for item in pruned.removed]
    size = in_bytes(sum(item.size for item in pruned.removed))
    action = "would remove" if dry else "removed"
    kept = f"{pruned.kept} entries stay, of which runs name {pruned.named}"
    in_use = f"; {pruned.in_use} are in use" if pruned.in_use else ""
    return "\n".join([*lines, f"{action} {len(pruned.removed)} things, {size}; {kept}{in_use}"])


def in_bytes(size: float) -> str:
    """Return '1.2 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
