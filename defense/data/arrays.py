"""Arrays of pictures and labels as people store them, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from defense.data.images import TensorImages
from defense.errors import InputError


def pixel_scale(arrays: Mapping[str, np.ndarray]) -> float:
    """Return the number that stands for full brightness in all of `arrays`: 1 or 255, decided once for a file.

    Raises InputError for other ranges, and where it cannot be told.
    """
    highest = {field: float(array.max()) for field, array in arrays.items() if array.size}
    field, high = max(highest.items(), key=lambda item: item[1])
    whole = any(np.issubdtype(array.dtype, np.integer) for array in arrays.values())
    valid = "expected floats in [0, 1], or integers or floats in [0, 255]"
    if high > 255 or (high <= 1 and whole) or 1 < high <= 2:
        raise InputError(field, f"array with values up to {high:g} of type {arrays[field].dtype}", valid)
    return 255 if high > 1 else 1


def as_images(array: np.ndarray, field: str, scale: float) -> TensorImages:
    """Return pictures (n, H, W) or (n, H, W, C), integers or floats in [0, scale].

    Raises InputError for another layout or range, and for NaN.
    """
    check_pictures(array, field)
    if array.min() < 0:
        raise InputError(field, f"array with values down to {array.min():g}", "expected numbers of at least 0")
    channels_first = array[:, None] if array.ndim == 3 else np.moveaxis(array, 3, 1)
    pixels = torch.from_numpy(np.ascontiguousarray(channels_first))
    return TensorImages(pixels.to(torch.uint8) if not pixels.is_floating_point() else pixels.float() / scale)


def check_pictures(array: np.ndarray, field: str) -> None:
    """Raise InputError unless `array` has the layout of pictures and holds numbers."""
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(field, f"array of shape {array.shape}", "expected pictures (n, H, W) or (n, H, W, C)")
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        raise InputError(field, f"array of shape {array.shape}", "channels come last: expected (n, H, W, C)")
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise InputError(field, f"array of type {array.dtype}", "expected integers or floats")
    if np.isnan(array).any():
        raise InputError(field, "array with NaN", "expected numbers in [0, 1] or [0, 255]")


def as_labels(array: np.ndarray, field: str, count: int) -> Tensor:
    """Return labels (n,) or (n, 1) as int64; raises InputError unless they are `count` integers >= 0."""
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        found = f"array of type {array.dtype} and shape {array.shape}"
        raise InputError(field, found, "expected one integer label per sample")
    if len(labels) != count:
        raise InputError(field, f"{len(labels)} labels", f"expected {count}, one per picture")
    if labels.min() < 0:
        raise InputError(field, f"label {labels.min()}", "expected integers from 0 up")
    return torch.from_numpy(labels.astype(np.int64))


def check_classes(labels: Tensor, field: str, classes: int) -> None:
    """Raise InputError where a label is outside [0, classes)."""
    if int(labels.max()) >= classes:
        valid = f"expected labels in [0, {classes - 1}], as in the known training labels"
        raise InputError(field, f"label {int(labels.max())}", valid)
