"""Several processes that work on one run, each on its share of the rows: what the mathematics sees of them.

A pass over a split is shared out by whole batches, of the size that one process would use, in one block for each
process. What a batch gives depends on the batch alone, so the rows, gathered in order, are those of one process.
Every process calls the functions of this module that take `ranks`, in the same order.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from math import ceil
from typing import Protocol, TypeVar

from torch import Tensor

from defense.runtime.checkpoint import Checkpointer

T = TypeVar("T")


class Ranks(Protocol):
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


class SingleProcess:
    """A single process, which waits for nobody."""

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


SINGLE_PROCESS = SingleProcess()


def shard(ranks: Ranks, count: int) -> range:
    """Return which of `count` things, in one block, are this process's; sizes differ by one at most."""
    return range(ranks.rank * count // ranks.size, (ranks.rank + 1) * count // ranks.size)


def shard_batches(ranks: Ranks, length: int, size: int) -> range:
    """Return which of `length` rows are this process's, in whole batches of `size`; there may be none."""
    batches = shard(ranks, ceil(length / size))
    return range(batches.start * size, min(batches.stop * size, length))


def rank_name(ranks: Ranks, part: str) -> str:
    """Return the name under which this process keeps its share of a `part`."""
    return f"{part} {ranks.rank} of {ranks.size}" if ranks.size > 1 else part


def rank_seed(ranks: Ranks) -> tuple[str | int, ...]:
    """Return what the purpose of a draw ends with, so that each process draws its own; nothing for one alone."""
    return ("process", ranks.rank) if ranks.size > 1 else ()


def raise_on_all(ranks: Ranks, compute: Callable[[], T]) -> T:
    """Run `compute` on every rank without communication; if it raises on one rank, raise on all.

    So if memory runs out on one, all go on with smaller batches, and none is left waiting.
    """
    if ranks.size == 1:
        return compute()
    failure: Exception | None = None
    try:
        found = compute()
    except Exception as error:
        failure = error
    failures = [error for error in ranks.exchange(failure and sendable(failure)) if error is not None]
    if failure is not None:
        raise failure
    if failures:
        raise failures[0]
    return found


def rank_zero_first(ranks: Ranks, compute: Callable[[], T]) -> T:
    """Run `compute` on rank 0 before the other ranks, so that it alone makes a missing file."""
    found = raise_on_all(ranks, lambda: [compute()] if ranks.rank == 0 else [])
    return found[0] if found else compute()


def compute_on_rank_zero(ranks: Ranks, compute: Callable[[], T]) -> T:
    """Run `compute` on rank 0 and send its result to all; an error is raised on all."""
    found = raise_on_all(ranks, lambda: [compute()] if ranks.rank == 0 else [])
    return ranks.broadcast(found)[0]


def sendable(error: Exception) -> Exception:
    """Return an error as another process can raise it: itself, or its name and text where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is made again
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class SharedCheckpoint:
    """A checkpointer that all processes share: rank 0 saves, and sends the others what it has saved."""

    def __init__(self, checkpoint: Checkpointer, ranks: Ranks) -> None:
        self.checkpoint, self.ranks = checkpoint, ranks

    def load(self, part: str) -> dict[str, Tensor] | None:
        """Return what was kept of `part`, or None; the same for all."""
        return self.ranks.broadcast(self.checkpoint.load(part) if self.ranks.rank == 0 else None)

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        """Keep `tensors`, of which the processes have the same."""
        if self.ranks.rank == 0:
            self.checkpoint.save(part, tensors)

    def free(self) -> float:
        """Return how many bytes there is room for."""
        return self.checkpoint.free()
