"""Arrays of an .npz file, by the names that people give them."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from defense.config.schema import Data
from defense.data.arrays import as_images, as_labels, check_pictures, pixel_scale
from defense.data.collection import PARTS, Collection, existing, number_samples
from defense.data.names import check_names
from defense.errors import InputError, printable

log = logging.getLogger(__name__)

PAIRS = (  # of pictures and labels: ours, MedMNIST's, Keras's and scikit-learn's
    ("{}_x", "{}_y"),
    ("{}_images", "{}_labels"),
    ("x_{}", "y_{}"),
    ("X_{}", "y_{}"),
    ("X_{}", "Y_{}"),
)
GROUPS = {"train": "train_groups", "validation": "val_groups", "test": "test_groups"}


def npz(spec: Data) -> Collection:
    """Return the arrays of an .npz file: train_x, train_y, test_x, test_y, or other names in PAIRS.

    `val_x`, `val_y`, `class_names` and `train_groups`, `val_groups`, `test_groups` (whole numbers, one a picture:
    whom a fairness objective compares) are used if present; without arrays for test, `data.test_size` of training
    are drawn. `train_names`, `validation_names` and `test_names` name the samples by texts or whole numbers, each
    once. `data.train_labels` names the array of labels to train on, and the usual one stays the known truth.
    """
    path = existing(spec.path, "data.path", "an .npz file with arrays train_x, train_y, test_x, test_y")
    try:
        file = np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise InputError("data.path", path, "not a readable .npz file of plain arrays") from error
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise InputError("data.path", path, "this file holds a single array; expected an .npz file")
    with file:
        return collected(file, spec)


def collected(file: np.lib.npyio.NpzFile, spec: Data) -> Collection:
    """Return the arrays of a file as samples; raises InputError for the first array that does not fit."""
    twice = sorted(name for name, count in Counter(file.files).items() if count > 1)
    if twice:
        raise InputError("data.path", spec.path, f"has two arrays named {twice[0]}; expected a name for each")
    names = {part: pair for part in PARTS if (pair := names_in(file, part, spec))}
    pictures = {x: array_in(file, x, spec) for x, _ in names.values()}
    for x, array in pictures.items():
        check_pictures(array, x, spec.channels)
    if len({array.shape[1:] for array in pictures.values()}) > 1:
        shapes = {x: array.shape for x, array in pictures.items()}
        raise InputError("data.path", spec.path, f"pictures differ in shape: {shapes}")
    scale = pixel_scale(pictures)
    fields = {part: y for part, (_, y) in names.items()}
    if spec.train_labels is not None:
        fields["train"] = spec.train_labels
        if spec.train_labels not in file.files:
            found = f"no such array; the file has {', '.join(file.files)}"
            raise InputError("data.train_labels", spec.train_labels, found)
    parts = {}
    for part, (x, y) in names.items():
        images = as_images(pictures[x], x, scale, spec.channels)
        truth = labels = as_labels(array_in(file, y, spec), y, len(images))
        if fields[part] != y:
            labels = as_labels(array_in(file, fields[part], spec), fields[part], len(images))
        parts[part] = (images, labels, truth)
    groups = {
        part: as_labels(array_in(file, name, spec), name, len(parts[part][0]))
        for part, name in GROUPS.items()
        if name in file.files and part in parts
    }
    class_names = names_of_classes(array_in(file, "class_names", spec)) if "class_names" in file.files else None
    called = {part: name for part in parts if (name := array_of_names(file, part, spec))}
    own = {part: names_of_samples(file, name, len(parts[part][0]), spec) for part, name in called.items()}
    tell_unread(file, names, called, spec)
    origins = {part: ("data.path", f"{spec.path}, {y}") for part, (_, y) in names.items()}
    return replace(number_samples(parts, class_names, fields, groups, own), origins=origins)


def names_in(file: np.lib.npyio.NpzFile, part: str, spec: Data) -> tuple[str, str] | None:
    """Return the names that a part's pictures and labels have in the file; None if it has no such part.

    Raises InputError if one of both is missing, there are two of them, or none for training.
    """
    pairs = [(x.format(name), y.format(name)) for name in PARTS[part] for x, y in PAIRS]
    there = [pair for pair in pairs if set(pair) <= set(file.files)]
    halves = [pair for pair in pairs if set(pair) & set(file.files)]
    if len({x for x, _ in there}) > 1:
        both = " and ".join(sorted({x for x, _ in there}))
        raise InputError("data.path", spec.path, f"has {both}, each for {part}; expected one of them")
    if not there and (halves or part == "train"):
        needed = next(name for name in (halves or pairs)[0] if name not in file.files)
        raise InputError("data.path", spec.path, f"no array {needed!r} in it; it has {', '.join(file.files)}")
    return there[0] if there else None


def names_of_classes(array: np.ndarray) -> list[str]:
    """Return the names of the classes; raises InputError unless they are distinct texts that can be written."""
    names = texts_in(array, "class_names")
    for name in names:
        if names.count(name) > 1:
            raise InputError("class_names", name, "names two classes; expected a name for each")
    return names


def texts_in(array: np.ndarray, field: str) -> list[str]:
    """Return the values of an array as texts; raises InputError for one that cannot be written in UTF-8."""
    try:
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array]
    except UnicodeDecodeError as error:
        raise InputError(field, repr(error.object), "expected names in UTF-8") from error
    for text in texts:
        if printable(text) != text:
            raise InputError(field, text, "expected names in UTF-8")
    return texts


def array_of_names(file: np.lib.npyio.NpzFile, part: str, spec: Data) -> str | None:
    """Return which array of the file names the samples of a part; None if there is none.

    Raises InputError if there are two.
    """
    there = [name for alias in PARTS[part] if (name := f"{alias}_names") in file.files]
    if len(there) > 1:
        said = f"has {' and '.join(there)}, each for {part}; expected one of them"
        raise InputError("data.path", spec.path, said)
    return there[0] if there else None


def names_of_samples(file: np.lib.npyio.NpzFile, field: str, count: int, spec: Data) -> pd.Series:
    """Return the names of the samples of a part, texts or whole numbers.

    Raises InputError unless there are `count` of them, one a sample and each once.
    """
    array = array_in(file, field, spec)
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        found = f"array of type {array.dtype} and shape {array.shape}"
        raise InputError(field, found, "expected a text or a whole number for each sample")
    if len(array) != count:
        raise InputError(field, f"{len(array)} names", f"expected {count}, one per picture")
    names = pd.Series(texts_in(array, field), dtype=str)
    check_names(names, field, f"array of type {array.dtype}", str(spec.path))
    return names


def array_in(file: np.lib.npyio.NpzFile, name: str, spec: Data) -> np.ndarray:
    """Return an array of the file; raises InputError if it is damaged, or holds objects."""
    try:
        return file[name]
    except ValueError as error:
        raise InputError(
            name, "array of objects", "expected numbers or texts as numpy keeps them, no objects"
        ) from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise InputError("data.path", spec.path, f"array {name!r} in it cannot be read ({error})") from error


def tell_unread(
    file: np.lib.npyio.NpzFile, names: Mapping[str, tuple[str, str]], called: Mapping[str, str], spec: Data
) -> None:
    """Name the arrays that are not read in the log; labels beside others, as train_y_noisy, go without saying.

    names: of pictures and labels, called: of names of samples, both by part.
    """
    known = [name for pair in names.values() for name in pair]
    known += [*called.values(), *GROUPS.values(), "class_names"]
    labels = tuple(f"{y}_" for _, y in names.values())
    unread = [
        name for name in file.files if name not in (*known, spec.train_labels) and not name.startswith(labels)
    ]
    if unread:
        log.info("%s: arrays that are not read: %s", spec.path, ", ".join(unread))
