"""Points in the plane, drawn by scikit-learn's generators: a new draw for every seed.

A point is a sample of shape (2, 1, 1), so that each coordinate is a channel, which networks normalise on its own.
Coordinates are moved and scaled to [0, 1] by fixed numbers: what lies within six standard deviations of the shape
fits in, and the rest, two in a billion, is put on the rim.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from defense.config.choices import Source
from defense.config.schema import Data
from defense.data.images import TensorImages
from defense.data.sources import Collection, number_samples
from defense.errors import InputError
from defense.randomness import derive

CENTRES = np.array([[-1.0, -1.0], [1.0, 1.0]])  # of the blobs
MOONS = np.array([[-1.0, -0.5], [2.0, 1.0]])  # the corners of the rectangle that holds both, without noise
ROOM = 6  # standard deviations beyond the shape that have a place


class Draw(Protocol):
    """Draw what a source has."""

    def __call__(self, spec: Data, *, seed: int) -> Collection:
        """Return as many samples as `spec` asks for in all, as one part that the splits are cut from."""
        ...


def blobs(spec: Data, *, seed: int) -> Collection:
    """Return points of two normal clouds of standard deviation `spec.spread` around (-1, -1) and (1, 1).

    A line separates them but for their overlap: the best error is that of a normal beyond sqrt(2) / spread.
    """
    from sklearn.datasets import make_blobs

    count, chance = size(spec), derive(seed, "points")
    points, labels = make_blobs(count, centers=CENTRES, cluster_std=spec.spread, random_state=chance)
    return collection(points, labels, CENTRES, spec.spread)


def moons(spec: Data, *, seed: int) -> Collection:
    """Return points of two half circles of radius 1, with normal noise of standard deviation `spec.spread`."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(size(spec), noise=spec.spread, random_state=derive(seed, "points"))
    return collection(points, labels, MOONS, spec.spread)


def size(spec: Data) -> int:
    """Return how many points there are to draw; raises InputError if a split has no size."""
    sizes = {part: getattr(spec, f"{part}_size") for part in ("train", "validation", "test")}
    for part, count in sizes.items():
        if count is None:
            found = f"expected a number: points are drawn, data={spec.source} has none of its own"
            raise InputError(f"data.{part}_size", None, found)
    return sum(sizes.values())


def collection(points: np.ndarray, labels: np.ndarray, corners: np.ndarray, spread: float) -> Collection:
    """Return points (n, 2) as samples (n, 2, 1, 1) in [0, 1]; corners (2, 2) hold the shape without noise."""
    low, high = corners[0] - ROOM * spread, corners[1] + ROOM * spread
    scaled = np.clip((points - low) / (high - low), 0, 1).astype(np.float32)
    images = TensorImages(torch.from_numpy(scaled[:, :, None, None]))
    known = torch.from_numpy(labels.astype(np.int64))
    return number_samples({"train": (images, known, known)}, class_names=["0", "1"])


DRAWN: dict[Source, Draw] = {
    Source.blobs: blobs,
    Source.moons: moons,
}
