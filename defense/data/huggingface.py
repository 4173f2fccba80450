"""Pictures in a folder that the package datasets of Hugging Face has written by `save_to_disk`.

They are decoded into memory, by Pillow and as those of folders are. Nothing is downloaded.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from defense.config.schema import Data
from defense.data.arrays import as_labels
from defense.data.collection import Collection, number_samples, parts_among
from defense.data.images import TensorImages, fitted, reason
from defense.data.labels import classes_of, labels_of
from defense.data.names import check_names
from defense.data.readable import without
from defense.errors import InputError, printable

FIELD, EXPECTED = "data.path", "a folder that save_to_disk of the package datasets has written"
BATCH = 500  # pictures that are read before they are decoded
Sets = dict[str, Any]  # datasets.Dataset by part


def huggingface(spec: Data) -> Collection:
    """Return the pictures of a folder that `datasets.load_from_disk` reads: a DatasetDict, or one Dataset.

    `data.image` and `data.target` are the columns of pictures and labels; null: the one of type Image, and the one
    of type ClassLabel, whose names are those of the classes. `data.ids` is the column of the names of samples.
    Raises InputError if the folder or a column is not there, or a picture or a label cannot be read.
    """
    if spec.image_size is None:
        raise InputError("data.image_size", None, "expected the side, in pixels, that pictures are fitted to")
    sets = stored_in(spec)
    import datasets  # slow to import, and needed here alone

    image = column_of(sets, datasets.Image, "image", spec)
    target = column_of(sets, datasets.ClassLabel, "target", spec)
    if spec.ids is not None:
        check_column(sets, spec.ids, "data.ids")
    classes, labels = labelled(sets, target, spec)
    parts: dict[str, tuple[TensorImages, Tensor, Tensor]] = {}
    names: dict[str, pd.Series] = {}
    broken: dict[str, dict[int, str]] = {}
    for part, rows in sets.items():
        stored = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        pixels, reasons = pixels_of(stored, image, spec.image_size)
        parts[part] = TensorImages(pixels), labels[part], labels[part]
        broken[part] = {row: f"row {row} of {part} ({why})" for row, why in reasons.items()}
        if spec.ids is not None:
            names[part] = pd.Series([printable(str(each)) for each in cells_of(rows, spec.ids)], dtype=str)
            check_names(names[part], "data.ids", spec.ids, f"{part} of {spec.path}")
    fields = {part: f"{target} of {part}" for part in parts}
    origins = {part: (FIELD, f"{spec.path}, {target} of {part}") for part in parts}
    found = replace(number_samples(parts, classes, fields, names=names), origins=origins)
    return without(found, broken, spec)


def stored_in(spec: Data) -> Sets:
    """Return the Datasets in the folder `data.path` by part, their values as Python has them.

    Raises InputError if the package is missing, or the folder is none of its own.
    """
    path = Path(str(spec.path))
    if spec.path is None:
        raise InputError(FIELD, None, f"expected {EXPECTED}")
    if find_spec("datasets") is None:
        raise InputError("data.source", spec.source, 'is read by datasets: pip install -e ".[vision]"')
    if not path.is_dir():
        way = f"load_dataset({str(path)!r}).save_to_disk('my_folder') writes one, and nothing is downloaded here"
        raise InputError(FIELD, path, f"no such folder; expected {EXPECTED}: {way}")
    import datasets  # slow to import, and needed here alone

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # of many kinds, as the folder may hold anything
        raise InputError(FIELD, path, f"expected {EXPECTED} ({type(error).__name__}: {error})") from error
    parted = isinstance(found, dict)
    sets = (
        {part: found[name] for part, name in parts_among(found, FIELD, path).items()}
        if parted
        else {"train": found}
    )
    for part, rows in sets.items():
        if len(rows) == 0:
            raise InputError(FIELD, path, f"{part} has no row; expected samples of each class")
    return {part: rows.with_format(None) for part, rows in sets.items()}


def column_of(sets: Sets, kind: type, setting: str, spec: Data) -> str:
    """Return the column that a setting names, or the one of a type; raises InputError if there is none."""
    features, chosen, field = sets["train"].features, getattr(spec, setting), f"data.{setting}"
    there = [name for name, feature in features.items() if isinstance(feature, kind)]
    if chosen is None and len(there) != 1:
        has = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        said = f"{len(there)} columns of type {kind.__name__}; expected the name of one, of {has}"
        raise InputError(field, None, said)
    check_column(sets, there[0] if chosen is None else str(chosen), field)
    if setting == "image" and chosen is not None and chosen not in there:
        raise InputError(field, chosen, f"is of type {type(features[chosen]).__name__}; expected Image")
    return there[0] if chosen is None else str(chosen)


def check_column(sets: Sets, name: str, field: str) -> None:
    """Raise InputError for the first part that has no column of a name."""
    for part, rows in sets.items():
        if name not in rows.features:
            raise InputError(field, name, f"no such column in {part}; it has {', '.join(rows.features)}")


def cells_of(rows: Any, name: str) -> list[Any]:
    """Return the cells of a column, without reading another."""
    return list(rows.select_columns([name])[:][name])


def labelled(sets: Sets, target: str, spec: Data) -> tuple[list[str] | None, dict[str, Tensor]]:
    """Return the names of the classes, None if they are numbers, and the labels int64 (n,) of each part.

    Raises InputError for a label that is missing, or is none of those of training.
    """
    values = {part: cells_of(rows, target) for part, rows in sets.items()}
    names = getattr(sets["train"].features[target], "names", None)
    for part, each in values.items():
        missing = sum(value is None or (names is not None and value < 0) for value in each)
        if missing:
            said = f"{missing} of {len(each)} rows of {part} have no label; expected one in each, or no such split"
            raise InputError("data.target", target, said)
        if getattr(sets[part].features[target], "names", names) != names:
            raise InputError("data.target", target, f"the classes of {part} have other names than those of train")
    if any(isinstance(value, str) for value in values["train"]):
        path = str(spec.path)
        words = {part: list(map(str, each)) for part, each in values.items()}
        classes = classes_of(words["train"], target, FIELD, path)
        return classes, {part: labels_of(each, classes, FIELD, path) for part, each in words.items()}
    labels = {part: as_labels(np.asarray(each), f"{target} of {part}", len(each)) for part, each in values.items()}
    return names, labels


def pixels_of(rows: Any, image: str, size: int) -> tuple[Tensor, dict[int, str]]:
    """Return pictures as uint8 (n, 3, size, size), and by row why those that stay black cannot be read."""
    pixels = np.zeros((len(rows), size, size, 3), dtype=np.uint8)
    broken: dict[int, str] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH][image]
            for row, found in enumerate(pool.map(partial(decoded, size=size), batch), start=start):
                if isinstance(found, str):
                    broken[row] = found
                else:
                    pixels[row] = found
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), broken


def decoded(picture: Mapping[str, Any] | None, *, size: int) -> np.ndarray | str:
    """Return a picture, its bytes or its file, as uint8 (size, size, 3), or the reason that it cannot be read."""
    if picture is None or (picture["bytes"] is None and picture["path"] is None):
        return "no picture in it"
    try:
        content = picture["bytes"]
        return fitted(Path(picture["path"]) if content is None else io.BytesIO(content), size=size)
    except Exception as error:  # decoders raise whatever they meet in a broken picture
        return reason(error)
