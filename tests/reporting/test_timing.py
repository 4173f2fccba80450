from __future__ import annotations

from pathlib import Path
from typing import Any

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
    config = plain(DEFAULT) | {"task": "speed"}
    scorers = {name: config["scorer"] | {"name": name} for name in factors if name != "captum_tracin"}
    scorers |= {"loss": config["scorer"] | {"method": "loss"}} if "loss" in scorers else {}
    config["speed"] |= {"scorers": scorers}
    return base(seed, 0.0) | {
        "task": "speed",
        "config": config,
        "speed": found,
        "overrides": [f"model={model}", f"seed={seed}"],
    }


def test_the_first_sentence_answers_with_factors_intervals_and_losses() -> None:
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
    answer = page.headline
    mean = stats.gmean([40, 50, 62])
    assert answer.startswith(f"On cnn, 256 training and 64 validation samples, ip is {mean:.3g} times (")
    assert (
        "as fast as ekfac (means and 95 % intervals over 3 seeds). It is slower than loss, 0.2 times (" in answer
    )
    assert "Not distinguishable from it: mid, 1.03 times (" in answer
    assert "Factors over 6 works, those that each was run on under all seeds: ekfac 49.9 to 99.7" in answer
    assert answer.endswith("mid on cnn 256 x 64, cnn 1,024 x 64, cnn 1,024 x 256; loss on all.")
    table = next(section for section in page.sections if "cnn" in section.heading)
    assert table.header[1:] == ("256 x 64", "1,024 x 64", "1,024 x 256")
    assert [row[0] for row in table.rows] == ["ekfac", "mid", "loss", "ip, seconds"]


def test_one_run_says_that_it_is_one() -> None:
    answer = timing_page([timed(0, "mlp", {"ekfac": 4.0})], "x").headline
    assert "ip is 4 times as fast as ekfac (one seed)." in answer
    assert "not distinguishable: nowhere" in answer


def test_what_was_not_run_and_what_is_not_installed(tmp_path: Path) -> None:
    missing = {"dattri_trak": "dattri"}
    found = timed(0, "mlp", {"ekfac": 4.0, "lissa": 90.0}, missing=missing)
    for work in found["speed"]["works"][1:]:
        work["rivals"]["lissa"] = {"skipped": {"train": 256, "validation": 64, "seconds": 9.0}}
    page = timing_page([found], "x")
    rows = {row[0]: row[1:] for row in page.sections[0].rows}
    assert rows["lissa"] == ("90", "not run", "not run")
    assert rows["dattri_trak"][0] == "not installed: pip install -e '.[peers]'"
    write_page(page, tmp_path)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        "seconds_training_1.svg",
        "seconds_validation_1.svg",
    }
    assert "not installed" in (tmp_path / "report.md").read_text("utf-8")


@pytest.mark.parametrize(("agreement", "said"), [(1.0, "the same scores"), (0.9, "are NOT")])
def test_whether_libraries_compute_the_same_is_said(agreement: float, said: str) -> None:
    found = timed(0, "mlp", {"captum_tracin": 9.0})
    for work in found["speed"]["works"]:
        work["rivals"]["captum_tracin"]["agreement"] = agreement
    assert said in timing_page([found], "x").sections[-1].text
