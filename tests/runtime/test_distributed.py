"""Two processes give the scores, pictures and errors of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from defense.errors import InputError
from defense.runtime.checkpoint import NoCheckpoint
from defense.runtime.devices import join_process_group
from defense.runtime.distributed import (
    SINGLE_PROCESS,
    Ranks,
    SharedCheckpoint,
    SingleProcess,
    compute_on_rank_zero,
    raise_on_all,
    rank_zero_first,
    shard,
    shard_batches,
)
from defense.runtime.processes import spawned
from defense.runtime.ranks import RankInfo

CPU = torch.device("cpu")


class Member(SingleProcess):
    """One of several that share things out, seen from outside."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size  # type: ignore[misc]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(("length", "batch"), [(0, 4), (1, 4), (10, 4), (10, 1), (12, 4), (100, 7)])
def test_the_shares_are_whole_batches_and_together_everything(size: int, length: int, batch: int) -> None:
    shares = [shard_batches(Member(rank, size), length, batch) for rank in range(size)]
    assert [row for rows in shares for row in rows] == list(range(length))
    assert all(rows.start % batch == 0 for rows in shares if rows)
    counts = [len(shard(Member(rank, size), length)) for rank in range(size)]
    assert max(counts) - min(counts) <= 1


def everything(info: RankInfo) -> dict[str, Any]:
    """What one of two processes finds of each thing that a ranks can do."""
    ranks = join_process_group(info, CPU)
    rank = ranks.rank
    rows = {0: torch.arange(6.0).view(3, 2), 1: torch.empty(0)}[rank]
    flags = {0: torch.empty(0), 1: torch.tensor([True, False])}[rank]
    one, other = torch.tensor([1.0 + rank]), torch.full((2, 2), 10.0 * rank)
    ranks.sum([one, other])
    checkpoint = Kept({"value": torch.tensor(float(rank))} if rank == 0 else None)
    SharedCheckpoint(checkpoint, ranks).save("part", {"kept": torch.ones(1)})
    found = {
        "rows": ranks.gather(rows),
        "flags": ranks.gather(flags),
        "sums": (one, other),
        "told": compute_on_rank_zero(ranks, lambda: f"from {rank}"),
        "first": rank_zero_first(ranks, lambda: rank),
        "recalled": SharedCheckpoint(checkpoint, ranks).load("part"),
        "kept": sorted(checkpoint.parts),
        "errors": [caught(ranks, error) for error in (None, RuntimeError("can't allocate memory"), Odd(1, 2))],
    }
    return ranks.exchange(found)


class Kept(NoCheckpoint):
    """A memory of one thing, that notes what it is told to keep."""

    def __init__(self, known: Any) -> None:
        self.known, self.parts = known, set[str]()

    def load(self, part: str) -> Any:
        return self.known

    def save(self, part: str, tensors: Any) -> None:
        self.parts.add(part)


class Odd(ValueError):
    """An error that cannot be sent: its arguments are not those that it is made of."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"odd {one} {two}")


def caught(ranks: Ranks, error: Exception | None) -> str:
    """What a process raises where that of rank 1 does."""

    def compute() -> str:
        if error is not None and ranks.rank == 1:
            raise error
        return "fine"

    try:
        return raise_on_all(ranks, compute)
    except Exception as found:
        return f"{type(found).__name__}: {found}"


def test_what_two_processes_tell_each_other() -> None:
    for rank, found in enumerate(spawned(everything, 2)):
        torch.testing.assert_close(found["rows"], torch.arange(6.0).view(3, 2))
        torch.testing.assert_close(found["flags"], torch.tensor([True, False]))
        torch.testing.assert_close(found["sums"], (torch.tensor([3.0]), torch.full((2, 2), 10.0)))
        assert found["told"] == "from 0"
        assert found["first"] == rank
        assert found["recalled"] == {"value": torch.tensor(0.0)}
        assert found["kept"] == (["part"] if rank == 0 else [])
        odd = ("RuntimeError: Odd: odd 1 2", "Odd: odd 1 2")[rank]
        assert found["errors"] == ["fine", "RuntimeError: can't allocate memory", odd]


def test_one_alone_does_it_all() -> None:
    values = torch.rand(3)
    assert SINGLE_PROCESS.gather(values) is values
    assert (
        compute_on_rank_zero(SINGLE_PROCESS, lambda: 1),
        rank_zero_first(SINGLE_PROCESS, lambda: 2),
        raise_on_all(SINGLE_PROCESS, lambda: 3),
    ) == (1, 2, 3)
    assert list(shard_batches(SINGLE_PROCESS, 5, 2)) == [0, 1, 2, 3, 4]


def failing(info: RankInfo, error: Exception) -> None:
    """Fail as the second of two, while the first waits."""
    ranks = join_process_group(info, CPU)
    if info.rank == 1:
        raise error
    ranks.exchange(None)


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        pytest.param(
            InputError("data.path", "x", "no such path"),
            InputError,
            "^data.path=x: no such path$",
            marks=pytest.mark.slow,
        ),
        pytest.param(FloatingPointError("not finite"), FloatingPointError, "^not finite$", marks=pytest.mark.slow),
        pytest.param(
            PermissionError(13, "Permission denied", "x"),
            PermissionError,
            "Permission denied",
            marks=pytest.mark.slow,
        ),
        pytest.param(KeyError("missing"), RuntimeError, "KeyError: 'missing'", marks=pytest.mark.slow),
        pytest.param(Odd(1, 2), RuntimeError, "Odd: odd 1 2", marks=pytest.mark.slow),
    ],
)
def test_an_error_of_one_ends_all(error: Exception, expected: type[Exception], said: str) -> None:
    with pytest.raises(expected, match=said) as raised:
        spawned(failing, 2, error) if not isinstance(error, Odd) else spawned(failing_oddly, 2)
    assert type(raised.value) is expected


def failing_oddly(info: RankInfo) -> None:
    failing(info, Odd(1, 2))


def dying(info: RankInfo) -> None:
    """Be killed as the second of two, while the first waits."""
    import os
    import signal

    ranks = join_process_group(info, CPU)
    if info.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.exchange(None)


@pytest.mark.slow
def test_a_process_that_dies_without_a_word_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"^process 1 died with exit code -9$"):
        spawned(dying, 2)
