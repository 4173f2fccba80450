"""What the training loop costs above a bare one; nothing is asserted but that both do the same."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import count
from time import perf_counter

import pytest
import torch
from lightning_fabric import Fabric
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.training import CASES, Case, Taken, bare, ours, parameters_after


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training(
    benchmark: BenchmarkFixture, case: Case, quick: bool, taken: list[Taken], fabric: Fabric
) -> None:
    case = replace(case, count=96, rounds=1) if quick else case
    torch.testing.assert_close(
        parameters_after(ours, case, fabric), parameters_after(bare, case, fabric), rtol=1e-3, atol=1e-5
    )
    result = Taken(case)
    number = count()

    def one_round() -> None:
        turns = [(bare, result.bare), (ours, result.ours)]
        for loop, seconds in turns if next(number) % 2 == 0 else turns[::-1]:
            model = deepcopy(case.network)
            start = perf_counter()
            loop(case, model, fabric)
            seconds.append(perf_counter() - start)

    benchmark.pedantic(one_round, rounds=case.rounds)
    benchmark.extra_info["above, %"] = result.above
    taken.append(result)
