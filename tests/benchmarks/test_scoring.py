"""The cost of scores beside that of a forward pass, a training step and two peer libraries.

One round of pytest-benchmark calls every row of a group once, so that a machine that slows down slows all of them.
What each row took is in `extra_info`, seconds per sample, and in the report; nothing is asserted.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from time import perf_counter

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.cases import GROUPS, Group, Sizes, shard_batches
from tests.benchmarks.memory import peak_of
from tests.benchmarks.report import Measured


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.title)
def test_scoring(
    benchmark: BenchmarkFixture, group: Group, sizes: Sizes, quick: bool, measured: list[Measured]
) -> None:
    rows = shard_batches(group, sizes, quick=quick)
    calls = [row.warmed() for row in rows]
    seconds: dict[int, list[float]] = defaultdict(list)
    number = count()

    def one_round() -> None:
        done = next(number)
        turns = [index for index, row in enumerate(rows) if done < row.rounds]
        for index in turns if done % 2 == 0 else reversed(turns):
            start = perf_counter()
            calls[index]()
            seconds[index].append(perf_counter() - start)

    benchmark.pedantic(one_round, rounds=max(row.rounds for row in rows))
    for index, row in enumerate(rows):
        found = Measured.of(row, group, seconds[index], seconds[0])
        benchmark.extra_info[found.label] = found.seconds_per_sample
        measured.append(found)


@pytest.mark.parametrize("model", ["cnn", "resnet18"])
def test_memory(model: str, sizes: Sizes, quick: bool, measured: list[Measured]) -> None:
    """Each case once at the smallest validation set, beside its time."""
    group = next(group for group in GROUPS if group.model == model and not group.long)
    smallest = [
        row
        for row in shard_batches(group, sizes, quick=quick)
        if row.setting.validation_count == sizes.validations[0]
    ]
    for row in smallest:
        peak = peak_of(row)
        for found in measured:
            if found.is_of(row, group):
                found.peak_bytes = peak
