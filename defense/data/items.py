"""Items of a Dataset as a picture and a label; where they are none, ValueError says what to write instead."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from defense.config.choices import Channels
from defense.data.arrays import ROUNDING, channel_axis
from defense.data.images import as_seen
from defense.errors import InputError

VALID = "expected uint8, or floats in [0, 1]"


def picture_of(value: Any, channels: Channels | None) -> np.ndarray:
    """Return a picture as uint8, or float32 in [0, 1], of shape (C, H, W).

    A tensor has its channels first. An array has them last unless `channels` says otherwise. A picture of Pillow
    is turned as a camera held it, and has one channel if it is grey and three otherwise. Raises ValueError.
    """
    if isinstance(value, Image.Image):
        return channels_first(np.asarray(as_seen(value)), Channels.last)
    if isinstance(value, Tensor):
        return in_range(channels_first(value.detach().cpu().numpy(), Channels.first))
    if isinstance(value, np.ndarray):
        return in_range(channels_first(value, channels))
    raise ValueError(
        f"its picture is a {type(value).__name__}; expected a tensor, an array or a picture of Pillow"
    )


def channels_first(array: np.ndarray, channels: Channels | None) -> np.ndarray:
    """Return an array (H, W), (H, W, C) or (C, H, W) as (C, H, W); raises ValueError for other axes."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"its picture has the shape {array.shape}; expected (C, H, W) of a tensor, (H, W, C) of others"
        )
    try:
        axis = channel_axis((1, *array.shape), "picture", channels)
    except InputError as error:
        raise ValueError(f"its picture has the shape {array.shape}; {error.expected}") from error
    return array[None] if axis is None else np.moveaxis(array, axis - 1, 0)


def in_range(picture: np.ndarray) -> np.ndarray:
    """Return a picture as uint8, or float32 cut off to [0, 1]; raises ValueError for numbers of another range."""
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype.kind != "f" and picture.dtype != bool:
        raise ValueError(f"its picture is of type {picture.dtype}; {VALID}")
    low, high = float(picture.min()), float(picture.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # nor if one of them is NaN
        way = "divide by 255" if low >= 0 and high > 2 else "leave transforms.Normalize out, for networks do that"
        raise ValueError(f"its picture has values from {low:g} to {high:g}; {VALID}: {way}")
    return picture.astype(np.float32).clip(0, 1)


def label_of(value: Any) -> int:
    """Return a label, one whole number of at least 0; raises ValueError that says how others become it."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind in "US":
        raise ValueError(
            f"its label is the text {str(value)!r}; expected an int, as classes.index({str(value)!r})"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"its label is a {type(value).__name__}; expected an int, the number of its class")
    if array.size != 1:
        one_hot = array.ndim == 1 and np.count_nonzero(array) == 1
        way = (
            "one-hot; expected an int, as int(label.argmax())" if one_hot else "several numbers; expected one int"
        )
        raise ValueError(f"its label has the shape {array.shape}: {way}")
    if array.dtype.kind == "f":
        raise ValueError(f"its label is the float {array.item():g}; expected an int, as int(label)")
    if array.item() < 0:
        raise ValueError(f"its label is {array.item()}; expected ints from 0 up")
    return int(array.item())
