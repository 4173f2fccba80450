"""Batch norm of two processes, each with a part of a batch, is torch's batch norm of the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defense.runtime.devices import join_process_group
from defense.runtime.distributed import SINGLE_PROCESS
from defense.runtime.processes import spawned
from defense.runtime.ranks import RankInfo
from defense.training.norms import whole_batches

PARTS = {0: slice(0, 3), 1: slice(3, 8)}  # of unequal size
CASES: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({}, (8, 4, 5, 3)),
    ({"momentum": None, "eps": 0.1}, (8, 4, 5, 3)),
    ({"affine": False}, (8, 4, 2, 2)),
    ({"track_running_stats": False}, (8, 4, 2, 2)),
    ({}, (8, 4)),
    ({}, (8, 4, 6)),
]


def norm(settings: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    made: nn.Module = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1], **settings).double()
    chance = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data = torch.rand(parameter.shape, generator=chance, dtype=torch.float64)
    return made


def batches(shape: tuple[int, ...]) -> list[Tensor]:
    """Two batches, the second of numbers far from zero, and what their outputs weigh in a loss."""
    chance = torch.Generator().manual_seed(2)
    first, second, weights = (torch.randn(shape, generator=chance, dtype=torch.float64) for _ in range(3))
    return [first, 1000 + second, weights]


def passes(made: nn.Module, rows: slice, shape: tuple[int, ...]) -> dict[str, Any]:
    """Two forward and backward passes over some rows of the batches."""
    *both, weights = batches(shape)
    found: dict[str, Any] = {"outputs": [], "by pictures": []}
    for x in both:
        x = x[rows].requires_grad_()
        out = made(x)
        (out.pow(2) * weights[rows]).sum().backward()
        found["outputs"].append(out.detach())
        found["by pictures"].append(x.grad)
    made.eval()
    found["evaluated"] = made(both[0][rows]).detach() if made.running_mean is not None else torch.empty(0)
    return found | {"by weights": [p.grad for p in made.parameters()], "state": dict(made.state_dict())}


def in_two(place: RankInfo) -> list[list[dict[str, Any]]]:
    ranks = join_process_group(place, torch.device("cpu"))
    found = []
    for settings, shape in CASES:
        made = norm(settings, shape)
        usual = made.forward
        with whole_batches(made, ranks):
            assert made.forward != usual
            found.append(passes(made, PARTS[ranks.rank], shape))
        assert made.forward == usual
    return ranks.exchange(found)


@pytest.fixture(scope="module")
def both() -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = spawned(in_two, 2)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number]))
def test_equals_the_whole_batch(both: list[list[dict[str, Any]]], number: int) -> None:
    expected = passes(norm(*CASES[number]), slice(None), CASES[number][1])
    parts = [found[number] for found in both]
    for name in ("outputs", "by pictures"):
        for step, values in enumerate(expected[name]):
            torch.testing.assert_close(
                torch.cat([part[name][step] for part in parts]), values, rtol=1e-8, atol=1e-9
            )
    torch.testing.assert_close(torch.cat([part["evaluated"] for part in parts]), expected["evaluated"])
    for total, *each in zip(expected["by weights"], *(part["by weights"] for part in parts), strict=True):
        torch.testing.assert_close(sum(each), total)
    for part in parts:
        torch.testing.assert_close(part["state"], expected["state"])


def test_one_alone_is_left_to_torch() -> None:
    made = norm(*CASES[0])
    usual = made.forward
    with whole_batches(made, SINGLE_PROCESS):
        assert made.forward == usual
