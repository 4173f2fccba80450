"""The training samples of a finished run as their source has them: pictures, or rows of a file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from defense.config.schema import Data
from defense.data.images import FolderImages
from defense.data.load import load
from defense.data.overlays import unchanged
from defense.data.sources import ROWS
from defense.data.splits import Dataset, Split
from defense.reporting.charts import png
from defense.store.fingerprint import hash_of

LONGEST = 255  # bytes in the name of a file
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')  # signs that some system refuses


def digest_of(train: Split) -> str:
    """Return a hash of training samples as their source has them: ids, known labels, and pictures without harm."""
    own = {name: train.digests[name] for name in ("ids", "truth")}
    return hash_of(own | {"images": unchanged(train.images).digest()})


def load_again(spec: Data, *, seed: int, store: Path) -> Dataset:
    """Return the data of a run, loaded by its settings; its store may know which pictures can be read."""
    return load(spec, seed=seed, cache=store if store.is_dir() else None)


def has_rows(spec: Data) -> bool:
    """Return whether training samples are rows of a file."""
    return spec.source in ROWS


def has_pictures(data: Dataset) -> bool:
    """Return whether training samples are pictures, of more than one pixel."""
    _, height, width = data.shape
    return height * width > 1


def rows_of(spec: Data, ids: Sequence[int]) -> pd.DataFrame:
    """Return the rows of the samples with `ids`, in that order, with all columns of their file."""
    return ROWS[spec.source](spec).loc[list(ids)]


def picture_names(data: Dataset, rows: Sequence[int], ranks: Sequence[int]) -> list[str]:
    """Return a name for the picture of each training sample, by its row: its rank, then the name of its file.

    A picture in an array is named by its sample. Ranks make sure that no two are one.
    """
    images = unchanged(data.train.images)
    if isinstance(images, FolderImages):
        names = [images.paths[row].name for row in rows]
    else:
        names = [f"{name}.png" for name in data.names_of(data.train.ids[list(rows)].numpy())]
    width = len(str(len(data.train)))
    return [safe(f"{rank:0{width}d}_{name}") for rank, name in zip(ranks, names, strict=True)]


def safe(name: str) -> str:
    """Return the name of a file that any system can have; a long one is cut before its ending."""
    stem, dot, ending = UNSAFE.sub("_", name).rpartition(".")
    if not dot:
        stem, ending = ending, ""
    room = LONGEST - len((dot + ending).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + ending


def write_pictures(data: Dataset, rows: Sequence[int], names: Sequence[str], folder: Path) -> None:
    """Write the pictures of training samples, by their row: files as they are, pictures of arrays as PNG."""
    images = unchanged(data.train.images)
    for row, name in zip(rows, names, strict=True):
        if isinstance(images, FolderImages):
            shutil.copyfile(images.paths[row], folder / name)
        else:
            (folder / name).write_bytes(png(images.take(torch.tensor([row]))[0]))
