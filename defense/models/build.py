"""Making the network of a run from its dotted path, ours or a user's own, and checking that it fits the data."""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.language import encoder_digest
from defense.models.modes import evaluating
from defense.randomness import global_seed

BEGIN_WITH = {"defense.models.language.lora": encoder_digest}  # networks of ours that read weights from elsewhere


def build(settings: dict[str, Any], data: Dataset, *, seed: int) -> nn.Module:
    """Return the network that `settings` describe, initialised from `seed`, in training mode.

    `settings["_target_"]` is the dotted path of a class or function; the other settings are its keyword
    arguments. Of what the data tells (input_shape, classes, mean, std) it is given what its signature names.
    Raises InputError where the path leads nowhere, the arguments do not fit, or the output is not (b, classes).
    """
    path = str(settings.get("_target_"))
    builder = locate(path)
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    try:
        named = inspect.signature(builder).parameters
        facts = {"input_shape": data.shape, "classes": data.classes}
        if {"mean", "std"} & set(named):
            if not data.train.images.take(torch.arange(1)).is_floating_point():
                raise InputError("model._target_", path, "is for pictures; expected one of texts, as model=lora")
            facts |= dict(zip(("mean", "std"), data.pixel_statistics, strict=True))
        with global_seed(seed, "initial weights"):
            model = builder(**{name: value for name, value in facts.items() if name in named} | arguments)
    except InputError:
        raise
    except Exception as error:  # a user's code can raise anything
        raise InputError("model._target_", path, f"{type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise InputError("model._target_", path, f"made a {type(model).__name__}; expected a torch.nn.Module")
    check_output(model, data, path)
    return model.train()


def source_digest(settings: dict[str, Any]) -> str | None:
    """Return a hash of the file that a user's network is defined in, or of the weights that ours begins with.

    None for ours without such weights, and for compiled code.
    """
    path = str(settings.get("_target_"))
    if path in BEGIN_WITH:
        return BEGIN_WITH[path](settings)
    if path.startswith("defense."):
        return None
    try:
        file = inspect.getsourcefile(inspect.unwrap(locate(path)))
    except TypeError:  # built in
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def locate(path: str) -> Callable[..., Any]:
    """Return the class or function at a dotted path; raises InputError where there is none."""
    try:
        found = pkgutil.resolve_name(path)
    except Exception as error:  # importing runs a user's file
        raise InputError(
            "model._target_", path, f"cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not callable(found):
        raise InputError("model._target_", path, "expected a class or a function")
    return found


def check_output(model: nn.Module, data: Dataset, path: str) -> None:
    """Raise InputError unless the model turns two training pictures into finite logits (2, classes)."""
    with evaluating(model), torch.no_grad():
        try:
            logits = model(data.train.images.take(torch.arange(2)).cpu())
        except Exception as error:  # a user's code can raise anything
            shape = "x".join(map(str, data.shape))
            raise InputError(
                "model._target_", path, f"fails on pictures of shape {shape} ({type(error).__name__}: {error})"
            ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, data.classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError("model._target_", path, f"gives {found} for 2 pictures; expected (2, {data.classes})")
    if not bool(logits.isfinite().all()):
        raise InputError("model._target_", path, "gives logits that are not finite before any training")
