"""The suites beside independent implementations; nothing is asserted: the goals stand in the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from defense.config.choices import Recipe
from tests.benchmarks.evaluation import (
    CASES,
    CHOICE_CASES,
    DEFENDED,
    GAINED,
    PEER_CASES,
    Case,
    choose,
    compare,
    compare_peer,
    gains,
    robust_training,
)
from tests.benchmarks.evaluation_report import Evaluated, write


@pytest.fixture(scope="module")
def evaluated() -> Iterator[Evaluated]:
    """Collect what is measured, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Evaluated()
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def written(request: pytest.FixtureRequest, quick: bool, evaluated: Evaluated) -> Iterator[None]:
    """Write the page after every test where that was asked for: all of them take the better part of an hour."""
    yield
    if folder := request.config.getoption("--write-report"):
        write(evaluated, request.config.rootpath / Path(folder) / "evaluation", quick=quick)


@pytest.fixture(scope="module")
def mnist(request: pytest.FixtureRequest) -> Path | None:
    """Return the file that --mnist names."""
    named = request.config.getoption("--mnist")
    return None if named is None else Path(named).resolve()


def needs(source: str, mnist: Path | None) -> None:
    """Skip what there are no data for."""
    if source == "mnist" and mnist is None:
        pytest.skip("--mnist names no file")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_beside_the_reference(case: Case, mnist: Path | None, quick: bool, evaluated: Evaluated) -> None:
    needs(case.source, mnist)
    evaluated.compared.append(compare(case, mnist, quick=quick))


@pytest.mark.parametrize("case", CHOICE_CASES, ids=lambda case: case.name)
def test_what_each_part_adds(case: Case, quick: bool, evaluated: Evaluated) -> None:
    evaluated.chosen.append(choose(case, quick=quick))


@pytest.mark.parametrize("name", GAINED)
def test_the_gain_under_every_suite(name: str, quick: bool, evaluated: Evaluated, tmp_path: Path) -> None:
    evaluated.gained.append(gains(name, tmp_path, quick=quick))


@pytest.mark.parametrize("recipe", [Recipe.standard, Recipe.adversarial])
@pytest.mark.parametrize("source", DEFENDED)
def test_robust_training(
    source: str, recipe: Recipe, mnist: Path | None, quick: bool, evaluated: Evaluated, tmp_path: Path
) -> None:
    needs(source, mnist)
    evaluated.trained.append(robust_training(source, recipe, tmp_path, mnist, quick=quick))


@pytest.mark.parametrize("case", PEER_CASES, ids=lambda case: case.name)
def test_beside_art(case: Case, quick: bool, evaluated: Evaluated) -> None:
    pytest.importorskip("art", reason="needs pip install adversarial-robustness-toolbox")
    evaluated.peers.append(compare_peer(case, quick=quick))
