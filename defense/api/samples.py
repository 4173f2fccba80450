"""Samples from Python: a pair of arrays, a Dataset or a DataLoader, read into memory as one split, row by row.

The one place that knows shapes: attacks and retrainings take pictures (n, C, H, W) in [0, 1], while a score takes
whatever the model takes, as features (n, d) or tokens (n, T).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from torch.utils.data import Dataset as TorchDataset

from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.errors import InputError
from defense.models.contract import FEW, first_line
from defense.randomness import global_seed

ROUNDING = 1e-6  # by how much a pixel may miss [0, 1]
Samples = tuple[Any, Any] | list[Any] | TorchDataset[Any] | DataLoader[Any]
Batch = tuple[Tensor, Tensor]  # inputs (b, ...) and labels (b, ...)


class Inputs(TensorImages):
    """Samples in one tensor (n, ...) of any shape, handed to a model as they are; for scores, which move none."""

    def __init__(self, values: Tensor) -> None:
        self.pixels = values  # without the shape (C, H, W) of a picture: who asks for that needs pictures


def as_split(field: str, samples: Samples, *, pictures: bool) -> Split:
    """Return samples as a split whose ids are the row numbers, where they are; raises InputError if they are none.

    In memory they lie contiguous, so that one seed draws the same noise whatever their layout was.
    """
    what = "pictures" if pictures else "inputs"
    if isinstance(samples, tuple | list) and len(samples) == 2:
        x, y = as_tensor(f"{field} {what}", samples[0]), as_tensor(f"{field} labels", samples[1])
    else:
        x, y = read(field, samples)
    if x.ndim == 0 or len(x) == 0:
        raise InputError(f"{field} {what}", f"shape {tuple(x.shape)}", "expected (n, ...), n at least 1")
    labels = as_labels(f"{field} labels", y, len(x)).to(x.device)
    own = x.detach().clone(memory_format=torch.contiguous_format)
    images = as_pictures(f"{field} {what}", own) if pictures else as_inputs(f"{field} {what}", own)
    return Split(torch.arange(len(x)), images, labels, labels)


def read(field: str, samples: Samples) -> Batch:
    """Return the samples of a Dataset or a DataLoader as two tensors, in order.

    Raises InputError for anything else, for samples that cannot be stacked, and if they are others when they are
    read again, as those of a random transform.
    """
    if isinstance(samples, DataLoader):
        check_loader(field, samples)
    elif not isinstance(samples, TorchDataset) or isinstance(samples, IterableDataset):
        valid = "expected a pair (x, y) of arrays, a map-style Dataset of pairs (x, y), or a DataLoader of one"
        raise InputError(field, type(samples).__name__, valid)
    with global_seed(0, "samples"):  # transforms draw from it, and a loader the seeds of its workers
        batches = list(batches_of(field, samples))
    if not batches:
        raise InputError(field, f"empty {type(samples).__name__}", "expected one sample at least")
    with global_seed(1, "samples"):
        again = list(islice(batches_of(field, samples), FEW))
    if not all(torch.equal(first[0], second[0]) for first, second in zip(batches, again, strict=False)):
        found = "gives other samples each time, as a random transform does; expected it without augmentation"
        raise InputError(field, type(samples).__name__, found)
    return joined(f"{field} inputs", [x for x, _ in batches]), joined(f"{field} labels", [y for _, y in batches])


def check_loader(field: str, loader: DataLoader[Any]) -> None:
    """Raise InputError unless a loader gives every sample of its dataset once and in order: scores go by row."""
    in_order = isinstance(loader.sampler, SequentialSampler)
    in_order &= loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler
    for what, valid in (
        ("an IterableDataset", not isinstance(loader.dataset, IterableDataset)),
        ("shuffle=True or a sampler", in_order),
        ("drop_last=True", not loader.drop_last),
    ):
        if not valid:
            expected = (
                "expected one that gives every sample of a map-style Dataset once and in order: scores go by row"
            )
            raise InputError(field, f"DataLoader with {what}", expected)


def batches_of(field: str, samples: Any) -> Iterator[Batch]:
    """Yield the batches of a loader, or the samples of a Dataset as batches of one.

    Raises InputError for the first that cannot be read, or is no pair (x, y).
    """
    loads = isinstance(samples, DataLoader)
    number, name = 0, f"{field}, {'batch' if loads else 'sample'}"
    try:
        for part in samples if loads else (samples[row] for row in range(len(samples))):
            if not isinstance(part, tuple | list) or len(part) != 2:
                raise InputError(f"{name} {number}", type(part).__name__, "expected a pair (x, y)")
            x, y = (as_tensor(f"{name} {number}, {what}", each) for what, each in zip("xy", part, strict=True))
            yield (x, y) if loads else (x[None], y[None])
            number += 1
    except InputError:
        raise
    except Exception as error:  # a user's code can raise anything
        told = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(
            f"{name} {number}", "an error", f"expected a pair (x, y); reading it raised {told}"
        ) from error


def joined(field: str, parts: Sequence[Tensor]) -> Tensor:
    """Return batches (b, ...) as one tensor (n, ...); raises InputError if samples differ in shape."""
    for part in parts:
        if part.shape[1:] != parts[0].shape[1:]:
            found = f"shapes {tuple(parts[0].shape[1:])} and {tuple(part.shape[1:])}"
            raise InputError(field, found, "expected samples of one shape, scaled or padded")
    return torch.cat(list(parts))


def as_tensor(field: str, value: Any) -> Tensor:
    """Return numbers as a tensor; raises InputError for anything else, as a picture of Pillow."""
    if isinstance(value, Tensor):
        return value
    try:
        if not isinstance(value, np.ndarray | np.generic | pd.Series | pd.DataFrame | list | tuple | int | float):
            raise TypeError
        return torch.tensor(np.ascontiguousarray(value)).reshape(np.shape(value))
    except (TypeError, ValueError) as error:
        valid = "expected numbers, as a tensor or an array; ToTensor() of torchvision makes one of a picture"
        raise InputError(field, type(value).__name__, valid) from error


def as_labels(field: str, labels: Tensor, count: int) -> Tensor:
    """Return labels as int64 (count,); raises InputError if they are no whole numbers, or not as many."""
    floats = labels.is_floating_point() or labels.is_complex()
    if not floats and labels.shape == (count,):
        return labels.detach().long()
    valid = f"expected whole numbers of shape ({count},), the class of each sample from 0 up"
    if labels.ndim in (1, 2) and len(labels) == count:
        one_hot = labels.ndim == 2 and labels.shape[1] > 1
        if one_hot or not floats or torch.equal(labels, labels.round()):
            right = ".argmax(1)" if one_hot else ".flatten().long()" if labels.ndim == 2 else ".long()"
            valid += f"; labels{right} gives them"
    raise InputError(field, f"{labels.dtype} of shape {tuple(labels.shape)}", valid)


def as_pictures(field: str, x: Tensor) -> TensorImages:
    """Return pictures (n, C, H, W) in [0, 1], or uint8; raises InputError if they are none."""
    if x.ndim != 4:
        raise InputError(field, f"shape {tuple(x.shape)}", "expected (n, C, H, W)")
    if x.dtype not in (torch.uint8, torch.float32, torch.float64):
        raise InputError(field, x.dtype, "expected float32 in [0, 1], float64 or uint8")
    low, high = float(x.min()), float(x.max())
    if x.dtype != torch.uint8:
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # written so that NaN fails
            valid = (
                "expected floats in [0, 1], or uint8; a model normalises as nn.Sequential(Normalize(...), model)"
            )
            raise InputError(field, f"{low!r} to {high!r}", valid)
        x = x.clamp(0, 1)
    return TensorImages(x)


def as_inputs(field: str, x: Tensor) -> TensorImages:
    """Return what a model takes: floats of any shape and range, whole numbers as tokens; uint8 pictures in [0, 1].

    Raises InputError if a number is not finite.
    """
    if x.dtype == torch.uint8 and x.ndim == 4:
        return TensorImages(x)
    if x.dtype in (torch.uint8, torch.bool) or x.is_complex():
        raise InputError(field, x.dtype, "expected floats; whole numbers, as tokens, as int64")
    if not bool(x.isfinite().all()):
        raise InputError(field, "NaN or infinity", "expected finite numbers")
    return Inputs(x if x.is_floating_point() else x.long())


def as_ids(ids: Sequence[Any] | None, count: int) -> pd.Index:
    """Return the ids of samples as an index, 0 to count - 1 if none are given; raises InputError for one twice."""
    index = pd.RangeIndex(count, name="id") if ids is None else pd.Index(ids, name="id", tupleize_cols=False)
    if len(index) != count:
        raise InputError("ids", f"{len(index)} of them", f"expected {count}, one for each training sample")
    if index.hasnans:
        raise InputError("ids", "NaN", "expected an id for each sample")
    if not index.is_unique:
        raise InputError("ids", index[index.duplicated()][0], "is there twice; expected one for each sample")
    return index
