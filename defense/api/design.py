"""A network of a notebook as the design of a training: every arm is fine-tuned from its weights."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from defense.errors import InputError
from defense.models.build import Design
from defense.runtime.source import file_of, hash_once, modules_of

PLAIN = (bool, int, float, str, type(None))
OURS = ("torch", "defense")  # packages whose versions are in keys


@dataclass(frozen=True)
class GivenDesign(Design):
    """A network that is there, with its weights: every training begins at a copy of it."""

    network: nn.Module

    def build(self) -> nn.Module:
        """Return a copy of the network, in training mode."""
        return deepcopy(self.network).train()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Weights, settings of layers, and the code of their classes, for keys."""
        modules = dict(self.network.named_modules())
        return {
            "weights": self.network.state_dict(),
            "trained": [name for name, value in self.network.named_parameters() if value.requires_grad],
            "layers": {name or "model": [path_of(type(each)), plainly(each)] for name, each in modules.items()},
            "source": source_of(self.network),
            "seed": self.seed,
        }


def path_of(kind: Any) -> str:
    """Return the dotted path of a class or function."""
    return f"{kind.__module__}.{kind.__qualname__}"


def plainly(module: nn.Module) -> dict[str, Any]:
    """Return the settings of a layer: its attributes that are numbers, texts, tuples of these, or functions."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if isinstance(value, PLAIN) or (
            isinstance(value, tuple | list) and all(isinstance(v, PLAIN) for v in value)
        ):
            found[name] = value
        elif hasattr(value, "__qualname__"):
            found[name] = path_of(value)
    return found


def kinds_of(network: nn.Module) -> set[type[nn.Module]]:
    """Return the classes that a network is made of, without those of torch and of this package."""
    return {kind for each in network.modules() if (kind := type(each)).__module__.partition(".")[0] not in OURS}


def source_of(network: nn.Module) -> dict[str, str]:
    """Return the hashes of the code that a network is made of, by module; see `check_source` for what has none."""
    modules = {module for kind in kinds_of(network) for module in modules_of(path_of(kind), kind)}
    modules |= {
        sys.modules[kind.__module__] for kind in kinds_of(network)
    }  # a script, too, which is no part of them
    return {module.__name__: hash_once(module) for module in modules if file_of(module)}


def check_source(network: nn.Module) -> None:
    """Raise InputError if a class of a network is in no file: a store would not see that it has changed."""
    for kind in kinds_of(network):
        if not file_of(sys.modules[kind.__module__]):
            found = f"the code of {kind.__name__} is in no file, so that no change of it would be seen"
            raise InputError("store", kind.__name__, f"{found}; expected store=None, or the class in a .py file")
