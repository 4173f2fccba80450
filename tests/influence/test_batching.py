"""Batches that shrink to the memory there is, and give the same numbers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import Direction, Method, ObjectiveName
from defense.config.schema import Objective, Scorer
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence import batching
from defense.influence.batching import with_auto_batch_size
from defense.influence.scorers import METHODS, ScoringContext
from defense.runtime import checkpoint as checkpoint
from defense.runtime.checkpoint import NoCheckpoint
from defense.runtime.distributed import SingleProcess
from defense.runtime.progress import no_progress
from defense.store.store import FileCheckpointer
from tests.calls import map_batches, problem, score
from tests.conftest import doubles, make_split, scorer

TRAIN, HELD_OUT = doubles(make_split(40, 3, (1, 3, 3))), doubles(make_split(24, 3, (1, 3, 3), seed=1))
UTILITY = Objective({ObjectiveName.utility: 1.0}, positive=1)


class Small(nn.Module):
    """A network for a device that has room for `room` samples."""

    def __init__(self, room: float, error: RuntimeError) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.room, self.error = room, error
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3)).double()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise self.error
        return self.layers(x)


def network(room: float = float("inf"), error: RuntimeError | None = None) -> nn.Module:
    return Small(room, error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")).eval()


def given(model: nn.Module, spec: Scorer) -> ScoringContext:
    return ScoringContext(model, TRAIN, TRAIN, Validation(HELD_OUT, HELD_OUT), UTILITY, spec, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cosine": True},
        {"method": Method.loss},
        {"method": Method.adversarial_loss},
        {"method": Method.self_influence},
        {"direction": Direction.cg, "tolerance": 1e-9},
        {"direction": Direction.datainf},
    ],
    ids=str,
)
def test_every_pass_halves_its_batches(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    spec = scorer(batch_size=None, **settings)
    expected = METHODS[spec.method](given(network(), spec)).total
    assert "out of memory" not in caplog.text
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5 bytes")
    for error in (None, cpu):
        with caplog.at_level(logging.WARNING):
            found = METHODS[spec.method](given(network(5, error), spec)).total
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        if spec.method is not Method.self_influence:  # of single samples, whatever the batch
            assert "out of memory on a batch of 40 samples, going on with 20" in caplog.text


def test_the_stage_fits_too() -> None:
    validation = Validation(HELD_OUT, HELD_OUT)
    tables = [
        score(model, TRAIN, validation, UTILITY, scorer(batch_size=None), seed=0, progress=no_progress).table
        for model in (network(), network(3))
    ]
    torch.testing.assert_close(*(torch.tensor(table["score"].to_numpy()) for table in tables))
    torch.testing.assert_close(*(torch.tensor(table["loss"].to_numpy()) for table in tables))


def test_a_number_is_taken_as_given() -> None:
    spec = scorer(batch_size=6)
    METHODS[spec.method](given(network(6), spec))
    with pytest.raises(InputError, match=r"scorer.batch_size=6: out of memory on a batch; lower this number"):
        METHODS[spec.method](given(network(5), spec))


def test_one_sample_that_does_not_fit_is_an_error_and_so_is_anything_else() -> None:
    spec = scorer(batch_size=None)
    with pytest.raises(InputError, match=r"scorer.batch_size=1: out of memory .* no room for a single sample"):
        METHODS[spec.method](given(network(0), spec))
    with pytest.raises(RuntimeError, match="another fault"):
        METHODS[spec.method](given(network(5, RuntimeError("another fault")), spec))


def test_the_first_size_is_that_of_the_device_or_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batching.SIZES, "cpu", 16)
    assert with_auto_batch_size(None, TRAIN, int) == 16
    assert with_auto_batch_size(None, TRAIN.subset(torch.arange(3)), int) == 3
    assert with_auto_batch_size(1000, TRAIN, int) == 1000


@pytest.mark.parametrize("method", [Method.alignment, Method.self_influence])
def test_a_killed_pass_goes_on_with_the_next_batch(
    tmp_path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    model = Small(1000, RuntimeError())
    progress = FileCheckpointer(tmp_path)
    seen = []

    def given(progress, kept) -> ScoringContext:  # type: ignore[no-untyped-def]
        both = Validation(HELD_OUT, HELD_OUT)
        spec = scorer(method=method, batch_size=7)
        return problem(model, TRAIN, None, both, UTILITY, spec, progress=progress, checkpoint=kept)

    def killing(done: int, total: int) -> None:
        seen.append(done)
        if done == 21:
            raise KeyboardInterrupt

    whole = METHODS[method](given(no_progress, NoCheckpoint())).total
    with pytest.raises(KeyboardInterrupt):
        METHODS[method](given(killing, progress))
    again = METHODS[method](given(lambda done, total: seen.append(done), progress)).total
    assert seen == [7, 14, 21, 28, 35, 40]
    assert torch.equal(again, whole)


class Second(SingleProcess):
    """The second of two processes, which speaks to nobody."""

    rank, size = 1, 2

    def exchange(self, value: Any) -> list[Any]:
        return [None, value]


def test_rows_that_were_kept_of_other_batches_are_not_taken_for_these(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """Of 40 rows the second process begins at 32 in batches of 32, and at 16 in batches of 8."""
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)

    def rows_in(size: int) -> list[float]:
        found = map_batches(
            TRAIN,
            size,
            lambda rows, x, labels: torch.arange(rows.start, rows.stop).double(),
            progress=no_progress,
            checkpoint=FileCheckpointer(tmp_path),
            part="rows",
            ranks=Second(),
        )
        return found.tolist()

    assert rows_in(32) == list(range(32, 40))
    assert rows_in(8) == list(range(16, 40))
