"""Where samples come from: one function per source, each returning what the source holds, untouched."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from defense.choices import Source
from defense.data.arrays import as_images, as_labels, check_pictures, pixel_scale
from defense.data.collection import Collection, existing, number_samples
from defense.data.images import FolderImages
from defense.data.table import table
from defense.data.text import text
from defense.errors import InputError
from defense.schema import Data


def digits(spec: Data) -> Collection:
    """Return scikit-learn's 1,797 real digits, 8x8 grey; they come with scikit-learn and have one part only."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = as_images((bunch.images / 16).astype(np.float32), "data.source", scale=1)
    labels = as_labels(bunch.target, "data.source", len(images))
    return number_samples({"train": (images, labels, labels)})


def from_torchvision(spec: Data, *, name: str) -> Collection:
    """Return a data set of torchvision, downloaded into `data.root` on first use."""
    from torchvision import datasets

    parts = {}
    for part in ("train", "test"):
        try:
            data = getattr(datasets, name)(spec.root, train=part == "train", download=True)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a broken archive is a RuntimeError
            folder = Path(spec.root).resolve()
            raise InputError(
                "data.source",
                spec.source.value,
                f"not found in {folder} (data.root) and the download failed ({error}); copy the files there, "
                "or give your own arrays with data=npz data.path=FILE",
            ) from error
        images = as_images(np.asarray(data.data), "data.source", scale=255)
        labels = as_labels(np.asarray(data.targets), "data.source", len(images))
        parts[part] = (images, labels, labels)
    return number_samples(parts, class_names=[str(c) for c in data.classes])


NPZ_NAMES = {
    "train": ("train_x", "train_y", "train_images", "train_labels"),
    "validation": ("val_x", "val_y", "val_images", "val_labels"),
    "test": ("test_x", "test_y", "test_images", "test_labels"),
}
GROUPS = {"train": "train_groups", "validation": "val_groups", "test": "test_groups"}


def npz(spec: Data) -> Collection:
    """Return the arrays of an .npz file: train_x, train_y, test_x, test_y, or the names that MedMNIST uses.

    `val_x`, `val_y`, `class_names` and `train_groups`, `val_groups`, `test_groups` (whole numbers, one a picture:
    whom a fairness objective compares) are used where present; `data.train_labels` names the array of labels to
    train on, and the usual one stays the known truth.
    """
    path = existing(spec.path, "data.path", "an .npz file with arrays train_x, train_y, test_x, test_y")
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InputError("data.path", path, "this file holds a single array; expected an .npz file")
        with file:
            return _read_npz(file, spec)
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError("data.path", path, "not a readable .npz file of plain arrays") from error


def _read_npz(file: np.lib.npyio.NpzFile, spec: Data) -> Collection:
    names = {part: _names_in(file, part, spec) for part in NPZ_NAMES}
    pictures = {x: file[x] for x, _ in filter(None, names.values())}
    for x, array in pictures.items():
        check_pictures(array, x)
    if len({array.shape[1:] for array in pictures.values()}) > 1:
        shapes = {x: array.shape for x, array in pictures.items()}
        raise InputError("data.path", spec.path, f"pictures differ in shape: {shapes}")
    scale = pixel_scale(pictures)
    parts = {}
    for part, (x, y) in ((part, pair) for part, pair in names.items() if pair):
        images = as_images(pictures[x], x, scale)
        truth = labels = as_labels(file[y], y, len(images))
        if part == "train" and spec.train_labels is not None:
            if spec.train_labels not in file.files:
                found = f"no such array; the file has {', '.join(file.files)}"
                raise InputError("data.train_labels", spec.train_labels, found)
            labels = as_labels(file[spec.train_labels], spec.train_labels, len(images))
        parts[part] = (images, labels, truth)
    class_names = [str(name) for name in file["class_names"]] if "class_names" in file.files else None
    fields = {part: pair[1] for part, pair in names.items() if pair}
    if spec.train_labels is not None:
        fields["train"] = spec.train_labels
    groups = {
        part: as_labels(file[name], name, len(parts[part][0]))
        for part, name in GROUPS.items()
        if name in file.files and part in parts
    }
    return number_samples(parts, class_names, fields, groups)


def _names_in(file: np.lib.npyio.NpzFile, part: str, spec: Data) -> tuple[str, str] | None:
    """Return the names that a part's pictures and labels have in the file; None where it has no such part."""
    x, y, other_x, other_y = NPZ_NAMES[part]
    x, y = (other_x, other_y) if x not in file.files and other_x in file.files else (x, y)
    if part == "validation" and x not in file.files:
        return None
    for needed in (x, y):
        if needed not in file.files:
            found = ", ".join(file.files)
            raise InputError("data.path", spec.path, f"no array {needed!r} in it; it has {found}")
    return x, y


def image_folder(spec: Data) -> Collection:
    """Return pictures in PATH/train/<class>/ and, where present, PATH/val/<class>/ and PATH/test/<class>/."""
    from torchvision.datasets import ImageFolder

    path = existing(spec.path, "data.path", "a folder with train/<class>/<picture> in it")
    if spec.image_size is None:
        raise InputError("data.image_size", None, "expected the side, in pixels, that pictures are fitted to")
    parts, classes = {}, None
    for part, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        if part != "train" and not (path / folder).is_dir():
            continue
        try:
            found = ImageFolder(str(path / folder))
        except (OSError, ValueError) as error:
            raise InputError(
                "data.path", path / folder, f"no folder of classes with pictures ({error})"
            ) from error
        if classes is not None and found.classes != classes:
            raise InputError("data.path", path / folder, f"its classes differ from those of train: {classes}")
        classes = found.classes
        labels = torch.tensor(found.targets)
        parts[part] = (
            FolderImages([Path(file) for file, _ in found.samples], spec.image_size),
            labels,
            labels,
        )
    return number_samples(parts, class_names=classes)


SOURCES: dict[Source, Callable[[Data], Collection]] = {
    Source.digits: digits,
    Source.mnist: partial(from_torchvision, name="MNIST"),
    Source.fashion_mnist: partial(from_torchvision, name="FashionMNIST"),
    Source.cifar10: partial(from_torchvision, name="CIFAR10"),
    Source.cifar100: partial(from_torchvision, name="CIFAR100"),
    Source.npz: npz,
    Source.image_folder: image_folder,
    Source.table: table,
    Source.text: text,
}
