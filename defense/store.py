"""Artifacts on disk, each computed once: `<root>/<stage>/<key>/`.

The key is a hash of the stage's settings, its inputs, its version and the package's version. A stage writes
into `<key>.part`, which is synced and then renamed: what has its final name is whole. Every file has a checksum
that is verified on use; an entry that fails is set aside and computed again. A lock per key makes parallel
jobs compute a shared stage once. A long stage keeps what it has so far in `<key>.part/progress`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic
from urllib.parse import quote

from filelock import FileLock
from safetensors.torch import load as loads
from safetensors.torch import save as dumps

from defense.artifacts import Artifact, Tensors, load, save, write_json
from defense.errors import InputError

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
DIGEST = hashlib.sha256().digest_size
VERSIONS = ("defense", "torch", "torchattacks", "curvlinops-for-pytorch")  # what the numbers of a stage depend on


@dataclass(frozen=True)
class Stored(Generic[Artifact]):
    """An artifact with its key, the seconds that it took when it was computed, and whether it was there."""

    artifact: Artifact
    key: str
    seconds: float
    reused: bool


class Store:
    """A folder of finished stages."""

    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("store", root, f"expected a folder that can be written ({error.strerror})") from error
        self.root = root

    def once(
        self,
        stage: str,
        kind: type[Artifact],
        *,
        settings: dict[str, Any],
        inputs: dict[str, str],
        stage_version: int,
        compute: Callable[[Progress], Artifact],
    ) -> Stored[Artifact]:
        """Return the artifact of `stage` for these settings and inputs; call `compute` only where it is missing.

        `compute` is given what a killed attempt has kept.
        settings: what JSON can hold. inputs: keys or digests of what the stage reads, by name.
        """
        identity = {
            "stage": stage,
            "stage_version": stage_version,
            "versions": {name: version(name) for name in VERSIONS},
            "settings": settings,
            "inputs": inputs,
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
        entry = self.root / stage / key
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{entry}.lock"):
            manifest = verified_manifest(entry)
            if manifest is not None:
                return Stored(load(kind, entry), key, manifest["seconds"], reused=True)
            part = entry.with_name(f"{key}.part")
            progress = Progress(part / "progress")
            begin = time.perf_counter()
            artifact = compute(progress)
            seconds = round(time.perf_counter() - begin, 3)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            save(artifact, part)
            files = {file.name: checksum(file) for file in sorted(part.iterdir())}
            write_json({**identity, "seconds": seconds, "files": files}, part / MANIFEST)
            for file in part.iterdir():
                sync(file)
            sync(part)
            part.rename(entry)
            sync(entry.parent)
        return Stored(artifact, key, seconds, reused=False)


class Progress:
    """What an unfinished stage has so far: tensors by name for every finished part, each in a file of its own.

    A file begins with the checksum of the rest and is renamed when it is whole; one that does not verify is said
    to be damaged and counts as absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, part: str) -> Tensors | None:
        """Return what was kept of `part`, or None."""
        path = self.path(part)
        if not path.exists():
            return None
        content = path.read_bytes()
        digest, content = content[:DIGEST], content[DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            log.warning("%s is damaged: computed again", path)
            return None
        return loads(content)

    def keep(self, part: str, tensors: Tensors) -> None:
        """Keep `tensors` in place of what was kept of `part` before."""
        content = dumps({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(part)
        unfinished = path.with_suffix(".new")
        unfinished.write_bytes(hashlib.sha256(content).digest() + content)
        sync(unfinished)
        unfinished.rename(path)

    def path(self, part: str) -> Path:
        """Return the file of `part`."""
        return self.folder / f"{quote(part, safe=' ')}.tensors"


def verified_manifest(entry: Path) -> dict[str, Any] | None:
    """Return the manifest of a finished entry whose files have their checksums, or None where there is none.

    An entry that does not verify is renamed to `<key>.corrupt-<time>` with a warning.
    """
    if not entry.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads((entry / MANIFEST).read_text())
        wrong = [name for name, known in manifest["files"].items() if checksum(entry / name) != known]
        problem = f"{wrong[0]} has another checksum" if wrong else None
    except (OSError, ValueError, KeyError) as error:
        problem = str(error)
    if problem is None:
        return manifest
    aside = entry.with_name(f"{entry.name}.corrupt-{time.time_ns()}")
    entry.rename(aside)
    log.warning("%s is damaged (%s): set aside as %s and computed again", entry, problem, aside.name)
    return None


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
