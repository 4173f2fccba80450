"""Making the network of a run from its dotted path, ours or a user's own, and checking that it fits the data."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.contract import FEW, as_logits, attempt, check_logits, check_made, logits_on
from defense.models.language import encoder_digest
from defense.models.modes import attributes_of, bare, buffers_of
from defense.randomness import global_seed
from defense.runtime.source import TARGET, VERSION, locate, source_digest

PART = "model"  # of the settings of a run
LORA = "defense.models.language.lora"  # a network of ours that reads weights from elsewhere


def build(settings: dict[str, Any], data: Dataset, *, seed: int) -> nn.Module:
    """Return the network that `settings` describe, initialised from `seed`, in training mode.

    `settings["_target_"]` is the dotted path of a class or function; the other settings are its keyword
    arguments. Of what the data tells (input_shape, classes, mean, std) it is given what its signature names.
    Raises InputError if the path leads nowhere, the arguments do not fit, or the output is not (b, classes).
    """
    path = str(settings.get(TARGET))
    builder = locate(path, PART)
    arguments = {name: value for name, value in settings.items() if name not in (TARGET, VERSION)}
    try:
        facts = facts_for(settings, data)
        with global_seed(seed, "initial weights"):
            model = builder(**facts | arguments)
            if isinstance(model, nn.Module):
                model = bare(model)
                check_output(model, data, path)  # draws here what a network draws in its first forward pass
    except InputError:
        raise
    except Exception as error:  # a user's code can raise anything
        raise InputError("model._target_", path, f"{type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError("model._target_", path, f"made a {type(model).__name__}; expected a torch.nn.Module")
    return model.train()


def facts_for(settings: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Return what the data tells a network, of input_shape, classes, mean and std what its signature names.

    Raises InputError if it names mean or std and the samples are no pictures.
    """
    path = str(settings.get(TARGET))
    named = set(inspect.signature(locate(path, PART)).parameters)
    facts: dict[str, Any] = {"input_shape": data.shape, "classes": data.classes}
    if {"mean", "std"} & named:
        if not data.train.images.take(torch.arange(1)).is_floating_point():
            raise InputError("model._target_", path, "is for pictures; expected one of texts, as model=lora")
        facts |= dict(zip(("mean", "std"), data.pixel_statistics, strict=True))
    return {name: value for name, value in facts.items() if name in named}


def source_of(settings: dict[str, Any]) -> dict[str, str]:
    """Return the hashes of the code and files that a network is made of; see `source_digest`."""
    if settings.get(TARGET) == LORA:
        return {"encoder": encoder_digest(settings)}
    return source_digest(settings, PART)


@dataclass(frozen=True)
class Design:
    """How to make a network before any training."""

    settings: dict[str, Any]  # its dotted path, and keyword arguments
    data: Dataset  # which tells it the shape of a picture, the classes and the statistics of pixels
    seed: int

    def build(self) -> nn.Module:
        """Return the network; see `build`."""
        return build(self.settings, self.data, seed=self.seed)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the network is made of, with the hashes of its code, for keys."""
        facts, source = facts_for(self.settings, self.data), source_of(self.settings)
        return {"settings": self.settings, "source": source, "facts": facts, "seed": self.seed}


def check_output(model: nn.Module, data: Dataset, path: str) -> None:
    """Raise InputError unless the model turns training pictures into finite logits (b, classes), in both modes."""
    field = "model._target_"
    x = data.train.images.take(torch.arange(min(FEW, len(data.train)))).cpu()
    logits = logits_on(model, x, field, path)
    check_made(model)
    if logits.shape[1] != data.classes:
        found = f"gives {tuple(logits.shape)} for {len(x)} pictures; expected ({len(x)}, {data.classes})"
        raise InputError(field, path, found)
    if not bool(logits.isfinite().all()):
        raise InputError(field, path, "gives logits that are not finite before any training")
    check_logits(logits, field, path)
    with buffers_of(model), attributes_of(model), torch.no_grad():
        model.train()
        as_logits(attempt(model, x.clone(), field, path), len(x), field, path, " in training")
