"""Options of the benchmark, which `pytest` alone does not run: `pytest tests/benchmarks`.

--quick             a smoke run: a few samples, one round
--write-report [D]  write README.md, result.json and figure.svg into folder D, runs/reports/scoring by default
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.cases import FULL, QUICK, Sizes
from tests.benchmarks.report import Measured, table, write

MEASURED = pytest.StashKey[list[Measured]]()
REPORT = "runs/reports/scoring"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("scoring benchmark")
    group.addoption("--quick", action="store_true", help="a smoke run on a few samples")
    group.addoption("--write-report", nargs="?", const=REPORT, default=None, help="the folder to write")


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
        write(results, sizes, request.config.rootpath / Path(folder))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if results := config.stash.get(MEASURED, []):
        terminalreporter.section("scoring")
        terminalreporter.write_line(table(results))
