from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from defense.config.schema import plain
from defense.reporting.page import write_page
from defense.tasks.speed.report import timing_page
from tests.cli.test_report import result as base
from tests.conftest import DEFAULT

WORKS = ((256, 64), (1024, 64), (1024, 256))


def timed(seed: int, model: str, factors: dict[str, float], **changes: Any) -> dict[str, Any]:
    """A result in which each rival has one factor on every work; N x 1e-4 s is the time of ip."""
    works = [
        {
            "train": train,
            "validation": validation,
            "seconds": 1e-4 * train,
            "rivals": {
                name: {"seconds": 1e-4 * train * factor, "factor": factor, "rounds": 3}
                | {"agreement": 1.0 if name == "captum_tracin" else 0.5, "residual": None}
                for name, factor in factors.items()
            },
        }
        for train, validation in WORKS
    ]
    found = {
        "works": works,
        "missing": {},
        "exact": [name for name in factors if name == "captum_tracin"],
        "threads": 1,
        "load": [0.5, 1.0],
    }
    found |= {"parameters": {"mlp": 1000, "cnn": 9000}[model]} | changes
    config = plain(DEFAULT) | {"task": "speed", "model": {"_target_": model}}
    scorers = {name: config["scorer"] | {"name": name} for name in factors if name != "captum_tracin"}
    scorers |= {"loss": config["scorer"] | {"method": "loss"}} if "loss" in scorers else {}
    config["speed"] |= {"scorers": scorers}
    return base(seed, 0.0) | {
        "task": "speed",
        "config": config,
        "speed": found,
        "overrides": [f"model={model}", f"seed={seed}"],
    }


def test_the_headline_has_factors_intervals_and_losses() -> None:
    """Of the larger model, whichever comes first; intervals are those of SciPy on logarithms."""
    each = [(40.0, 0.2), (50.0, 0.21), (62.0, 0.19)]
    results = [
        timed(seed, "cnn", {"loss": b, "ekfac": a, "mid": 1 + (-1) ** seed / 9})
        for seed, (a, b) in enumerate(each)
    ]
    results += [
        timed(seed, "mlp", {"loss": b, "ekfac": 2 * a, "mid": 1.5 + seed / 9}) for seed, (a, b) in enumerate(each)
    ]
    page = timing_page(results, "x")
    logs = np.log([40, 50, 62])
    low, high = np.exp(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))
    assert page.title == "x: how many times as long as ip do other scorers take?"
    assert page.headline.splitlines() == [
        "On 256 training and 64 validation samples (cnn), other scorers take this many times as long as ip "
        "(95 % intervals over 3 seeds).",
        f"Slower than ip: ekfac {stats.gmean([40, 50, 62]):.3g} ({low:.3g} to {high:.3g}).",
        "Faster than ip: loss 0.2 (0.18 to 0.23).",
        "Not distinguishable from ip: mid 1.03 (0.75 to 1.42).",
        "Over all workloads, faster than ip or not distinguishable: "
        "mid on 256 x 64 (cnn), 1,024 x 64 (cnn), 1,024 x 256 (cnn); loss on all.",
    ]
    overview, _, table, *_ = page.sections
    assert [(row[0], row[1].split()[0], row[2].split()[0]) for row in overview.rows] == [
        ("ekfac", "49.9", "99.7"),
        ("mid", "1.03", "1.61"),
        ("loss", "0.2", "0.2"),
    ]
    assert "cnn" in table.heading
    assert table.header[1:] == ("256 x 64", "1,024 x 64", "1,024 x 256")
    assert [row[0] for row in table.rows] == ["ekfac", "mid", "loss", "ip, seconds"]
    assert page.sections[-2].name == "models_1"


def test_one_run_says_that_it_has_no_interval() -> None:
    lines = timing_page([timed(0, "mlp", {"ekfac": 4.0})], "x").headline.splitlines()
    assert lines[0].endswith("take this many times as long as ip (one seed: no interval).")
    assert lines[1:] == [
        "Slower than ip: ekfac 4.",
        "Over all workloads, faster than ip or not distinguishable: none.",
    ]


