"""Train, validation and test: disjoint by id, and stable under the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from defense.data.images import Images
from defense.data.overlays import Joined, in_files

CONSTANT = 1e-3  # a deviation below it, of values in [0, 1]
SAMPLE = 10_000  # pictures in files that statistics are taken of


@dataclass(frozen=True)
class Split:
    """Samples of one part of a dataset; row i of every field is the same sample."""

    ids: Tensor  # int64 (n,): unique over the whole dataset, and the same in every run
    images: Images
    labels: Tensor  # int64 (n,): what a model is trained on, or tested against
    truth: Tensor  # int64 (n,): the labels before any known noise
    groups: Tensor | None = None  # int64 (n,): whom a fairness objective compares; None if that is not known

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Tensor) -> Split:
        """Return the samples at `indices`, in that order."""
        groups = None if self.groups is None else self.groups[indices]
        images = self.images.subset(indices)
        return Split(self.ids[indices], images, self.labels[indices], self.truth[indices], groups)

    def joined(self, other: Split) -> Split:
        """Return these samples, and after them those of another part of the same dataset."""
        ids, labels, truth = (
            torch.cat([getattr(self, name), getattr(other, name)]) for name in ("ids", "labels", "truth")
        )
        groups = None
        if self.groups is not None and other.groups is not None:
            groups = torch.cat([self.groups, other.groups])
        return Split(ids, Joined(self.images, other.images), labels, truth, groups)

    def with_images(self, images: Images) -> Split:
        """Return the same samples with other pictures, for instance attacked ones."""
        return replace(self, images=images)

    def to(self, device: torch.device) -> Split:
        """Return the same samples with pictures and labels on `device`; ids stay where they are."""
        groups = None if self.groups is None else self.groups.to(device)
        return Split(self.ids, self.images.to(device), self.labels.to(device), self.truth.to(device), groups)

    def batches(
        self, size: int, *, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield (rows, pictures, labels) in order from row `start` up to `stop`, `size` samples at a time."""
        end = len(self) if stop is None else stop
        for first in range(start, end, size):
            rows = slice(first, min(first + size, end))
            yield rows, self.images.take(torch.arange(rows.start, rows.stop)), self.labels[rows]

    @cached_property
    def digests(self) -> dict[str, str | None]:
        """A hash of each field, for all that is computed from it."""

        def digest(tensor: Tensor | None) -> str | None:
            return None if tensor is None else hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()

        names = ("ids", "labels", "truth", "groups")
        return {"images": self.images.digest()} | {name: digest(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class Dataset:
    """The splits of one run."""

    train: Split
    validation: Split
    test: Split
    class_names: list[str]
    noise_known: bool  # whether train.truth can differ from train.labels
    choice: Split | None = None  # held out from validation, where a treatment is to be chosen
    # attacked by others, in ways of their own: the part that they stand for is validation or test
    given: dict[str, Split] = field(default_factory=dict)
    group_names: list[str] = field(default_factory=list)  # if the source names its groups
    left_out: list[str] = field(default_factory=list)  # files that cannot be read, each with the reason
    names: pd.Series | None = None  # by id, of all samples of the source; None: their ids

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name."""
        own = {name: getattr(self, name) for name in ("train", "validation", "test", "choice")}
        given = {f"given_{name}": split for name, split in self.given.items()}
        return {name: split for name, split in own.items() if split is not None} | given

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a picture."""
        return self.train.images.shape

    @cached_property
    def trusting(self) -> Dataset:
        """The dataset with the trusted samples in training: those of validation and choice come after its own.

        Its validation is empty, so that nothing can be measured on samples that were trained on.
        """
        train = self.train.joined(self.validation)
        train = train if self.choice is None else train.joined(self.choice)
        return replace(self, train=train, validation=self.validation.subset(torch.arange(0)), choice=None)

    def names_of(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Return the names of the samples with `ids` (n,), in that order."""
        return [str(each) for each in ids] if self.names is None else list(self.names.loc[ids])

    @cached_property
    def pixel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, in [0, 1] units, over the training pictures in `looked_at`.

        Below CONSTANT, a channel is a constant: its deviation is given as 1, as by scikit-learn's StandardScaler.
        """
        sums, count = torch.zeros(2, self.shape[0], dtype=torch.float64), 0
        for rows in looked_at(self.train.images).split(500):
            pixels = self.train.images.take(rows).cpu().double().transpose(0, 1).flatten(1)
            sums += torch.stack([pixels.sum(1), pixels.square().sum(1)])
            count += pixels.shape[1]
        mean, square = sums / count
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        return mean.tolist(), deviation.where(deviation >= CONSTANT, 1).tolist()

    def to(self, device: torch.device) -> Dataset:
        """Return the dataset with pictures and labels on `device`."""
        own = ("train", "validation", "test", "choice")
        parts: dict[str, Any] = {name: self.splits[name].to(device) for name in own if name in self.splits}
        given = {name: split.to(device) for name, split in self.given.items()}
        return replace(self, **parts, given=given)


def looked_at(images: Images) -> Tensor:
    """Return the rows that statistics are taken of: all, or SAMPLE evenly spaced ones if pictures are in files."""
    count = len(images)
    if count <= SAMPLE or not in_files(images):
        return torch.arange(count)
    return torch.arange(SAMPLE) * count // SAMPLE
