"""Where the finished parts of a long computation are kept, so that a killed one goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Memory(Protocol):
    """Tensors by name, under the name of a part; what is kept is kept whole."""

    def recall(self, part: str) -> dict[str, Tensor] | None:
        """Return what was kept of `part`, or None."""
        ...

    def keep(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Keep `tensors`, in place of what was kept of `part` before."""
        ...


class Forgetful:
    """Keeps nothing: for computations that are not worth it."""

    def recall(self, part: str) -> dict[str, Tensor] | None:
        """Return None."""
        return None

    def keep(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Let go of `tensors`."""


Computed = tuple[dict[str, Tensor], dict[str, float]]  # tensors, and numbers that say how they were found


def remembered(memory: Memory, part: str, compute: Callable[[], Computed]) -> Computed:
    """Return what was kept of `part`, or compute it and keep it."""
    known = memory.recall(part)
    if known is not None:
        tensors = {name[2:]: value for name, value in known.items() if name.startswith("t ")}
        return tensors, {name[2:]: value.item() for name, value in known.items() if name.startswith("n ")}
    tensors, numbers = compute()
    packed = {f"t {name}": value for name, value in tensors.items()}
    packed |= {f"n {name}": torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    memory.keep(part, packed)
    return tensors, numbers
