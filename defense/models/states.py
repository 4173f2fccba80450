"""Texts as the layers that stay as they are leave them: computed once for all arms and epochs, if at all."""

from __future__ import annotations

import copy
import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from defense.data.pretrained import content_digest, place_of
from defense.data.splits import Dataset, Split
from defense.data.text import Texts
from defense.models.language import Encoded, pretrained

log = logging.getLogger(__name__)

ROOM = 4.0  # GiB, of states in memory
FEW = 8  # samples that are made for themselves: a look at two must not wait for thousands


class CachedFeatures:
    """n samples of T texts as states float32 (n, T, L, width), made when a batch first asks for them."""

    def __init__(self, texts: Texts, name: str, layers: int | None, below: int) -> None:
        self.texts, self.made = texts, (name, layers, below)
        self.shape = (texts.shape[1], texts.shape[2], pretrained(name, layers).config.hidden_size)

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def values(self) -> Tensor:
        """All of them, on the device of the texts."""
        return features_of(self.texts, *self.made)

    def take(self, indices: Tensor) -> Tensor:
        """Return the states at `indices` as float32 (b, T, L, width)."""
        if len(indices) <= FEW:
            return features_of.__wrapped__(self.texts.subset(indices), *self.made)
        return self.values[indices.to(self.values.device)]

    def subset(self, indices: Tensor) -> CachedFeatures:
        """Return the samples at `indices`, in that order."""
        return CachedFeatures(self.texts.subset(indices), *self.made)

    def to(self, device: torch.device) -> CachedFeatures:
        """Return the same samples on `device`."""
        return CachedFeatures(self.texts.to(device), *self.made)

    def digest(self) -> str:
        """Return a hash of what the states are made from: no rounding of a device is in it."""
        name, layers, below = self.made
        text = f"states {content_digest(place_of(name))} {layers} {below} {self.texts.digest()}"
        return hashlib.sha256(text.encode()).hexdigest()


def prepared(settings: dict[str, Any], data: Dataset, model: nn.Module) -> Dataset:
    """Return the data with every text as what the layers below the updated ones make of it.

    model: of these settings, on token ids. Where there are no such layers the data come back as they are; so do
    they where the encoder cannot be taken apart, or its states take more than `ROOM`, both of which the log says.
    """
    if not isinstance(model, Encoded) or model.below == 0 or not isinstance(data.train.images, Texts):
        return data
    samples = sum(len(split) for split in data.splits.values())
    taken = 4 * samples * math.prod(data.shape) * model.encoder.config.hidden_size / 2**30
    if taken > ROOM:
        log.info(
            "all layers of %s are run for every batch: states would take %.0f GiB", settings["encoder"], taken
        )
        return data
    bring = partial(
        with_cached_features, name=str(settings["encoder"]), layers=settings.get("layers"), below=model.below
    )
    if not can_be_split(model, data.train.subset(torch.arange(min(8, len(data.train)))), bring):
        log.info("all layers of %s are run for every batch: it cannot be taken apart", settings["encoder"])
        return data
    parts: dict[str, Any] = {name: bring(getattr(data, name)) for name in ("train", "validation", "test")}
    return replace(data, **parts, given={name: bring(split) for name, split in data.given.items()})


@torch.no_grad()
def can_be_split(model: Encoded, few: Split, bring: Callable[[Split], Split]) -> bool:
    """Return whether the model says the same of texts and of what the layers below make of them."""
    own = copy.deepcopy(model).to(few.labels.device).eval()
    rows = torch.arange(len(few))
    try:
        return torch.allclose(own(few.images.take(rows)), own(bring(few).images.take(rows)), atol=1e-4)
    except (StopIteration, TypeError, ValueError, RuntimeError):  # layers that are no list, or that want more
        return False


def with_cached_features(split: Split, name: str, layers: int | None, below: int) -> Split:
    """Return the samples with their texts as what the lowest layers make of them, `below` of all."""
    assert isinstance(split.images, Texts)
    return split.with_images(CachedFeatures(split.images, name, layers, below))


@lru_cache(maxsize=8)  # the splits of one run; the next run in this process has the same, most of the time
@torch.no_grad()
def features_of(texts: Texts, name: str, layers: int | None, below: int, *, size: int = 64) -> Tensor:
    """Return the states (n, T, L, width) behind the lowest layers, `below` of those that are used."""
    device = texts.tokens.device
    encoder = copy.deepcopy(pretrained(name, layers)).to(device).eval()
    found = []
    for ids in texts.tokens.flatten(0, 1).split(size):
        mask = ids != encoder.config.pad_token_id
        said = encoder(input_ids=ids, attention_mask=mask[:, None, None, :], output_hidden_states=True)
        found.append(said.hidden_states[below] * mask[..., None])
    return torch.cat(found).unflatten(0, texts.tokens.shape[:2])
