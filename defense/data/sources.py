"""Where samples come from: one function per source, each returning what the source holds, untouched."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from defense.config.choices import Source
from defense.config.schema import Data
from defense.data.arrays import as_images, as_labels
from defense.data.collection import Collection, number_samples
from defense.data.folder import image_folder
from defense.data.huggingface import huggingface
from defense.data.image_table import image_table
from defense.data.npz import npz
from defense.data.table import rows_of_table, table
from defense.data.text import rows_of_texts, text
from defense.data.torch_dataset import dataset
from defense.errors import InputError


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


def given(spec: Data) -> Collection:
    """Raise InputError: samples that Python code has are not read from a source."""
    raise InputError(
        "data.source", spec.source, "its samples were given by a call of defense.defend; call it again"
    )


ROWS: dict[Source, Callable[[Data], pd.DataFrame]] = {  # of training, in order of id, for those who look at them
    Source.table: rows_of_table,
    Source.text: rows_of_texts,
}
SOURCES: dict[Source, Callable[[Data], Collection]] = {
    Source.digits: digits,
    Source.mnist: partial(from_torchvision, name="MNIST"),
    Source.fashion_mnist: partial(from_torchvision, name="FashionMNIST"),
    Source.cifar10: partial(from_torchvision, name="CIFAR10"),
    Source.cifar100: partial(from_torchvision, name="CIFAR100"),
    Source.npz: npz,
    Source.dataset: dataset,
    Source.huggingface: huggingface,
    Source.image_folder: image_folder,
    Source.image_table: image_table,
    Source.table: table,
    Source.text: text,
    Source.given: given,
}
