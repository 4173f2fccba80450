"""Move points of a split across the boundary of one model, and predict them by others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import pandas as pd
import torch
from torch import Tensor

from defense import models, robustness
from defense.artifacts import AdversarialSet, Evasion
from defense.config.choices import reads
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.errors import InputError
from defense.models.modes import evaluating, frozen
from defense.models.predict import predict
from defense.randomness import generator
from defense.robustness.evasion import evade as moved_across
from defense.runtime.runtime import Runtime
from defense.stages.trained import Model
from defense.store.stage import stage


def movers(count: int, share: float, *, seed: int) -> Tensor:
    """Return which of `count` points are moved, bool (n,): round(share * n), with those of a smaller share.

    Raises InputError if that is none.
    """
    if not round(share * count):
        raise InputError("evade.shares", share, f"moves none of {count} points; expected a larger share")
    order = torch.randperm(count, generator=generator(seed, "evasion"))
    return torch.zeros(count, dtype=torch.bool).index_fill(0, order[: round(share * count)], True)


@stage(version=3, code=(models, robustness))
def evade(
    runtime: Runtime,
    model: Model,
    split: Annotated[Split, reads("images")],
    *,
    ratio: float,
    batch_size: int,
    reach: float | None = None,
) -> AdversarialSet:
    """Return every point of `split` moved across the boundary of `model`, at most as far as `reach` in L2."""
    network = model.network
    with evaluating(network), frozen(network):
        moved = [moved_across(network, x, ratio=ratio, reach=reach).cpu() for _, x, _ in split.batches(batch_size)]
    return AdversarialSet({"pictures": torch.cat(moved)})


def mixed(split: Split, moved: Tensor, chosen: Tensor) -> Split:
    """Return the split with the points at `chosen` bool (n,) replaced by those of `moved` (n, C, H, W)."""
    usual = split.images.take(torch.arange(len(split)))
    own = chosen.view(-1, 1, 1, 1).to(usual.device)
    return split.with_images(TensorImages(torch.where(own, moved.to(usual), usual)))


@stage(version=3, code=(models, robustness))
def judge(
    runtime: Runtime,
    model: Model,
    test: Annotated[Split, reads("ids", "images", "labels")],
    moved: Mapping[str, AdversarialSet],
    *,
    batch_size: int,
) -> Evasion:
    """Return whether `model` is right on each point as it is (clean), and moved in each way, all points moved."""
    network, labels = model.network, test.labels.cpu()
    splits = {"clean": test} | {
        name: test.with_images(TensorImages(each.tensors["pictures"].to(test.labels.device)))
        for name, each in moved.items()
    }
    right = {
        name: (predict(network, split, batch_size=batch_size).argmax(1) == labels).numpy()
        for name, split in splits.items()
    }
    return Evasion(pd.DataFrame({"id": test.ids.numpy(), **right}))


def median_length(before: Split, after: Tensor) -> float:
    """Return how far a point was moved at the median, in L2."""
    usual = before.images.take(torch.arange(len(before))).cpu()
    return float((after - usual).flatten(1).norm(dim=1).median())
