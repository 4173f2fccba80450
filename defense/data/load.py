"""From the settings of the data to the three splits of a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from defense.data.noise import flip_symmetric
from defense.data.sources import SOURCES
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from defense.randomness import derive, generator
from defense.schema import Data


def load(spec: Data, *, seed: int) -> Dataset:
    """Return the dataset of a run: sized, split with every class in its share, with its label noise planted.

    Noise is planted in the training labels alone. Validation and test carry the known truth: the objective is
    measured on a small trusted set. Raises InputError where sizes or labels do not fit.
    """
    if spec.train_labels is not None and spec.source.value != "npz":
        raise InputError("data.train_labels", spec.train_labels, "only data=npz has arrays of other labels")
    collection = SOURCES[spec.source](spec)
    pool, validation, test = collection.train, collection.validation, collection.test
    if test is None:
        if spec.test_size is None:
            raise InputError("data.test_size", None, f"expected a number: {spec.source.value} has no test split")
        test, pool = draw(pool, spec.test_size, "data.test_size", derive(seed, "split", "test"))
    elif spec.test_size is not None:
        test, _ = draw(test, spec.test_size, "data.test_size", derive(seed, "split", "test"))
    split_seed = derive(seed, "split", "validation")
    if validation is None:
        validation, pool = draw(pool, spec.validation_size, "data.validation_size", split_seed)
    else:
        validation, _ = draw(validation, spec.validation_size, "data.validation_size", split_seed)
    train = pool
    if spec.train_size is not None:
        train, _ = draw(pool, spec.train_size, "data.train_size", derive(seed, "split", "train"))
    classes = len(collection.class_names)
    missing = sorted(set(range(classes)) - set(train.labels.tolist()))
    if missing:
        raise InputError("data.train_size", len(train), f"no training sample of class {missing[0]}; expected all")
    if spec.label_noise > 0:
        noisy = flip_symmetric(train.labels, spec.label_noise, classes, generator(seed, "label noise"))
        train = replace(train, labels=noisy)
    return Dataset(
        train=train,
        validation=replace(validation, labels=validation.truth),
        test=test,
        class_names=collection.class_names,
        noise_known=spec.label_noise > 0 or spec.train_labels is not None,
    )


def draw(split: Split, size: int, field: str, seed: int) -> tuple[Split, Split]:
    """Return `size` samples with every class in its share, and the rest; both in order of id."""
    from sklearn.model_selection import train_test_split

    rows, classes = np.arange(len(split)), len(split.truth.unique())
    if size == len(split):
        return split, split.subset(torch.arange(0))
    if not classes <= size <= len(split) - classes:
        valid = f"expected {classes} (one sample of each class) to {len(split) - classes}, or all {len(split)}"
        raise InputError(field, size, f"{len(split)} samples are there to draw from; {valid}")
    rare = torch.bincount(split.truth)
    if int(rare[rare > 0].min()) < 2:
        raise InputError("data.source", f"class {int((rare == 1).nonzero()[0])}", "expected at least two samples")
    chosen, rest = train_test_split(rows, train_size=size, stratify=split.truth.cpu().numpy(), random_state=seed)
    return split.subset(_sorted(chosen)), split.subset(_sorted(rest))


def _sorted(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(rows))
