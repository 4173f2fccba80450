"""The trusted arm in words and in the tables of a sweep, by numbers that are known."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from defense.cli.report import main, page_of
from defense.config.compose import composed
from defense.config.schema import plain
from defense.reporting.arms import arm_in_words, arms_of, header
from defense.reporting.charts import GREENS, colours_of
from defense.reporting.frame import settings_of
from defense.reporting.statistics import tango
from defense.tasks.defend.result import difference
from defense.tasks.defend.verdict import trusted_said, verdict
from tests.cli.test_report import result, swept
from tests.reporting.cells import leave
from tests.reporting.test_verdict import run

HEALTHY = {"conclusive": True}
SAID = "Training on the trusted validation samples too, with nothing treated, reaches"


def test_arms_have_an_order_and_words() -> None:
    arms = ["proxy", "trusted_10", "defended", "trusted", "control", "trusted_2.5", "baseline", "scored model"]
    found = arms_of(arms)
    assert found == ["baseline", "control", "defended", "trusted", "trusted_2.5", "trusted_10", "proxy"]
    assert [arm_in_words(arm) for arm in found[3:6]] == ["trusted", "trusted x2.5", "trusted x10"]
    assert header(["control", "trusted_3"]) == (
        "test accuracy, %",
        "control",
        "trusted x3",
        "defended - control (95 %)",
    )
    assert list(colours_of(arms)) == found
    assert [colours_of(arms)[arm] for arm in found[3:6]] == list(GREENS[:3])


def whole(**right: int) -> Any:
    """A run with all that a verdict looks at."""
    found = run(500, **right)
    scores = pd.DataFrame({"prediction": [0, 1], "label": [0, 1]})
    data = SimpleNamespace(train=range(2), classes=2)
    return SimpleNamespace(
        arms=found.arms,
        controls=found.controls,
        further_controls={},
        data=data,
        scores=scores,
        config=composed(),
        candidates=None,
        descent=None,
        settings=plain(composed()),
    )


def test_the_verdict_names_a_trusted_arm_that_is_higher_with_its_interval() -> None:
    """Of 500 samples 13 more are right: 2.6 points, with Tango's interval."""
    arms = {"baseline": 300, "control": 310, "defended": 350}
    low, high = (100 * end for end in tango(13, 0, 500, confidence=0.95))
    sentence = f"{SAID} 72.6 %, 2.6 points more than the defended arm (95 % interval over test samples "
    told = verdict(whole(**arms, trusted=363), HEALTHY)
    assert told.endswith(f"{sentence}{low:+.1f} to {high:+.1f}).")
    assert told.startswith("Removing the 1 of 2 training samples")
    for count in (350, 349, 0):
        assert "trusted" not in verdict(whole(**arms, trusted=count), HEALTHY)
    assert "trusted" not in verdict(whole(**arms), HEALTHY)


def test_of_several_trusted_arms_the_highest_is_named() -> None:
    arms = {"baseline": 300, "control": 310, "defended": 350}
    told = trusted_said(whole(**arms, trusted=351, trusted_3=349, trusted_10=360))
    assert told.startswith(
        "Training on the trusted validation samples too, which weigh 10 times as much as others, with nothing "
        "treated, reaches 72.0 % (the highest of 3 trusted arms), 2.0 points more than the defended arm"
    )
    assert trusted_said(whole(**arms, trusted=360, trusted_3=360)).startswith(SAID)


def test_a_trusted_arm_differs_from_one_in_which_nothing_was_treated() -> None:
    """The others are one model then."""
    found = run(50, treated=False, baseline=7, control=7, defended=7, trusted=20)
    assert difference(found, "clean", second="control").as_json("samples")["low"] is None
    gap = difference(found, "clean", first="trusted", second="defended")
    assert gap.mean == 26.0
    assert gap.low > 0


def cells(seeds: int = 5, **gaps: tuple[float, ...]) -> list[dict[str, Any]]:
    """Runs of two scorers whose defended arm gains 5 points, and whose trusted arms have these gaps above it."""
    found = []
    for seed in range(seeds):
        for number, scorer in enumerate(("ip", "loss")):
            cell = swept(seed, 5.0 + 0.1 * seed, scorer)
            cell["config"]["evaluation"] = {"checked": 0, "trusted": bool(gaps)}
            worst = cell["arms"]["defended"]["adaptive"]["worst"]
            for arm, each in gaps.items():
                own = copy.deepcopy(cell["arms"]["baseline"])
                own["adaptive"] = dict.fromkeys(("pgd", "worst"), worst + each[seed] + 4 * number)
                cell["arms"][arm] = own
            found.append(cell)
    return found


GAPS = (1.0, 2.5, 0.5, 3.0, -0.5)


def column(page: Any, name: str) -> list[str]:
    section = next(section for section in page.sections if name in section.header)
    return [str(row[section.header.index(name)]) for row in section.rows]


