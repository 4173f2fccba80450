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
from defense.models.adapt import normalize_inputs
from defense.models.contract import (
    FEW,
    as_logits,
    attempt,
    check_logits,
    check_made,
    first_line,
    with_logits_alone,
)
from defense.models.language import encoder_digest
from defense.models.libraries import HUGGINGFACE, LIBRARIES, digest_of, statistics_of
from defense.models.modes import attributes_of, bare, buffers_of
from defense.models.weights import load_weights
from defense.randomness import global_seed
from defense.runtime.source import TARGET, VERSION, files_named, locate, source_digest

PART = "model"  # of the settings of a run
LORA = "defense.models.language.lora"  # a network of ours that reads weights from elsewhere
STATISTICS = ("mean", "std")  # of pictures, per channel: settings of a model, and facts of the data
OURS = ("weights", "skip")  # settings of a model that are not handed on: see `load_weights`


def build(settings: dict[str, Any], data: Dataset, *, seed: int) -> nn.Module:
    """Return the network that `settings` describe, initialised from `seed`, in training mode.

    `settings["_target_"]` is the dotted path of a class or function; the other settings are its keyword
    arguments, but for those of `OURS`: mean and std normalise its input, weights replaces what the seed draws. Of
    what the data tells (input_shape, classes, mean, std) it is given what its signature names.
    Raises InputError if the path leads nowhere, the arguments or weights do not fit, or the output is not
    (b, classes).
    """
    path, builder = str(settings.get(TARGET)), locate(str(settings.get(TARGET)), PART)
    try:
        facts = facts_for(settings, data)
        kept = (TARGET, VERSION, *OURS, *STATISTICS)
        arguments = {name: value for name, value in settings.items() if name not in kept}
        with global_seed(seed, "initial weights"):
            model = builder(**facts | arguments)
            if isinstance(model, nn.Module):
                model = bare(model)
                if any(settings.get(name) is not None for name in STATISTICS if name not in facts):
                    normalize_inputs(model, settings.get("mean"), settings.get("std"), data.shape[0])
                check_output(model, data, path)  # draws here what a network draws in its first forward pass
    except InputError:
        raise
    except Exception as error:  # a user's code can raise anything
        raise InputError("model._target_", path, f"{type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError("model._target_", path, f"made a {type(model).__name__}; expected a torch.nn.Module")
    if settings.get("weights") is not None:
        load_weights(model, str(settings["weights"]), settings.get("skip") or ())
    return model.train()


def facts_for(settings: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Return what a network is told, of input_shape, classes, mean and std what its signature names.

    Mean and std are those of the settings, of a folder of Hugging Face, or of the training pictures. Raises
    InputError if it names mean or std and the samples are no pictures, or if weights of others come without them.
    """
    path = str(settings.get(TARGET))
    named = set(inspect.signature(locate(path, PART)).parameters)
    facts: dict[str, Any] = {"input_shape": data.shape, "classes": data.classes}
    if set(STATISTICS) & named:
        if not data.train.images.take(torch.arange(1)).is_floating_point():
            raise InputError("model._target_", path, "is for pictures; expected one of texts, as model=lora")
        stated = statistics_of(settings) if path == HUGGINGFACE else {}
        stated |= {name: settings[name] for name in STATISTICS if settings.get(name) is not None}
        if path in LIBRARIES and settings.get("weights") is not None and len(stated) < len(STATISTICS):
            expected = "that of the pictures which the weights were trained on, as in [0.485, 0.456, 0.406]"
            missing = next(name for name in STATISTICS if name not in stated)
            raise InputError(f"model.{missing}", None, f"expected {expected}")
        facts |= dict(zip(STATISTICS, data.pixel_statistics, strict=True)) | stated
    return {name: value for name, value in facts.items() if name in named}


def source_of(settings: dict[str, Any]) -> dict[str, str]:
    """Return the hashes of the code and files that a network is made of; see `source_digest`."""
    if settings.get(TARGET) == LORA:
        return {"encoder": encoder_digest(settings)}
    if settings.get(TARGET) in LIBRARIES:
        return digest_of(settings) | files_named(settings, PART)
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
    """Let the model return its logits alone; raise InputError unless they are finite (b, classes), in both modes.

    It is tried on training pictures.
    """
    field = "model._target_"
    x = data.train.images.take(torch.arange(min(FEW, len(data.train)))).cpu()
    logits = with_logits_alone(model, x, field, path)
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
