"""The one form in which values enter keys: equal values have one form, whatever type or order they come in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from defense.config.reads import NAMES, PARTS, read, reading
from defense.config.schema import Evaluation, Training
from defense.runtime.source import TARGET
from defense.runtime.user_function import source_of


def key_of(identity: dict[str, Any]) -> str:
    """Return the key of what an entry was computed from, 24 hexadecimal digits."""
    return hash_of(canonical(identity))[:24]


def canonical(value: Any, name: str = "key") -> Any:
    """Return a value as JSON can hold it; `name` says in errors where it stands.

    Equal numbers have one form, be they int, float, numpy's or -0.0. Enums count by their value, paths by their
    text, settings by the fields that they read, with the code that these name. Tensors and arrays count by dtype,
    shape and bytes, pictures by their digest. An object with `digests` or an `identity` counts by these. Tensors
    by name, and a table, are one hash. Order counts in lists, tuples and the attacks of a suite. Raises TypeError
    for any other, as a function.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Enum):
        return canonical(value.value, name)
    if isinstance(value, Tensor | np.ndarray):
        return digest_of(value)
    if isinstance(value, pd.DataFrame | pd.Series):
        return digest_of_table(value)
    if callable(getattr(value, "digest", None)):
        return value.digest()
    for own in ("digests", "identity"):
        if hasattr(value, own) and not isinstance(value, type):
            return canonical(getattr(value, own), name)
    if isinstance(value, np.generic):
        return canonical(value.item(), name)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return (
            {"float": str(number)} if not math.isfinite(number) else int(number) if number.is_integer() else number
        )
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, PARTS):
        return canonical(read(value) | source_in(value), name)
    if isinstance(value, Training):
        threat = value.threat if "threat" in reading(value.recipe) else None
        return canonical({"recipe": value.recipe, "threat": threat}, name)
    if isinstance(value, Evaluation):
        return {**canonical(vars(value), name), "attacks": canonical(list(value.attacks.items()), name)}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: canonical(getattr(value, each.name), f"{name}.{each.name}") for each in fields(value)}
    if isinstance(value, Mapping):
        if value and all(isinstance(each, Tensor | np.ndarray) for each in value.values()):
            return hash_of({str(key): digest_of(each) for key, each in value.items()})
        return {named(key): canonical(each, f"{name}.{key}") for key, each in value.items()}
    if isinstance(value, Set):
        return sorted((canonical(each, name) for each in value), key=json.dumps)
    if isinstance(value, list | tuple):
        return [canonical(each, f"{name}.{number}") for number, each in enumerate(value)]
    raise TypeError(f"{name}: a {type(value).__name__} cannot be part of a key")


def source_in(settings: Any) -> dict[str, Any]:
    """Return the hashes of the code of a function of the user, if settings choose one; else nothing."""
    if TARGET not in reading(settings):
        return {}
    part = next(part for kind, part in NAMES.items() if isinstance(settings, kind))
    return {"source": source_of(settings, part)}


def named(key: Any) -> str:
    """Return the name of an entry of a mapping: a text as it is, others with their type."""
    key = key.value if isinstance(key, Enum) else key
    return key if isinstance(key, str) else f"{type(key).__name__} {key}"


def digest_of(value: Tensor | np.ndarray) -> dict[str, Any]:
    """Return dtype, shape and the hash of the bytes of a tensor or array, in row-major order."""
    if value.dtype == object:
        raise TypeError("an array of objects cannot be part of a key")
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        content = value.tobytes()
    dtype = str(value.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(value.shape), "sha256": hashlib.sha256(content).hexdigest()}


def digest_of_table(table: pd.DataFrame | pd.Series) -> dict[str, Any]:
    """Return the number of rows and the hash of the columns, by name and in any order."""
    columns = table.items() if isinstance(table, pd.DataFrame) else [(str(table.name), table)]
    found = {
        str(name): column.astype(str).tolist() if column.dtype.kind not in "biuf" else digest_of(column.to_numpy())
        for name, column in columns
    }
    return {"rows": len(table), "sha256": hash_of(found)}


def hash_of(value: Any) -> str:
    """Return the hash of what JSON can hold, whatever the order of its names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(first: Any, second: Any, name: str = "") -> list[str]:
    """Return what differs between two canonical values, a line each: 'settings.train.epochs: 3, 4'."""
    if isinstance(first, dict) and isinstance(second, dict):
        names = dict.fromkeys([*first, *second])
        pairs = ((first.get(key), second.get(key), f"{name}.{key}".lstrip(".")) for key in names)
        return [line for pair in pairs for line in differences(*pair)]
    return [] if first == second else [f"{name}: {json.dumps(first)}, {json.dumps(second)}"]
