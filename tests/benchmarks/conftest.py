"""Options of the benchmarks, which `pytest` alone does not run: `pytest tests/benchmarks`.

--quick             a smoke run: a few samples, one round
--write-report [D]  write the pages of what was measured to D/scoring and so on; D: runs/reports if not given
--mnist FILE        MNIST as data=npz takes it, for the evaluation
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import training
from tests.benchmarks.cases import FULL, QUICK, Sizes
from tests.benchmarks.report import Measured, table, write
from tests.benchmarks.training import Taken

MEASURED = pytest.StashKey[list[Measured]]()
TAKEN = pytest.StashKey[list[Taken]]()
REPORTS = "runs/reports"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption("--quick", action="store_true", help="a smoke run on a few samples")
    group.addoption("--write-report", nargs="?", const=REPORTS, default=None, help="the folder to write into")
    group.addoption("--mnist", default=None, help="a file of MNIST in the form of data=npz")


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--quick"))


@pytest.fixture(scope="session")
def sizes(quick: bool) -> Sizes:
    return QUICK if quick else FULL


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest, sizes: Sizes) -> Iterator[list[Measured]]:
    """Collect what the tests measure; written where that was asked for."""
    results: list[Measured] = []
    request.config.stash[MEASURED] = results
    yield results
    folder = request.config.getoption("--write-report")
    if folder and results:
        write(results, sizes, request.config.rootpath / Path(folder) / "scoring")


@pytest.fixture(scope="session")
def taken(request: pytest.FixtureRequest) -> Iterator[list[Taken]]:
    """Collect what trainings take; written where that was asked for."""
    results: list[Taken] = []
    request.config.stash[TAKEN] = results
    yield results
    folder = request.config.getoption("--write-report")
    if folder and results:
        training.write(results, request.config.rootpath / Path(folder) / "training")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if results := config.stash.get(MEASURED, []):
        terminalreporter.section("scoring")
        terminalreporter.write_line(table(results))
    if trainings := config.stash.get(TAKEN, []):
        terminalreporter.section("training")
        terminalreporter.write_line(training.table(trainings))
