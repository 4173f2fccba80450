"""Adversarial samples that others have made: one half to see, the other to be judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from defense.data.splits import Split
from defense.errors import InputError
from defense.randomness import derive, generator

ALIKE = 0.3  # of the words of two texts, those in both: above it they are versions of one


@dataclass(frozen=True)
class Given:
    """Adversarial samples with known labels; those of one origin are versions of the same sample."""

    split: Split
    origins: Tensor  # int64 (n,)


def origins_of(texts: Sequence[str]) -> Tensor:
    """Return for each text the lowest row of those that it is a version of, over any number of steps: int64 (n,).

    alike(a, b):  |words of a and b| / |words of a or b| > ALIKE     (Jaccard)
    """
    words = [set(text.lower().split()) for text in texts]
    origins = list(range(len(words)))
    for row, own in enumerate(words):
        above = [len(own & words[other]) > ALIKE * len(own | words[other]) for other in range(row)]
        alike = {origin for origin, found in zip(origins, above, strict=False) if found}
        lowest = min(alike | {row})
        origins = [lowest if origin in alike else origin for origin in origins]
        origins[row] = lowest
    return torch.tensor(origins)


def halves(given: Given, *, seed: int) -> dict[str, Split]:
    """Return the halves `validation` and `test`: no origin in both, of every class about as many in each.

    Origins come in random order, and each goes to the half that has fewer of its class, which is that of most of
    its samples. Raises InputError if a class has fewer than two origins.
    """
    labels, origins = given.split.truth.cpu().numpy(), given.origins.numpy()
    order = torch.randperm(int(origins.max()) + 1, generator=generator(derive(seed, "split", "given"))).tolist()
    rows: tuple[list[int], list[int]] = ([], [])
    counts = np.zeros((2, int(labels.max()) + 1), dtype=int)
    for origin in (one for one in order if (origins == one).any()):
        own = np.flatnonzero(origins == origin)
        counted = np.bincount(labels[own], minlength=counts.shape[1])
        half = int(np.argmin(counts[:, counted.argmax()]))
        rows[half].extend(own.tolist())
        counts[half] += counted
    poor = next((label for label in np.unique(labels) if 0 in counts[:, label]), None)
    if poor is not None:
        found = f"all samples of class {poor} are versions of one"
        raise InputError("data.given_path", found, "expected two origins of each class, one for each half")
    parts = dict(zip(("validation", "test"), rows, strict=True))
    return {name: given.split.subset(torch.tensor(sorted(own))) for name, own in parts.items()}