def test_what_was_not_run_and_what_is_not_installed(tmp_path: Path) -> None:
    missing = {"dattri_trak": "dattri"}
    found = timed(0, "mlp", {"ekfac": 4.0, "lissa": 90.0}, missing=missing)
    for work in found["speed"]["works"][1:]:
        work["rivals"]["lissa"] = {"skipped": {"train": 256, "validation": 64, "seconds": 9.0}}
    page = timing_page([found], "x")
    sections = {section.name: {row[0]: row[1:] for row in section.rows} for section in page.sections}
    assert sections["factors_1"]["lissa"] == ("90", "not run", "not run")
    assert sections["scorers_1"]["dattri_trak"][1] == "not installed: pip install -e '.[peers]'"
    write_page(page, tmp_path)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        "seconds_training_1.svg",
        "seconds_validation_1.svg",
    }
    numbers = pd.read_csv(tmp_path / "tables/factors_1.csv")
    assert numbers.columns.tolist() == ["scorer", "train", "validation", "seconds", "factor", "seeds"]
    assert numbers["scorer"].tolist() == ["ip", "ekfac", "lissa", "ip", "ekfac", "ip", "ekfac"]
    assert "not installed" in (tmp_path / "report.md").read_text("utf-8")


def test_a_scorer_that_some_seeds_skipped_has_their_number_and_no_part_in_the_overview() -> None:
    results = [timed(seed, "mlp", {"ekfac": 4.0 + seed}) for seed in range(3)]
    results[0]["speed"]["works"][2]["rivals"]["ekfac"] = {
        "skipped": {"train": 256, "validation": 64, "seconds": 9}
    }
    page = timing_page(results, "x")
    ((_, *cells), _) = page.sections[1].rows
    assert cells[2].endswith(", 2 of 3 seeds")
    assert cells[2].startswith(f"{stats.gmean([5, 6]):.3g} (")
    assert page.sections[0].rows[0][2] == cells[0]  # the highest of all seeds, not of two


@pytest.mark.parametrize(
    ("agreement", "warning"), [(1.0, ""), (0.9, "captum_tracin should return the scores of ip")]
)
def test_whether_libraries_compute_the_same_is_checked(agreement: float, warning: str) -> None:
    found = timed(0, "mlp", {"captum_tracin": 9.0})
    for work in found["speed"]["works"]:
        work["rivals"]["captum_tracin"]["agreement"] = agreement
    page = timing_page([found], "x")
    assert page.warning.startswith(warning)
    assert bool(page.warning) is bool(warning)
    assert "the same scores: captum_tracin" in page.sections[-1].text


def test_runs_on_two_devices_or_versions_are_apart() -> None:
    """One seed under two versions is two settings: no mean is over both, whatever the factors."""
    results = [timed(seed, "mlp", {"ekfac": 4.0}) for seed in (0, 1)]
    results += [timed(seed, "mlp", {"ekfac": 40.0}) | {"device": "cuda"} for seed in (0, 1)]
    page = timing_page(results, "x")
    tables = [section for section in page.sections if section.name.startswith("factors")]
    assert [table.heading for table in tables] == [
        f"Times as long as ip: device {device}, no. {number}, 1,000 parameters"
        for number, device in ((1, results[0]["device"]), (2, "cuda"))
    ]
    assert [table.rows[0][1] for table in tables] == ["4", "40"]
    assert [set(table.data["seeds"]) for table in tables if table.data is not None] == [{2}, {2}]
    assert not any(section.name.startswith("models") for section in page.sections)


def test_each_scorer_of_a_sweep_is_compared_by_itself() -> None:
    """The factors beside ip and beside loss are of two things: no mean is over both."""
    results = [timed(seed, "mlp", {"ekfac": 4.0}) for seed in (0, 1)]
    for seed in (0, 1):
        other = timed(seed, "mlp", {"ekfac": 40.0})
        other["config"]["scorer"] |= {"name": "loss", "method": "loss"}
        other["overrides"] += ["scorer=loss"]
        results.append(other)
    page = timing_page(results, "x")
    rows = {section.heading: section.rows for section in page.sections if section.name.startswith("factors")}
    assert [rows[f"Times as long as {name}: this model, 1,000 parameters"][0][1] for name in ("ip", "loss")] == [
        "4",
        "40",
    ]
    assert "as long as loss (95 % intervals over 2 seeds)" in page.headline
    assert page.sections[-1].rows[0][1] == "-loss_i, one forward pass"
