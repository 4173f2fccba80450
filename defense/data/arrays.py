"""Arrays of pictures and labels as people store them, checked and brought into one form."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from defense.config.choices import Channels
from defense.data.images import TensorImages
from defense.errors import InputError

log = logging.getLogger(__name__)

ROUNDING = 1e-6  # of the range: by so much numbers may lie outside of it, and are cut off
DIM = 32  # floats that nowhere exceed it are not in 0 to 255: those of scikit-learn's digits are up to 16
DARK = 128  # pictures up to 255 that nowhere reach it are worth a line in the log
VALID = "expected floats in [0, 1], or integers or floats in [0, 255]"


def pixel_scale(arrays: Mapping[str, np.ndarray]) -> float:
    """Return the number that stands for full brightness in all of `arrays`: 1 or 255.

    Raises InputError for other ranges, and if the arrays are not of one.
    """
    scales = {field: scale_of(array, field) for field, array in arrays.items()}
    first, *others = arrays
    for field in others:
        if scales[field] != scales[first]:
            found = f"{ranged(arrays[field])}, but {first} is an {ranged(arrays[first])}"
            raise InputError(field, found, "expected one range in all: divide integers by 255")
    highest = max(float(array.max()) for array in arrays.values())
    if scales[first] == 255 and highest < DARK:
        log.info("%s: values up to %g are taken for a part of 0 to 255", ", ".join(arrays), highest)
    return scales[first]


def scale_of(array: np.ndarray, field: str) -> float:
    """Return the number that stands for full brightness, 1 or 255; raises InputError for other ranges."""
    if array.dtype == bool:
        return 1
    low, high, whole = float(array.min()), float(array.max()), np.issubdtype(array.dtype, np.integer)
    scale = 255 if whole or high > 1 + ROUNDING else 1
    if low < -ROUNDING * scale:
        found = f"array with values down to {array.min().item()!r}"
        raise InputError(field, found, "expected numbers of at least 0")
    if whole and high <= 1:
        raise InputError(field, ranged(array), f"{VALID}; pictures of two values are given as bool or floats")
    if high > 255 * (1 + ROUNDING) or (scale == 255 and high <= (2 if whole else DIM)):
        raise InputError(field, ranged(array), VALID)
    return scale


def ranged(array: np.ndarray) -> str:
    """Return an array in words: its type and the highest value in full."""
    return f"array with values up to {array.max().item()!r} of type {array.dtype}"


def as_images(array: np.ndarray, field: str, scale: float, channels: Channels | None = None) -> TensorImages:
    """Return pictures (n, H, W), (n, H, W, C) or, with channels first, (n, C, H, W); numbers in [0, scale].

    They are those that `check_pictures` and `scale_of` let pass; values outside by rounding are cut off.
    """
    axis = channel_axis(array.shape, field, channels)
    channels_first = array[:, None] if axis is None else np.moveaxis(array, axis, 1)
    if np.issubdtype(array.dtype, np.integer):
        return TensorImages(torch.from_numpy(np.ascontiguousarray(channels_first, dtype=np.uint8)))
    pixels = torch.from_numpy(np.ascontiguousarray(channels_first, dtype=np.float32)) / scale
    return TensorImages(pixels.clamp(0, 1))


def check_pictures(array: np.ndarray, field: str, channels: Channels | None) -> None:
    """Raise InputError unless `array` has the axes of pictures, as `channel_axis` says, and holds numbers."""
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(field, f"array of shape {array.shape}", "expected pictures (n, H, W) or (n, H, W, C)")
    if array.dtype.kind not in "biuf":
        raise InputError(field, f"array of type {array.dtype}", "expected integers or floats")
    if np.isnan(array).any():
        raise InputError(field, "array with NaN", "expected numbers in [0, 1] or [0, 255]")
    channel_axis(array.shape, field, channels)


def channel_axis(shape: tuple[int, ...], field: str, channels: Channels | None) -> int | None:
    """Return the axis of channels, 1 or 3, in arrays of a shape (n, ...); None for grey pictures (n, H, W).

    If it is not said, it is the last one if the shape tells: the other two are equal and it is not, or it has few
    places, as colours do. Raises InputError otherwise.
    """
    if len(shape) == 3:
        return None
    if channels is not None:
        return {Channels.first: 1, Channels.last: 3}[channels]
    one, two, three = shape[1:]
    if one == two != three or is_few(three, beside=(one, two)):
        return 3
    first = two == three != one or is_few(one, beside=(two, three))
    valid = "the shape does not tell where channels are: expected data.channels=last or first"
    if first:
        valid = "channels come last: expected (n, H, W, C), or data.channels=first"
    raise InputError(field, f"array of shape {shape}", f"{valid}; volumes (n, D, H, W) are no pictures")


def is_few(places: int, *, beside: tuple[int, int]) -> bool:
    """Return whether an axis has 1, 3 or, beside longer ones, 4 places, as colours do, and the others do not."""
    return places in (1, 3, 4) and min(beside) > (4 if places == 4 else 1) and not {1, 3} & set(beside)


def as_labels(array: np.ndarray, field: str, count: int) -> Tensor:
    """Return labels (n,) or (n, 1), whole numbers or bool, as int64.

    Raises InputError unless there are `count` whole numbers of at least 0; it says how others become that.
    """
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    whole = labels.dtype.kind in "biu" or holds_whole(labels)
    if labels.ndim != 1 or not whole:
        found = f"array of type {array.dtype} and shape {array.shape}"
        raise InputError(field, found, f"expected one integer label per sample{way(array, field)}")
    if len(labels) != count:
        raise InputError(field, f"{len(labels)} labels", f"expected {count}, one per picture")
    if labels.min() < 0:
        raise InputError(field, f"label {labels.min()}", f"expected integers from 0 up, as {numbered(field)}")
    return torch.from_numpy(labels.astype(np.int64))


def holds_whole(array: np.ndarray) -> bool:
    """Return whether an array holds floats that are whole numbers."""
    return array.dtype.kind == "f" and bool((np.isfinite(array) & (array == np.round(array))).all())


def way(array: np.ndarray, field: str) -> str:
    """Return how labels of another form become integers, as the end of a sentence; empty if that is unknown."""
    if array.dtype.kind in "US":
        return f", as {numbered(field)}, and the texts as class_names"
    if array.ndim == 2 and array.dtype.kind in "biuf" and (np.count_nonzero(array, axis=1) == 1).all():
        return f"; one-hot labels become that by {field}.argmax(1)"
    if array.dtype.kind == "f" and np.isnan(array).any():
        return "; it has NaN"
    return ""


def check_classes(labels: Tensor, field: str, classes: int) -> None:
    """Raise InputError if a label is outside [0, classes)."""
    if int(labels.max()) >= classes:
        valid = f"expected labels in [0, {classes - 1}], as in the known training labels"
        raise InputError(field, f"label {int(labels.max())}", valid)


def check_every_class(labels: Tensor, field: str, classes: int, *, named: bool) -> None:
    """Raise InputError if no training sample has one of the labels in [0, classes); named: by class_names."""
    there = labels.unique().tolist()
    missing = sorted(set(range(classes)) - set(there))
    if not missing:
        return
    found = f"labels {there[0]} to {there[-1]}"
    if missing == [*range(there[0])] and not named:
        raise InputError(field, found, f"expected labels from 0, as {field} - {there[0]}")
    valid = (
        "expected a sample of each named class"
        if named
        else f"expected labels without a gap, as {numbered(field)}"
    )
    raise InputError(field, found, f"no sample has label {missing[0]}; {valid}")


def numbered(field: str) -> str:
    """Return the numpy expression that makes integers from 0 up of any labels."""
    return f"np.unique({field}, return_inverse=True)[1]"
