"""Several random draws in a run: what a gain is over, and how far apart draws are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from defense.config.compose import composed
from defense.errors import InputError
from defense.reporting.frame import mcnemar_of
from defense.reporting.reading import FOLDER
from defense.tasks.defend.report import defending_page
from tests.conftest import TINY, computed_in, run_in

DRAWS = ("control", "control_2", "control_3")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A run of one draw and two of three, of one store, with their folders."""
    folder = tmp_path_factory.mktemp("runs")
    words = [*TINY, f"store={folder / 'store'}"]
    several = [*words, "evaluation.controls=3"]
    found = {"one": words, "three": several, "other": [*several, "seed=1"]}
    return [run_in(folder / name, *own) | {FOLDER: folder / name} for name, own in found.items()]


def right(run: dict[str, Any], arm: str, metric: str = "adaptive.worst") -> np.ndarray:
    """Return which test samples an arm has right."""
    table = pd.read_parquet(run[FOLDER] / "per_sample.parquet")
    return table[table["arm"] == arm].set_index("id")[metric].to_numpy(dtype=bool)


def test_one_draw_is_what_it_was(runs: list[dict[str, Any]]) -> None:
    assert "controls" not in runs[0]
    page = (runs[0][FOLDER] / "report.md").read_text("utf-8")
    assert "Luck of the draw" not in page
    assert "Tango's score" in page


def test_further_draws_are_trained_and_attacked_beside_the_first(runs: list[dict[str, Any]]) -> None:
    stages = {"control_2", "control_3", "train_control_2", "train_control_3"}
    stages |= {"evaluate_control_2", "evaluate_control_3"}
    assert computed_in(runs[1][FOLDER]) == stages
    assert runs[1]["keys"]["train_control"] == runs[0]["keys"]["train_control"]
    assert len({runs[1]["keys"][f"train_{name}"] for name in DRAWS}) == 3


def test_gains_are_over_the_mean_of_all_draws(runs: list[dict[str, Any]]) -> None:
    run = runs[1]
    draws = [100 * right(run, name).mean() for name in DRAWS]
    assert [run["controls"][name]["adaptive"]["worst"] for name in DRAWS] == pytest.approx(draws)
    assert run["arms"]["control"]["adaptive"]["worst"] == pytest.approx(np.mean(draws))
    mean = np.mean([right(run, name) for name in DRAWS], axis=0)
    apart = 100 * (right(run, "defended") - mean)
    gain = run["gain_over_control"]
    half = stats.t.ppf(0.975, len(apart) - 1) * stats.sem(apart)
    found = (gain["mean"], gain["low"], gain["high"])
    assert found == pytest.approx((apart.mean(), apart.mean() - half, apart.mean() + half))
    clean = np.mean([100 * right(run, name, "clean").mean() for name in DRAWS])
    assert run["arms"]["control"]["clean"] == pytest.approx(clean)
    assert np.isnan(mcnemar_of(run))


def test_the_page_of_a_run_shows_every_draw(runs: list[dict[str, Any]]) -> None:
    page = (runs[1][FOLDER] / "report.md").read_text("utf-8")
    apart = np.std([100 * right(runs[1], name).mean() for name in DRAWS], ddof=1)
    assert f"3 random draws have a standard deviation of {apart:.1f} points." in page
    assert "(mean of 3 draws)" in page
    assert "Student's t" in page
    table = pd.read_csv(runs[1][FOLDER] / "tables/controls.csv")
    draws = [100 * right(runs[1], name).mean() for name in DRAWS]
    assert "adaptive, after apgd_t" not in table  # which is the one at worst again
    assert table["adaptive, worst"].tolist() == pytest.approx(draws, abs=0.051)


def test_the_page_of_a_sweep_says_how_far_apart_they_are(runs: list[dict[str, Any]]) -> None:
    several = runs[1:]
    variances = [np.var([100 * right(run, name).mean() for name in DRAWS], ddof=1) for run in several]
    notes = " ".join(defending_page([*several, several[0]], "x").notes)  # the same draws count once
    assert (
        f"a standard deviation of {np.sqrt(np.mean(variances)):.1f} points under adaptive attack (2 runs" in notes
    )
    assert "Luck of the draw" not in " ".join(defending_page(runs[:1], "x").notes)


def test_if_nothing_is_treated_nothing_is_drawn(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    words = [*TINY, f"store={runs[0][FOLDER].parent / 'store'}", "evaluation.controls=2", "treatment.budget=0"]
    found = run_in(tmp_path / "run", *words)
    assert found["controls"]["control_2"] == found["arms"]["baseline"]
    assert "evaluate_control_2" not in found["keys"]


@pytest.mark.parametrize("count", [0, -1])
def test_no_draw_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=r"evaluation.controls=.*expected a whole number of at least 1"):
        composed(f"evaluation.controls={count}")