def test_a_sweep_judges_the_gain_over_the_trusted_arm_as_that_over_the_control() -> None:
    """By hand: scipy's paired t test of both settings, and Holm's correction of the two p-values."""
    page = page_of(cells(trusted=GAPS))
    defended = np.array([46.0 + 0.1 * seed for seed in range(5)])
    trusted = [defended + np.array(GAPS), defended + np.array(GAPS) + 4]
    p = [float(stats.ttest_rel(defended, own).pvalue) for own in trusted]
    assert p[1] < 0.05 < p[0]
    half = stats.t.ppf(0.975, 4) * stats.sem(GAPS)
    mean = float(np.mean(GAPS))
    assert column(page, "over trusted (95 %)") == [
        f"{-mean:+.1f} ({-mean - half:+.1f} to {-mean + half:+.1f})",
        f"{-mean - 4:+.1f} ({-mean - 4 - half:+.1f} to {-mean - 4 + half:+.1f})",
    ]
    data = next(section for section in page.sections if section.name == "settings").data
    assert data is not None
    assert data["gain_over_trusted_p_t"].tolist() == pytest.approx(p)
    assert data["gain_over_trusted_p_holm"].tolist() == pytest.approx([p[0], min(1, 2 * p[1])])
    assert column(page, "against trusted") == ["not distinguishable", "worse"]
    assert column(page, "trusted") == [f"{own.mean():.1f}" for own in trusted]
    assert (
        "Training on the trusted validation samples too, with nothing treated, is higher in 2 of 2 settings. By "
        "more than chance, 0 settings are better than such training and 1 worse."
    ) in page.headline
    runs = next(section for section in page.sections if section.name == "cells")
    assert "trusted" in runs.header
    tests = next(section for section in page.sections if section.name == "tests")
    assert "Trusted: trained on the validation samples too" in tests.text


def test_the_answer_says_how_the_treatment_compares_with_it() -> None:
    lower = tuple(gap - 9 for gap in GAPS)
    assert page_of(cells(trusted=lower)).headline.endswith(
        "is higher in 0 of 2 settings. By more than chance, 2 settings are better than such training and 0 worse."
    )
    assert "Training on" not in page_of(cells()).headline
    one = [cell for cell in cells(trusted=GAPS) if cell["config"]["scorer"]["name"] == "ip"]
    half = stats.t.ppf(0.975, 4) * stats.sem(GAPS)
    mean = float(np.mean(GAPS))
    assert (
        f"{SAID} 47.5 %: ip gains {-mean:+.1f} ({-mean - half:+.1f} to {-mean + half:+.1f}) points "
        "over it (not distinguishable)."
    ) in page_of(one).headline
    (single,) = [cell for cell in one if cell["seed"] == 0]
    assert f"{SAID} 47.0 %: ip gains -1.0 points over it (not judged: one seed)." in page_of([single]).headline


def test_weighted_arms_have_columns_and_sentences_of_their_own() -> None:
    page = page_of(cells(trusted=tuple(gap - 9 for gap in GAPS), trusted_3=GAPS))
    assert len(column(page, "over trusted x3 (95 %)")) == 2
    assert column(page, "against trusted") == ["better", "better"]
    assert page.headline.count("Training on") == 2
    assert "which weigh 3 times as much as others, with nothing treated, is higher in 2 of 2" in page.headline


def test_results_of_before_are_drawn_alone_and_beside_others(tmp_path: Path) -> None:
    """Those without a trusted arm have no cell where others have one, and are on the same ground."""
    assert "trusted" not in str(page_of(cells()))
    old = [cell for cell in cells() if cell["config"]["scorer"]["name"] == "ip"]
    for cell in old:
        cell["config"]["evaluation"].pop("trusted", None)
    new = [cell for cell in cells(trusted=GAPS) if cell["config"]["scorer"]["name"] == "loss"]
    assert len({setting.group for setting in settings_of([*old, *new])}) == 1
    for number, cell in enumerate([*old, *new]):
        leave(tmp_path / "sweep" / str(number), cell)
    main([str(tmp_path / "sweep")])
    (tmp_path / "again").mkdir()
    main([str(tmp_path / "sweep/cells.parquet"), "--output", str(tmp_path / "again")])
    table = pd.read_csv(tmp_path / "again/tables/settings.csv")
    assert table["trusted"].notna().tolist() == [False, True]
    page = page_of([*old, *new])
    assert column(page, "against trusted") == ["-", "worse"]
    assert column(page, "over trusted (95 %)")[0] == "-"
    rows = pd.read_parquet(tmp_path / "sweep/cells.parquet")
    assert rows.groupby("run")["arm"].apply(list).tolist() == [
        ["baseline", "control", "defended", *(["trusted"] if run >= 5 else [])] for run in range(10)
    ]


def test_a_setting_pairs_the_runs_that_all_have_an_arm() -> None:
    some = [result(seed, 4.0 + seed) for seed in range(3)]
    some[0]["arms"]["trusted"] = some[0]["arms"]["baseline"]
    (setting,) = settings_of(some)
    assert setting.arms == ["baseline", "control", "defended"]
