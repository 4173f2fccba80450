"""Artifacts on disk, each computed once: `<root>/<stage>/<key>/`.

The key is a hash of a stage's arguments, of the versions of its code and of the packages it stands on. A stage
writes into `<key>.part`, which is synced and then renamed: an entry with its final name is whole. Every file has a
checksum in the manifest, and the manifest one beside it, verified on use; an entry that fails is set aside and
computed again. A lock per key makes parallel jobs compute a shared stage once. A long stage keeps its finished
parts in `<key>.part/progress`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic
from urllib.parse import quote

from safetensors import SafetensorError
from safetensors.torch import load as loads
from safetensors.torch import save as dumps

from defense.artifacts import Artifact, Tensors, load, save, write_json
from defense.errors import InputError
from defense.runtime.lock import locked
from defense.runtime.versions import version
from defense.store.files import CORRUPT, LOCK, PART, beside, checksum, reason, remove_files, sync, usable
from defense.store.fingerprint import canonical, key_of

log = logging.getLogger(__name__)
FORMAT = 4  # of an entry; part of every key
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"  # as sha256sum writes it
DIGEST = hashlib.sha256().digest_size
VERSIONS = ("defense", "torch", "torchattacks", "curvlinops-for-pytorch")  # what the numbers of a stage depend on


@dataclass(frozen=True)
class Stored(Generic[Artifact]):
    """An artifact with its key, the seconds of the attempt that finished it, and whether it was there."""

    artifact: Artifact
    key: str
    seconds: float
    reused: bool


class Store:
    """A folder of finished stages."""

    def __init__(self, root: Path) -> None:
        with usable(root):
            root.mkdir(parents=True, exist_ok=True)
        self.root = root
        warn_of_older(root.resolve(), FORMAT)

    def once(
        self,
        stage: str,
        kind: type[Artifact],
        *,
        made_of: dict[str, Any],
        compute: Callable[[FileCheckpointer], Artifact],
    ) -> Stored[Artifact]:
        """Return the artifact of `stage` that is `made_of` these values; call `compute` only if it is missing.

        made_of: as `defense.store.fingerprint.canonical` takes it; it makes the key, and the manifest keeps it.
        `compute` is given what a killed attempt has kept.
        Raises InputError if the folder cannot be written or read; what was kept of the stage stays.
        """
        identity = identity_of(made_of)
        key = key_of(identity)
        entry = self.root / stage / key
        with self.held(entry):
            with usable(self.root):
                manifest = verified_manifest(entry)
            if manifest is not None:
                return Stored(read(kind, entry), key, manifest["seconds"], reused=True)
            part = beside(entry, PART)
            progress = FileCheckpointer(part / "progress")
            begin = time.perf_counter()
            artifact = compute(progress)
            seconds = round(time.perf_counter() - begin, 3)
            with usable(self.root):
                write(artifact, {**identity, "seconds": seconds}, part)
                part.rename(entry)
                sync(entry.parent)
        return Stored(artifact, key, seconds, reused=False)

    @contextmanager
    def held(self, entry: Path) -> Iterator[None]:
        """Hold the lock of an entry while inside, and say where another process has it.

        The lock file goes once the entry is there: who has waited for it finds that.
        """
        with ExitStack() as stack:
            with usable(self.root):
                entry.parent.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(locked(beside(entry, LOCK), f"{entry.parent.name}/{entry.name}"))
            yield
            with usable(self.root):
                os.utime(entry)  # when it was last of use, for who cleans up
                lock.remove()


def identity_of(made_of: dict[str, Any]) -> dict[str, Any]:
    """Return what the key of an entry is made of, in canonical form: these values, and the versions beneath."""
    found: dict[str, Any] = canonical(
        {"format": FORMAT, "versions": {name: version(name) for name in VERSIONS}, **made_of}
    )
    return found


@cache  # it looks at every entry: once for all cells of a sweep
def warn_of_older(root: Path, own: int) -> None:
    """Log one line if the newest entry of a store has another format than `own`: its entries stay unused."""
    with suppress(OSError, ValueError, AttributeError):  # a damaged entry is looked at when it is used
        newest = max(root.glob(f"*/*/{MANIFEST}"), key=lambda file: file.stat().st_mtime, default=None)
        found = own if newest is None else json.loads(newest.read_text(encoding="utf-8")).get("format")
        if found != own:
            advice = "they stay, and stages are computed again; remove the folder to free its space"
            log.warning("%s has entries of format %s, this version writes format %d: %s", root, found, own, advice)


class FileCheckpointer:
    """What an unfinished stage has so far: tensors by name for every finished part, each in a file of its own.

    A file begins with the checksum of the rest and is renamed when it is whole; one that does not verify is said
    to be damaged and counts as absent. Where nothing can be written, as on a full disk, the log says so and the
    stage goes on: what was kept before stays, and is what the next attempt begins with.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = False

    def load(self, part: str) -> Tensors | None:
        """Return what was kept of `part`, or None."""
        path = self.path(part)
        if not path.exists():
            return None
        try:
            content = path.read_bytes()
            if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
                raise ValueError("another checksum")
            tensors: Tensors = loads(content[DIGEST:])
        except (OSError, ValueError, SafetensorError) as error:
            log.warning("%s is damaged: computed again (%s)", path, error)
            return None
        if not self.said:
            self.said = True
            log.info("going on from what an earlier attempt has kept")
        return tensors

    def save(self, part: str, tensors: Tensors) -> None:
        """Keep `tensors` in place of what was kept of `part` before."""
        content = dumps({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
        path = self.path(part)
        unfinished = path.with_suffix(".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(hashlib.sha256(content).digest() + content)
            sync(unfinished)
            unfinished.rename(path)
        except OSError as error:
            with suppress(OSError):  # gives back what space it took
                unfinished.unlink()
            log.warning("%s cannot be written (%s): a kill would lose what came since", path, reason(error))

    def free(self) -> float:
        """Return the bytes that are free on the disk of the folder."""
        there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        return float(shutil.disk_usage(there).free)

    def path(self, part: str) -> Path:
        """Return the file of `part`."""
        return self.folder / f"{quote(part, safe=' ')}.tensors"


def write(artifact: Any, identity: dict[str, Any], part: Path) -> None:
    """Write an artifact with its manifest into `part`, where its progress goes once all of it is on disk.

    Remove files that a killed attempt has half written there, and those of this one if it fails.
    """
    part.mkdir(exist_ok=True)
    remove_files(part)
    try:
        save(artifact, part)
        files = {file.name: checksum(file) for file in sorted(part.iterdir()) if file.is_file()}
        write_json({**identity, "files": files}, part / MANIFEST)
        (part / SEAL).write_bytes(seal(part))
        for name in (*files, MANIFEST, SEAL):
            sync(part / name)
    except BaseException:
        remove_files(part)
        raise
    if (progress := part / "progress").exists():
        shutil.rmtree(progress)
    sync(part)


def read(kind: type[Artifact], entry: Path) -> Artifact:
    """Return the artifact of an entry that verifies; raises InputError if it cannot be read all the same."""
    try:
        return load(kind, entry)
    except MemoryError:
        raise
    except Exception as error:  # of pandas, pyarrow or safetensors, whose kinds of error are not listed
        found = f"is whole, but cannot be read ({reason(error)}); remove this folder to have it computed again"
        raise InputError("store", entry, found) from error


def verified_manifest(entry: Path) -> dict[str, Any] | None:
    """Return the manifest of a finished entry whose files have their checksums, or None if there is none.

    An entry that does not verify is renamed to `<key>.corrupt-<time>` with a warning. Raises PermissionError.
    """
    manifest, problem = checked_manifest(entry)
    if problem is not None:
        aside = beside(entry, f"{CORRUPT}{time.time_ns()}")
        entry.rename(aside)
        log.warning("%s is damaged (%s): set aside as %s and computed again", entry, problem, aside.name)
    return manifest


def checked_manifest(entry: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the manifest of an entry that verifies, or the problem of one that does not; neither without entry.

    Raises PermissionError.
    """
    if not entry.exists():
        return None, None
    try:
        if (entry / SEAL).read_bytes() != seal(entry):
            raise ValueError(f"{MANIFEST} has another checksum than {SEAL}")
        manifest: dict[str, Any] = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
        wrong = [name for name, known in manifest["files"].items() if checksum(entry / name) != known]
        problem = f"{wrong[0]} has another checksum" if wrong else None
        if key_of(keyed(manifest)) != entry.name:
            problem = "its manifest is of another key"
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError) as error:
        problem = str(error)
    return (manifest, None) if problem is None else (None, problem)


def keyed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a manifest that its key is made of."""
    return {name: value for name, value in manifest.items() if name not in ("seconds", "files")}


def seal(entry: Path) -> bytes:
    """Return the line that says the checksum of an entry's manifest."""
    return f"{checksum(entry / MANIFEST)}  {MANIFEST}\n".encode()
