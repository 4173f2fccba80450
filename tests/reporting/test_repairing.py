"""The page of task=repair: what is called better and worse, by measures of which some are better when lower."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from defense.config.choices import Measure
from defense.reporting.compare import compare
from defense.reporting.frame import settings_of
from defense.tasks.repair.measures import MEASURES
from defense.tasks.repair.report import answer_by_measure, measures_in, repair_page
from tests.cli.test_report import swept


def cell(seed: int, scorer: str, gain: float, gap: float) -> dict[str, Any]:
    """Return the result of a run whose defended arm gains in accuracy, and whose gap changes."""
    result = swept(seed, gain, scorer)
    spread = 0.1 * (-1) ** seed
    arms = {
        "baseline": {"accuracy": 80.0, "demographic_parity": 20.0, "equal_opportunity": 10.0},
        "control": {"accuracy": 80.0 + spread, "demographic_parity": 20.0, "equal_opportunity": 10.0 - spread},
        "defended": {
            "accuracy": 80.0 + gain + 2 * spread,
            "demographic_parity": 20.0 + gap + spread,
            "equal_opportunity": 10.0 + spread,
        },
    }
    config = result["config"] | {"objective": {"weights": {"demographic_parity": 1.0}, "positive": 1}}
    found = {"auc": None, "precision": None, "recall": None, "noise": None}
    return result | {"arms": arms, "config": config, "task": "repair", "selection": found}


RESULTS = [
    cell(seed, scorer, gain, gap)
    for seed in range(5)
    for scorer, gain, gap in (("ip", -3, -8), ("loss", 2, 5), ("random", 0, 0))
]


def test_a_gap_that_falls_is_better_and_one_that_grows_worse() -> None:
    rows = compare(settings_of(RESULTS), MEASURES[Measure.demographic_parity].metric)
    assert {row.setting.row: row.word for row in rows} == {
        "ip": "best",
        "loss": "worse",
        "random": "not distinguishable",
    }
    text = answer_by_measure(rows)
    assert text.startswith(
        "Demographic parity gap: 1 of 2 settings is better than random removal, 1 worse (random not counted), "
        "corrected for 3 comparisons (Holm). Best: ip at 12.0 points, -8.0 points against random removal "
        "(95 % interval over 5 seeds: -8."
    )
    assert text.endswith("; 20.0 points without treatment.")


def test_accuracy_that_falls_is_worse() -> None:
    rows = compare(settings_of(RESULTS), MEASURES[Measure.accuracy].metric)
    assert {row.setting.row: row.word for row in rows}["ip"] == "worse"


@pytest.mark.parametrize(("flagged", "said"), [(3, "ip (90 % of class c|t)"), (2, "")])
def test_a_treatment_of_one_class_is_said_if_half_of_the_runs_say_so(flagged: int, said: str) -> None:
    """Results of before that was counted say nothing of it."""
    one = {"class": {"index": 1, "name": "c|t"}, "treated": 9, "of": 10, "training": 20, "wrong": None, "p": 1e-6}
    counted = [
        result
        | (
            {"one_class": one | {"flagged": result["seed"] < flagged}}
            if "scorer=ip" in result["overrides"]
            else {}
        )
        for result in RESULTS
    ]
    facts = [fact for fact in repair_page(counted, "sweep").notes if fact.startswith("Of the treated samples")]
    advice = "; with treatment.balance=class the budget is spent in every class alike."
    assert facts == (
        [f"Of the treated samples more are of one class than by chance: {said}{advice}"] if said else []
    )


def test_the_page_of_one_run_counts_the_treated_of_one_class() -> None:
    one = {"class": {"index": 1, "name": "cat"}, "treated": 9, "of": 10, "training": 20, "wrong": None, "p": 1e-6}
    for flagged in (True, False):
        facts = repair_page([RESULTS[0] | {"one_class": one | {"flagged": flagged}}], "run").notes
        said = "9 of the 10 treated samples are of class cat, as are 20 of the 100 training samples; with"
        assert any(fact.startswith(said) for fact in facts) is flagged


def test_how_many_wrong_labels_are_found_is_said_with_its_interval() -> None:
    """Of ip 0.5, 0.6, 0.4, 0.5 and 0.5; others find half of that."""
    ways = (0.5, 0.6, 0.4, 0.5, 0.5)

    def found(run: dict[str, Any]) -> dict[str, Any]:
        share = ways[run["seed"]] / (1 if "scorer=ip" in run["overrides"] else 2)
        return run | {"selection": {"auc": 0.7, "precision": share, "recall": 0.1, "noise": 0.2}}

    page = repair_page([found(run) for run in RESULTS], "noisy")
    section = next(section for section in page.sections if section.name == "selection")
    rows = {row[0]: row for row in section.rows}
    half = stats.t.ppf(0.975, 4) * np.std(ways, ddof=1) / 5**0.5
    assert rows["ip"][-1] == f"0.50 ({0.5 - half:.2f} to {0.5 + half:.2f})"
    assert rows["ip"][-2] == "0.700"
    assert rows["loss"][-1].startswith("0.25 (")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": None, "balance": "none"}, "remove 10 %"),
        ({"threshold": None, "balance": "class"}, "remove 10 % in every class"),
        ({"threshold": -0.5, "balance": "none"}, "remove what scores below -0.5"),
    ],
)
def test_what_is_treated_is_what_the_run_was_told(changes: dict[str, Any], said: str) -> None:
    config = RESULTS[0]["config"]
    told = config | {"treatment": {"name": "remove", "budget": 0.1, **changes}}
    facts = repair_page([result | {"config": told} for result in RESULTS], "x").notes
    assert any(f"; {said}; 100 training" in fact for fact in facts)


def test_samples_that_others_have_attacked_are_named_with_the_data() -> None:
    config = RESULTS[0]["config"]
    told = config | {"data": config["data"] | {"path": "train.tsv", "given_path": "dev.json"}}
    facts = repair_page([result | {"config": told} for result in RESULTS], "x").notes
    assert any("train.tsv, attacked by others: dev.json" in fact for fact in facts)


def test_one_seed_is_not_judged() -> None:
    rows = compare(settings_of(RESULTS[:3]), MEASURES[Measure.accuracy].metric)
    assert {row.word for row in rows} == {"not judged: one seed"}
    text = answer_by_measure(rows)
    assert text.startswith("Accuracy: One seed: the intervals that a judgement needs are over seeds")
    assert text.endswith("Differences from random removal, points: ip -2.9; loss +2.1.")


def test_what_the_objective_is_about_comes_first() -> None:
    assert str(measures_in(RESULTS)[0]) == "demographic_parity"
    page = repair_page(RESULTS, "fairness")
    assert page.headline.startswith("Demographic parity gap: 1 of 2 settings is better than random removal")
    names = [section.name for section in page.sections]
    assert names[:2] == ["demographic_parity_1", "accuracy_1"]
    assert "pareto_demographic_parity_1" in names
    first = page.sections[0]
    assert first.rows[0][0] == "ip"  # the best, which is the lowest
    assert first.data is not None
    assert first.data.set_index("scorer")["gain"]["ip"] == pytest.approx(-8.0, abs=0.2)


def test_chance_that_is_called_different_from_chance_is_said() -> None:
    lucky = [
        cell(result["seed"], "random", 0, 4) if "scorer=random" in result["overrides"] else result
        for result in RESULTS
    ]
    (note,) = [note for note in repair_page(lucky, "fairness").notes if "by luck alone" in note]
    assert note.endswith(
        "by luck alone: random +4.0 (+3.9 to +4.2; worse) by demographic parity gap. Read small "
        "differences with care."
    )
    assert not [note for note in repair_page(RESULTS, "fairness").notes if "by luck alone" in note]


def test_gaps_are_drawn_where_there_are_groups_whatever_comes_first() -> None:
    def without(result: dict[str, Any]) -> dict[str, Any]:
        arms = {arm: {"accuracy": values["accuracy"]} for arm, values in result["arms"].items()}
        return result | {
            "arms": arms,
            "overrides": [*result["overrides"], "data=blobs"],
            "config": result["config"] | {"data": result["config"]["data"] | {"source": "blobs"}},
        }

    with_groups = [result | {"overrides": [*result["overrides"], "data=adult"]} for result in RESULTS]
    plain = [without(result) for result in RESULTS]
    for results in ([*with_groups, *plain], [*plain, *with_groups]):
        headings = [
            section.heading for section in repair_page(results, "both").sections if "pareto" in section.name
        ]
        assert headings == [
            f"{gap} gap against accuracy: adult" for gap in ("Demographic parity", "Equal opportunity")
        ]


def test_forests_of_one_measure_share_their_axis() -> None:
    """Gains of -3 to 2 points on one data set, ten times as much on the other."""

    def larger(run: dict[str, Any]) -> dict[str, Any]:
        gain = run["arms"]["defended"]["accuracy"] - 80
        defended = run["arms"]["defended"] | {"accuracy": 80 + 10 * gain}
        config = run["config"] | {"data": run["config"]["data"] | {"source": "blobs"}}
        arms = run["arms"] | {"defended": defended}
        return run | {"arms": arms, "config": config, "overrides": [*run["overrides"], "data=blobs"]}

    small = [run | {"overrides": [*run["overrides"], "data=adult"]} for run in RESULTS]
    sections = {one.name: one.chart for one in repair_page([*small, *map(larger, RESULTS)], "x").sections}
    ticks = [re.findall(r">([−\d.]+)</text>", sections[f"accuracy_{number}"]) for number in (1, 2)]
    assert ticks[0] == ticks[1] != []


def test_a_control_is_drawn_where_all_settings_have_the_same() -> None:
    def chart(results: list[dict[str, Any]]) -> tuple[str, str]:
        page = repair_page(results, "fairness")
        (section,) = (section for section in page.sections if section.name == "pareto_demographic_parity_1")
        return section.chart, section.text

    drawn, text = chart(RESULTS)
    assert ">control<" in drawn
    assert "No control is drawn" not in text
    flipped = [
        result
        | {
            "overrides": [*result["overrides"], "treatment=relabel"],
            "config": result["config"] | {"treatment": result["config"]["treatment"] | {"name": "relabel"}},
            "arms": result["arms"] | {"control": result["arms"]["baseline"]},
        }
        for result in RESULTS
    ]
    drawn, text = chart(
        [*(run | {"overrides": [*run["overrides"], "treatment=remove"]} for run in RESULTS), *flipped]
    )
    assert ">control<" not in drawn
    assert "No control is drawn" in text


def test_sweeps_of_two_names_on_one_ground_are_counted_apart() -> None:
    named = [run | {"name": "chance" if "scorer=random" in run["overrides"] else "scores"} for run in RESULTS]
    facts = [fact for fact in repair_page(named, "both").notes if fact.startswith(("scores: ", "chance: "))]
    assert [fact.rpartition("; ")[2] for fact in facts] == ["2 settings, 10 runs.", "1 setting, 5 runs."]
