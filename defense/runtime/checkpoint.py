"""Where the finished parts of a long computation are kept, so that a killed one goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Checkpointer(Protocol):
    """Tensors by name, under the name of a part; what is kept is kept whole."""

    def load(self, part: str) -> dict[str, Tensor] | None:
        """Return what was kept of `part`, or None."""
        ...

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Keep `tensors`, in place of what was kept of `part` before."""
        ...

    def free(self) -> float:
        """Return how many bytes there is room for."""
        ...


class NoCheckpoint:
    """Keeps nothing: for computations that are not worth it."""

    def load(self, part: str) -> dict[str, Tensor] | None:
        """Return None."""
        return None

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Let go of `tensors`."""

    def free(self) -> float:
        """Return that there is room for anything."""
        return float("inf")


KEPT_EVERY = 30.0  # seconds: what a kill costs at most, beside the epoch or batch in hand


class ThrottledCheckpoint:
    """Another checkpointer, and when to save there: saving takes at most a thirtieth of the time."""

    def __init__(self, checkpoint: Checkpointer | None) -> None:
        self.checkpoint: Checkpointer = NoCheckpoint() if checkpoint is None else checkpoint
        self.next = time.monotonic() + KEPT_EVERY

    def load(self, part: str) -> dict[str, Tensor] | None:
        """Return what was kept of `part`, or None."""
        return self.checkpoint.load(part)

    def due(self) -> bool:
        """Return whether it is time to keep something."""
        return time.monotonic() >= self.next

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Keep `tensors`, in place of what was kept of `part` before."""
        begin = time.monotonic()
        self.checkpoint.save(part, tensors)
        now = time.monotonic()
        self.next = now + KEPT_EVERY * max(1.0, now - begin)

    def free(self) -> float:
        """Return how many bytes there is room for."""
        return self.checkpoint.free()


def packed(state: Any) -> dict[str, Tensor]:
    """Return nested dicts and lists, of tensors and what JSON can hold, as tensors that a checkpointer takes."""
    tensors: dict[str, Tensor] = {}

    def form(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[name := str(len(tensors))] = value
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"dict": [[key, form(each)] for key, each in value.items()]}  # pairs: keys may be numbers
        return [form(each) for each in value] if isinstance(value, list | tuple) else value

    text = json.dumps(form(state))
    return tensors | {"form": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}


def unpacked(tensors: dict[str, Tensor]) -> Any:
    """Return what `packed` made into tensors; tuples come back as lists."""

    def value(form: Any) -> Any:
        if isinstance(form, dict):
            return (
                tensors[form["tensor"]] if "tensor" in form else {key: value(each) for key, each in form["dict"]}
            )
        return [value(each) for each in form] if isinstance(form, list) else form

    return value(json.loads(tensors["form"].numpy().tobytes()))


Computed = tuple[dict[str, Tensor], dict[str, float]]  # tensors, and numbers that say how they were found


def load_or_compute(checkpoint: Checkpointer, part: str, compute: Callable[[], Computed]) -> Computed:
    """Return what was kept of `part`, or compute it and keep it."""
    known = checkpoint.load(part)
    if known is not None:
        tensors = {name[2:]: value for name, value in known.items() if name.startswith("t ")}
        return tensors, {name[2:]: value.item() for name, value in known.items() if name.startswith("n ")}
    tensors, numbers = compute()
    packed = {f"t {name}": value for name, value in tensors.items()}
    packed |= {f"n {name}": torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    checkpoint.save(part, packed)
    return tensors, numbers
