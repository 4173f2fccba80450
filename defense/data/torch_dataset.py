"""Datasets of torch that a function of yours returns, read into memory item by item.

Their pictures and labels enter keys, as arrays of a file do. The code that made them does not: if it changes a
picture or a label, the keys change, and otherwise the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from defense.config.schema import Data
from defense.data.arrays import scale_of
from defense.data.collection import PARTS, Collection, number_samples, parts_among
from defense.data.images import TensorImages
from defense.data.items import label_of, picture_of
from defense.data.names import check_names
from defense.errors import InputError, printable
from defense.randomness import global_seed
from defense.runtime.source import locate

FIELD, EXAMPLE = "data._target_", "a function that returns Datasets, as my_file.make_dataset"
FEW = 8  # items that are read twice: they are to be the same
LOADER = "a DataLoader; expected the Dataset inside it, its attribute dataset"
STREAM = "an IterableDataset, which has no number of items; expected a Dataset with __len__ and __getitem__"


def dataset(spec: Data) -> Collection:
    """Return the items of the Datasets that the function or class at `data._target_` returns.

    It is called with `data.arguments`. It returns one Dataset, a dict with train and perhaps validation and test,
    or a tuple of these three, of which the last two may be None. An item is a picture and the number of its class;
    see `defense.data.items`. The attribute `classes` of train names the classes, `ids` of each part its samples.
    Raises InputError for the first thing that cannot be read.
    """
    path = spec._target_
    if path is None:
        raise InputError(FIELD, None, f"expected the dotted path of {EXAMPLE}")
    parts: dict[str, tuple[TensorImages, Tensor, Tensor]] = {}
    with global_seed(0, "dataset"):  # so that all processes of a run read the same
        sets = sets_in(returned(path, spec.arguments), path)
        for part, each in sets.items():
            pictures, labels = items_of(each, part, spec)
            if part == "train":
                first = pictures[0]
            check_alike(pictures, first, part, path)
            stacked = np.stack(pictures)
            scale_of(stacked, f"pictures of {part}")
            parts[part] = TensorImages(torch.from_numpy(stacked)), labels, labels
    names = {part: found for part, each in sets.items() if (found := names_of(each, part, path)) is not None}
    fields = {part: f"labels of {part}" for part in parts}
    found = number_samples(parts, classes_of(sets["train"], path), fields, names=names)
    return replace(found, origins={part: (FIELD, f"{path}, {part}") for part in parts})


def returned(path: str, arguments: Mapping[str, Any]) -> Any:
    """Return what the function or class at a dotted path returns; raises InputError if it fails."""
    target = locate(path, "data")
    try:
        return target(**arguments)
    except Exception as error:  # a user's code can raise anything
        raise InputError(FIELD, path, f"fails with {type(error).__name__}: {error}") from error


def sets_in(found: Any, path: str) -> dict[str, Any]:
    """Return the Datasets by part; raises InputError if they are none, or have no item."""
    if isinstance(found, Mapping):
        sets = {part: found[name] for part, name in parts_among(map(str, found), FIELD, path).items()}
        unread = [str(name) for name in found if not any(name in known for known in PARTS.values())]
        if unread:
            raise InputError(FIELD, path, f"returns {', '.join(unread)}, too; expected train, validation and test")
    elif isinstance(found, tuple):
        if len(found) != len(PARTS):
            valid = "expected (train, validation, test), None for what is not there, or a dict of them by name"
            raise InputError(FIELD, path, f"returns a tuple of {len(found)}; {valid}")
        sets = dict(zip(PARTS, found, strict=True))
    else:
        sets = {"train": found}
    there = {part: each for part, each in sets.items() if each is not None or part == "train"}
    for part, each in there.items():
        check_set(each, part, path)
    return there


def check_set(found: Any, part: str, path: str) -> None:
    """Raise InputError unless an object has a number of items, one at least, and gives each by its number."""
    if isinstance(found, DataLoader | IterableDataset):
        raise InputError(FIELD, path, f"{part} is {LOADER if isinstance(found, DataLoader) else STREAM}")
    if not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
        raise InputError(FIELD, path, f"{part} is {found!r:.40}; expected a Dataset with __len__ and __getitem__")
    if len(found) == 0:
        raise InputError(FIELD, path, f"{part} has no item; expected samples of each class")


def items_of(found: Any, part: str, spec: Data) -> tuple[list[np.ndarray], Tensor]:
    """Return the pictures, uint8 or float32 (C, H, W) in [0, 1], and labels int64 (n,) of a Dataset.

    Raises InputError for the first item that is no picture with its label, or another one when it is read again.
    """
    path, pictures, labels = str(spec._target_), [], []
    for number in range(len(found)):
        picture, label = item(found, number, part, spec)
        if number < FEW:
            again, _ = item(found, number, part, spec)
            if not (again.shape == picture.shape and np.array_equal(again, picture)):
                said = f"item {number} of {part} is another picture each time; expected the same"
                raise InputError(FIELD, path, f"{said}: leave random transforms to train.crop and train.flip")
        pictures.append(picture)
        labels.append(label)
    return pictures, torch.tensor(labels)


def item(found: Any, number: int, part: str, spec: Data) -> tuple[np.ndarray, int]:
    """Return a picture and its label; raises InputError if they cannot be read, or are none."""
    path, where = str(spec._target_), f"item {number} of {part}"
    try:
        value = found[number]
    except Exception as error:  # a user's code can raise anything
        raise InputError(FIELD, path, f"{where} fails with {type(error).__name__}: {error}") from error
    if not (isinstance(value, tuple | list) and len(value) == 2):
        size = f" of {len(value)}" if isinstance(value, tuple | list | dict) else ""
        said = f"{where} is a {type(value).__name__}{size}; expected a pair, (picture, label)"
        raise InputError(FIELD, path, said)
    try:
        return picture_of(value[0], spec.channels), label_of(value[1])
    except ValueError as error:
        raise InputError(FIELD, path, f"{where}: {error}") from error


def check_alike(pictures: list[np.ndarray], first: np.ndarray, part: str, path: str) -> None:
    """Raise InputError if a picture has another shape or type than the first of train."""
    for number, picture in enumerate(pictures):
        where = f"item {number} of {part}"
        if picture.shape != first.shape:
            said = f"{where} has the shape {picture.shape}, item 0 of train {first.shape}"
            way = f"transforms.Resize({first.shape[1:]}) of torchvision"
            raise InputError(FIELD, path, f"{said}; expected one shape for all, as by {way}")
        if picture.dtype != first.dtype:
            said = f"{where} is of type {picture.dtype}, item 0 of train {first.dtype}; expected one type for all"
            raise InputError(FIELD, path, said)


def names_of(found: Any, part: str, path: str) -> pd.Series | None:
    """Return the names of the samples of a part, its attribute `ids`; None if it has none.

    Raises InputError unless each sample has a name of its own.
    """
    ids = getattr(found, "ids", None)
    if ids is None:
        return None
    names = pd.Series([printable(str(each)) for each in ids], dtype=str)
    if len(names) != len(found):
        raise InputError(FIELD, path, f"{part} has {len(names)} ids; expected {len(found)}, one for each item")
    check_names(names, FIELD, path, f"ids of {part}")
    return names


def classes_of(found: Any, path: str) -> list[str] | None:
    """Return the names of the classes, the attribute `classes`; None if there is none.

    Raises InputError unless they are distinct.
    """
    names = getattr(found, "classes", None)
    if names is None:
        return None
    if not isinstance(names, list | tuple) or len({str(name) for name in names}) < len(names):
        said = f"its attribute classes is {names!r:.60}; expected a list of names, one for each class"
        raise InputError(FIELD, path, said)
    return [printable(str(name)) for name in names]
