"""Weights of a user's own network from a file: safetensors, or a state_dict of torch without other objects."""

from __future__ import annotations

import fnmatch
import pickle
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from defense.errors import InputError, within
from defense.runtime.source import hash_of_file

SHOWN = 3  # names in an error
SAFE = "torch.save(model.state_dict(), FILE), or safetensors"


def load_weights(model: nn.Module, path: str, skip: Sequence[str] = ()) -> None:
    """Load the weights of a file into a network.

    skip: patterns of the names of weights that stay as they are, as in fc.*. Raises InputError if the file cannot
    be read, or has not exactly the other weights of the network, in their shapes.
    """
    expected = model.state_dict()
    state = without_wrappers(read_weights(path, hash_of_file(path, changed(path))), expected.keys())
    for pattern in skip:
        matches = any(fnmatch.fnmatch(name, pattern) for name in expected)
        within("model.skip", pattern, matches, f"a pattern of weights, as {listed(expected)}")
    skipped = {name for name in (*expected, *state) if any(fnmatch.fnmatch(name, pattern) for pattern in skip)}
    given, wanted = state.keys() - skipped, expected.keys() - skipped
    refuse_weights(path, "lacks", wanted - given)
    refuse_weights(path, "has, and the network has not,", given - wanted)
    others = {name for name in wanted if state[name].shape != expected[name].shape}
    shapes = {name: f"{name} {tuple(state[name].shape)} for {tuple(expected[name].shape)}" for name in others}
    refuse_weights(path, "has in another shape", others, shapes)
    refuse_weights(
        path, "has numbers that are not finite in", {n for n in wanted if not state[n].isfinite().all()}
    )
    model.load_state_dict(expected | {name: state[name] for name in wanted})


def without_wrappers(state: Mapping[str, Tensor], expected: Set[str]) -> Mapping[str, Tensor]:
    """Return weights without the names of wrappers that all begin with, as module. of DataParallel.

    expected: the names that the network has; if one of them is there, nothing is taken off.
    """
    while not expected & state.keys() and len({name.partition(".")[0] for name in state}) == 1:
        if any("." not in name for name in state):
            break
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return state


def refuse_weights(path: str, reason: str, names: Set[str], texts: Mapping[str, str] | None = None) -> None:
    """Raise InputError if a file of weights does not fit a network for a reason; names: of the weights."""
    if names:
        first = sorted(names)
        text = listed([texts[name] for name in first] if texts else first)
        layers = list(dict.fromkeys(f"{name.rpartition('.')[0]}.*" if "." in name else name for name in first))
        few = f", or model.skip=[{','.join(layers)}], which keeps first weights" if len(layers) <= SHOWN else ""
        raise InputError("model.weights", path, f"the file {reason} {text}; expected those of the network{few}")


def changed(path: str) -> int:
    """Return when a file was last changed, in ns; raises InputError if it is not there."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError as error:
        raise InputError("model.weights", path, f"{error.strerror}; expected a file of weights") from error


@lru_cache(maxsize=2)  # of the arms of a run, which all begin with them
def read_weights(path: str, digest: str) -> Mapping[str, Tensor]:
    """Return the tensors of a file by name; digest: the hash of its content. Raises InputError."""
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError("model.weights", path, f"cannot be read ({reason[0]}); expected {SAFE}") from error
    except pickle.UnpicklingError as error:
        refused = "holds Python objects, which could run code and are not loaded"
        raise InputError("model.weights", path, f"{refused}; expected {SAFE}") from error
    return tensors_of(found, path)


def tensors_of(content: Any, path: str) -> Mapping[str, Tensor]:
    """Return the state_dict in the content of a file: all of it, or one entry; raises InputError."""
    if of_tensors(content):
        return content
    entries = content if isinstance(content, Mapping) else {}
    states = [name for name, value in entries.items() if of_tensors(value)]
    if len(states) != 1:
        has = f"with the entries {listed([str(name) for name in entries])}" if entries else "without tensors"
        found = f"holds a {type(content).__name__} {has}, of which {len(states)} are a state_dict"
        raise InputError("model.weights", path, f"{found}; expected one, or {SAFE}")
    state: Mapping[str, Tensor] = entries[states[0]]
    return state


def of_tensors(value: Any) -> bool:
    """Return whether a value is a state_dict: tensors by name."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(x, Tensor) for x in value.values())


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the first of some names, and how many more there are."""
    first = ", ".join(list(names)[:SHOWN])
    return first if len(names) <= SHOWN else f"{first} and {len(names) - SHOWN} more"
