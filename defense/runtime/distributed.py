"""Several processes that work on one run, each on its share of the rows: what the mathematics sees of them.

A pass over a split is shared out by whole batches, of the size that one process would use, in one block for each
process. What a batch gives depends on the batch alone, so the rows, gathered in order, are those of one process.
Whatever of this module is called with a crew is called by every process of it, in the same order.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from math import ceil
from typing import Protocol, TypeVar

from torch import Tensor

from defense.runtime.checkpoint import Memory

T = TypeVar("T")


class Crew(Protocol):
    """`size` processes, of which this is the one of `rank`, from 0 up."""

    @property
    def rank(self) -> int:
        """Which of them this is."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows (n_rank, ...) of all processes in order of rank: (n, ...), on the CPU."""
        ...

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each of `tensors`, of one device and type, by its sum over the processes."""
        ...

    def broadcast(self, value: T) -> T:
        """Return the value that the process of rank 0 gave."""
        ...

    def exchange(self, value: T) -> list[T]:
        """Return the values of all processes in order of rank."""
        ...


class Alone:
    """One process, which has nobody to wait for."""

    rank, size = 0, 1

    def gather(self, values: Tensor) -> Tensor:
        """Return `values` on the CPU."""
        return values.cpu()

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Leave `tensors` as they are."""

    def broadcast(self, value: T) -> T:
        """Return `value`."""
        return value

    def exchange(self, value: T) -> list[T]:
        """Return `value` alone."""
        return [value]


ALONE = Alone()


def share(crew: Crew, count: int) -> range:
    """Return which of `count` things, in one block, are this process's; sizes differ by one at most."""
    return range(crew.rank * count // crew.size, (crew.rank + 1) * count // crew.size)


def rows_of(crew: Crew, length: int, size: int) -> range:
    """Return which of `length` rows are this process's, in whole batches of `size`; there may be none."""
    batches = share(crew, ceil(length / size))
    return range(batches.start * size, min(batches.stop * size, length))


def own_part(crew: Crew, part: str) -> str:
    """Return the name under which this process keeps its share of a `part`."""
    return f"{part} {crew.rank} of {crew.size}" if crew.size > 1 else part


def draws(crew: Crew) -> tuple[str | int, ...]:
    """Return what the purpose of a draw ends with, so that each process draws its own; nothing for one alone."""
    return ("process", crew.rank) if crew.size > 1 else ()


def together(crew: Crew, compute: Callable[[], T]) -> T:
    """Return compute(), in which no process waits for another; an error of one of them is raised by all.

    So where memory runs out on one, all go on with smaller batches, and none is left waiting.
    """
    if crew.size == 1:
        return compute()
    failure: Exception | None = None
    try:
        found = compute()
    except Exception as error:
        failure = error
    failures = [error for error in crew.exchange(failure and sendable(failure)) if error is not None]
    if failure is not None:
        raise failure
    if failures:
        raise failures[0]
    return found


def first(crew: Crew, compute: Callable[[], T]) -> T:
    """Return compute(), by the process of rank 0 before the others: for what finds a file there or makes it."""
    found = together(crew, lambda: [compute()] if crew.rank == 0 else [])
    return found[0] if found else compute()


def told(crew: Crew, compute: Callable[[], T]) -> T:
    """Return compute() of the process of rank 0, which tells the others; an error is raised by all."""
    found = together(crew, lambda: [compute()] if crew.rank == 0 else [])
    return crew.broadcast(found)[0]


def sendable(error: Exception) -> Exception:
    """Return an error as another process can raise it: itself, or its name and text where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is made again
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Common:
    """A memory that all processes share: the one of rank 0 keeps, and tells the others what it has kept."""

    def __init__(self, memory: Memory, crew: Crew) -> None:
        self.memory, self.crew = memory, crew

    def recall(self, part: str) -> dict[str, Tensor] | None:
        """Return what was kept of `part`, or None; the same for all."""
        return self.crew.broadcast(self.memory.recall(part) if self.crew.rank == 0 else None)

    def keep(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Keep `tensors`, of which the processes have the same."""
        if self.crew.rank == 0:
            self.memory.keep(part, tensors)
