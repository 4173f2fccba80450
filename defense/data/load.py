"""From the settings of the data to the three splits of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from defense.config.schema import Data
from defense.data.given import halves
from defense.data.harm import check_harm, harmed
from defense.data.points import DRAWN
from defense.data.readable import readable
from defense.data.sources import SOURCES, Collection
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from defense.randomness import derive


def load(spec: Data, *, seed: int, cache: Path | None = None) -> Dataset:
    """Return the dataset of a run: sized, split with every class in its share, with its harm planted.

    cache: a folder that keeps which pictures in files can be read, see `defense.data.readable`.

    Harm is in the training samples alone; what takes a trained model is left to `defense.stages.plant`.
    Validation and test carry the known truth: the objective is measured on a small trusted set. Raises InputError
    if sizes, labels or harm do not fit.
    """
    collection = readable(collected(spec, seed=seed), spec, cache)
    check_rare(collection, spec)
    names = collection.class_names
    test, pool = cut(collection.test, collection.train, spec.test_size, "data.test_size", seed, names)
    validation, pool = cut(collection.validation, pool, spec.validation_size, "data.validation_size", seed, names)
    train, _ = cut(pool, pool, spec.train_size, "data.train_size", seed, names)
    classes = len(names)
    if classes < 2:
        raise InputError("data.source", spec.source, "its training labels are all the same; expected two classes")
    missing = sorted(set(range(classes)) - set(train.labels.tolist()))
    if missing:
        found = f"leaves no training sample of class {names[missing[0]]}; expected one of each class at least"
        raise InputError("data.train_size", spec.train_size, found)
    if collection.encoder is not None:
        parts = {"train": train, "validation": validation, "test": test}
        encoded = collection.encoder({part: split.images for part, split in parts.items()})
        train, validation, test = (split.with_images(encoded[part]) for part, split in parts.items())
    check_harm(train, spec, classes=classes)
    return Dataset(
        train=harmed(train, spec, classes=classes, seed=seed),
        validation=replace(validation, labels=validation.truth),
        test=test,
        class_names=names,
        group_names=collection.group_names,
        left_out=collection.left_out,
        names=collection.names,
        noise_known=spec.harm.changes_labels or spec.train_labels is not None,
        given=halves(collection.given, seed=seed) if collection.given else {},
    )


def collected(spec: Data, *, seed: int) -> Collection:
    """Return all that a source has: what is there, or what is drawn anew for every seed."""
    return DRAWN[spec.source](spec, seed=seed) if spec.source in DRAWN else SOURCES[spec.source](spec)


def held_out(data: Dataset, share: float, *, seed: int) -> Dataset:
    """Return the dataset with a `share` of validation, every class in its share, set aside as `choice`."""
    size = round(share * len(data.validation))
    total, least = len(data.validation), len(data.validation.truth.unique())
    if total < 2 * least:
        said = f"too few to set some aside; expected {2 * least}, two of each class, at least"
        raise InputError("data.validation_size", total, said)
    if not least <= size <= total - least:
        valid = f"expected {least} (one of each class) to {total - least}"
        raise InputError("treatment.held_out", share, f"sets {size} of {total} validation samples aside; {valid}")
    purpose = derive(seed, "split", "choice")
    choice, rest = draw(data.validation, size, "treatment.held_out", purpose, data.class_names)
    return replace(data, validation=rest, choice=choice)


def check_rare(collection: Collection, spec: Data) -> None:
    """Raise InputError if samples are drawn from a part that has a single one of a class: it cannot be divided."""
    lacking = collection.validation is None or collection.test is None
    for part, split, size in (
        ("train", collection.train, spec.train_size),
        ("validation", collection.validation, spec.validation_size),
        ("test", collection.test, spec.test_size),
    ):
        if split is None or (size in (None, len(split)) and not (part == "train" and lacking)):
            continue
        rare = (torch.bincount(split.truth) == 1).nonzero().flatten().tolist()
        if rare:
            field, value = collection.origins.get(part, ("data.source", str(spec.source)))
            said = f"one sample has the label {collection.class_names[rare[0]]}; expected two at least"
            raise InputError(field, value, said)


def cut(
    own: Split | None, pool: Split, size: int | None, field: str, seed: int, names: Sequence[str]
) -> tuple[Split, Split]:
    """Return a part of `size` samples (None: all) of the source's own part, and the pool as it is.

    If the source has no such part, it is drawn from the pool, and what is left of that is returned. names: of the
    classes.
    """
    purpose = derive(seed, "split", field)
    if own is not None:
        return own if size is None else draw(own, size, field, purpose, names)[0], pool
    if size is None:
        raise InputError(field, None, "expected a number: the source has no such split of its own")
    return draw(pool, size, field, purpose, names)


def draw(split: Split, size: int, field: str, seed: int, names: Sequence[str] = ()) -> tuple[Split, Split]:
    """Return `size` samples with every class in its share, and the rest; both in order of id.

    names: of the classes, for the error if a class has a single sample left.
    """
    from sklearn.model_selection import train_test_split

    rows, classes = np.arange(len(split)), len(split.truth.unique())
    if size == len(split):
        return split, split.subset(torch.arange(0))
    if not classes <= size <= len(split) - classes:
        rest = len(split) - classes
        valid = f"expected {classes} (one sample of each class) to {rest}, or null, all {len(split)}"
        raise InputError(field, size, f"{len(split)} samples are there to draw from; {valid}")
    counts = torch.bincount(split.truth)
    if bool((counts == 1).any()):
        label = int((counts == 1).nonzero()[0])
        said = f"one sample of class {names[label] if names else label} is there to draw from"
        raise InputError(field, size, f"{said}; expected two at least, one for either side")
    chosen, rest = train_test_split(rows, train_size=size, stratify=split.truth.cpu().numpy(), random_state=seed)
    return split.subset(_sorted(chosen)), split.subset(_sorted(rest))


def _sorted(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.sort(rows))
