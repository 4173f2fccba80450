"""Whether pictures in files can be read, before anything is computed on them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import PIL
import torch

from defense.config.choices import Unreadable
from defense.config.schema import Data
from defense.data.collection import Collection
from defense.data.images import DECODING, FolderImages, fitted, reason
from defense.data.splits import Split
from defense.errors import InputError, printable

log = logging.getLogger(__name__)

MOST = 100_000  # files that are looked at; of more, evenly spaced ones
TOLD = 10  # that are named in one line
FOLDER = "readable"  # in the cache


def readable(collection: Collection, spec: Data, cache: Path | None) -> Collection:
    """Return the collection without pictures that cannot be read, if `data.unreadable` says so; see `without`.

    Each file is decoded once; `cache` is a folder that keeps the result until one of the files changes.
    """
    own = {"train": collection.train, "validation": collection.validation, "test": collection.test}
    parts = {name: split for name, split in own.items() if split and isinstance(split.images, FolderImages)}
    files = [path for split in parts.values() for path in paths_of(split)]
    broken = broken_files(files, spec.image_size or 1, cache) if files else {}
    told = {path: f"{shown(path, Path(str(spec.path)))} ({why})" for path, why in broken.items()}
    rows = {
        name: {row: told[path] for row, path in enumerate(paths_of(split)) if path in told}
        for name, split in parts.items()
    }
    return without(collection, rows, spec)


def shown(path: Path, source: Path) -> str:
    """Return the path of a picture as it is below the folder of its source, or whole if it is elsewhere."""
    root = source if source.is_dir() else source.parent
    return printable(str(path.relative_to(root) if path.is_relative_to(root) else path))


def without(collection: Collection, broken: Mapping[str, Mapping[int, str]], spec: Data) -> Collection:
    """Return the collection without its broken pictures, if `data.unreadable` says so.

    broken: by part and row, the name of the picture with the reason. Raises InputError that names them if they are
    not to be left out, or if a class is left out whole.
    """
    parts: dict[str, Split] = {name: getattr(collection, name) for name in broken}
    named = [text for rows in broken.values() for text in rows.values()]
    if not named:
        return collection
    said = ", ".join(named[:TOLD]) + (f" and {len(named) - TOLD} others" if len(named) > TOLD else "")
    found = f"{len(named)} of {sum(map(len, parts.values()))} pictures cannot be read: {said}"
    if spec.unreadable is Unreadable.refuse:
        raise InputError("data.path", spec.path, f"{found}; mend them, or data.unreadable=skip leaves them out")
    log.info("data.unreadable=skip: %s", found)
    kept: dict[str, Any] = {}
    for name, split in parts.items():
        rows = [row for row in range(len(split)) if row not in broken[name]]
        kept[name] = split.subset(torch.tensor(rows, dtype=torch.int64))
        lost = sorted(set(split.labels.tolist()) - set(kept[name].labels.tolist()))
        if lost:
            said = (
                f"leaves no picture of class {collection.class_names[lost[0]]} in {name}; expected readable ones"
            )
            raise InputError("data.unreadable", spec.unreadable, said)
    return replace(collection, left_out=named, **kept)


def broken_files(files: Sequence[Path], size: int, cache: Path | None) -> dict[Path, str]:
    """Return the files that cannot be read with the reasons, from the cache if it has them."""
    kept = None if cache is None else cache / FOLDER / f"{key_of(files, size)}.json"
    if kept is not None and kept.is_file():
        return {Path(name): why for name, why in json.loads(kept.read_text(encoding="utf-8")).items()}
    broken = found_broken(files, size)
    if kept is not None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps({str(path): why for path, why in broken.items()}), encoding="utf-8")
            part.replace(kept)
        except OSError as error:
            log.warning("cannot keep which pictures can be read, so each run looks at them again (%s)", error)
    return broken


def found_broken(files: Sequence[Path], size: int) -> dict[Path, str]:
    """Return the files that cannot be read with the reasons; of more than MOST, evenly spaced ones are decoded."""
    chosen = files if len(files) <= MOST else [files[place * len(files) // MOST] for place in range(MOST)]
    if len(chosen) < len(files):
        rest = "one that cannot be read among the others ends the run that uses it"
        log.info("looking at %d of %d pictures, whether they can be read; %s", len(chosen), len(files), rest)
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(partial(complaint, size=size), chosen)
        return {path: why for path, why in zip(chosen, reasons, strict=True) if why is not None}


def complaint(path: Path, *, size: int) -> str | None:
    """Return the reason that a picture cannot be read, None if it can."""
    try:
        fitted(path, size=size)
    except Exception as error:  # decoders raise whatever they meet in a broken file
        return reason(error)
    return None


def key_of(files: Sequence[Path], size: int) -> str:
    """Return a hash of names, sizes and times of change, and of what decodes them."""
    found = hashlib.sha256(f"{PIL.__version__} {DECODING} {size}".encode())
    for path in files:
        about = path.stat() if path.exists() else None  # a link that leads nowhere
        found.update(repr((path.as_posix(), about and (about.st_size, about.st_mtime_ns))).encode())
    return found.hexdigest()[:24]


def paths_of(split: Split) -> list[Path]:
    """Return the files of the samples; pictures in memory are a defect."""
    assert isinstance(split.images, FolderImages)
    return split.images.paths
