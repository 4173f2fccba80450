"""Many results on one page: what is a row, what is a column, what is folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.reporting.compare import compare
from defense.reporting.facts import command_of
from defense.reporting.frame import settings_of
from defense.reporting.page import write_page
from defense.tasks.detect.report import AUC, SHARES, detection_page, recall_curve
from defense.tasks.faithfulness.report import correlations, faithfulness_page, seconds_of_a_target
from tests.reporting.test_page import Reader


def result(seed: int, scorer: str, *overrides: str, **content: Any) -> dict[str, Any]:
    base = {"seed": seed, "name": "x", "device": "cpu", "versions": {"torch": "2"}, **content}
    own = ["experiment=e", f"seed={seed}", f"scorer={scorer}", *overrides]
    values = dict(part.split("=") for part in overrides)
    method = scorer if scorer in ("loss", "oracle", "random") else "alignment"
    proxy = values.get("scorer.proxy", "null")
    config = {
        "scorer": {"name": scorer, "method": method, "proxy": None if proxy == "null" else proxy},
        "objective": {"weights": {values.get("objective", "utility"): 1.0}},
        "train": {"recipe": values.get("train", "standard")},
        "treatment": {"name": values.get("treatment", "remove"), "budget": 0.1},
        "task": "detect",
    }
    return base | {"overrides": own, "config": config | content.get("config", {})}


def detected(seed: int, scorer: str, auc: float, *overrides: str) -> dict[str, Any]:
    return result(
        seed,
        scorer,
        *overrides,
        selection={"auc": auc, "precision": None},
        recall_curve=[float(share) for share in SHARES],
    )


RESULTS = [
    detected(0, "ip", 0.70, "objective=utility"),
    detected(1, "ip", 0.80, "objective=utility"),
    detected(1, "ip", 0.80, "objective=utility"),
    detected(0, "ip", 0.60, "objective=robustness"),
    detected(0, "loss", 0.90, "objective=utility"),
    detected(0, "loss", 0.95, "objective=utility", "scorer.proxy=adversarial"),
    detected(0, "oracle", 1.0, "objective=utility", "scorer.proxy=null"),
]


def test_rows_are_scorers_columns_the_rest_and_seeds_are_folded() -> None:
    """The objective is a part of the row if the scorer looks at one; the same run found twice counts once."""
    settings = settings_of(RESULTS)
    assert [setting.row for setting in settings] == [
        "ip, utility", "ip, robustness", "loss", "loss proxy=adversarial", "oracle",
    ]  # fmt: skip
    assert [setting.scorer for setting in settings][:2] == ["ip", "ip"]
    assert [setting.where for setting in settings][:2] == ["utility", "robustness"]
    assert {setting.column for setting in settings} == {""}
    assert settings[0].seeds == [0, 1]
    assert [run["selection"]["auc"] for run in settings[0].runs] == [0.70, 0.80]


def test_the_commands_are_those_that_were_run() -> None:
    """Of each sweep its own, of a run on its own what it was given; no grid is made up from cells."""
    assert command_of(RESULTS[1:4]).splitlines() == [
        "defense experiment=e seed=1 scorer=ip objective=utility   # 2 cells",
        "defense experiment=e seed=0 scorer=ip objective=robustness",
    ]
    sweeps = [found | {"command": f"defense -m scorer={scorer}"} for scorer in "abb" for found in RESULTS[:2]]
    assert command_of([*sweeps, RESULTS[4]]).splitlines() == [
        "defense -m scorer=a   # 2 cells",
        "defense -m scorer=b   # 4 cells",
        "defense experiment=e seed=0 scorer=loss objective=utility",
    ]
    many = command_of([detected(seed, "ip", 0.5) for seed in range(40)]).splitlines()
    assert len(many) == 13
    assert many[-1] == "# and 28 commands more, each in the result.json of its run"


def test_runs_of_several_names_are_columns_of_their_own() -> None:
    other = [
        detected(0, scorer, 0.5, "objective=utility", "data=npz") | {"name": "mnist"} for scorer in ("ip", "loss")
    ]
    settings = settings_of(RESULTS + other)
    assert {setting.where for setting in settings} == {"x, utility", "x, robustness", "mnist"}


def test_a_column_of_grounds_has_the_names_of_their_files() -> None:
    grounds = [detected(0, "ip", 0.5, f"+experiment/faithfulness/lds={name}") for name in ("cnn", "mlp")]
    for ground, name in zip(grounds, ("cnn", "mlp"), strict=True):
        ground["config"]["model"] = name
    assert [setting.column for setting in settings_of(grounds)] == ["cnn", "mlp"]


def test_detection_page(tmp_path: Path) -> None:
    page = detection_page(RESULTS, "noise")
    assert page.headline == (
        "Finding wrong labels: Highest: loss proxy=adversarial at 0.950. Nothing is judged: no run of ip has a "
        "seed and all else in common with another scorer."
    )
    write_page(page, tmp_path)
    table = pd.read_csv(tmp_path / "tables/auc.csv")
    assert table["scorer"].tolist()[:2] == ["oracle", "loss proxy=adversarial"]
    (low,) = table["auc_low"].dropna()  # of ip under utility alone: two values 0.1 apart, t = 12.7
    half = 0.05 * 12.706
    assert low == pytest.approx(0.75 - half, abs=1e-3)
    shown = {row[0]: row[page.sections[0].header.index("ROC AUC (95 %)")] for row in page.sections[0].rows}
    assert shown["ip, utility"] == "0.750 (0.115 to 1.000)"
    assert 'class="sortable"' in (tmp_path / "report.html").read_text("utf-8")
    reader = Reader()
    reader.feed((tmp_path / "report.html").read_text("utf-8"))
    assert reader.open == []
    assert not [source for source in reader.sources if source.startswith("http")]
    text = (tmp_path / "report.md").read_text("utf-8")
    assert all(f"\n    {command}\n" in text for command in page.command.splitlines())
    for figure in ("recall_1",):
        assert f"figures/{figure}.svg" in text
        assert (tmp_path / f"figures/{figure}.svg").read_text("utf-8").startswith("<svg")


def test_scorers_are_compared_with_ip_seed_by_seed_and_chance_is_not_counted() -> None:
    """By hand: loss is 0.1 above ip, give or take 0.01; oracle is higher and is not counted."""
    cells = [
        detected(seed, scorer, level + 0.05 * seed + shift * (-1) ** seed)
        for seed in range(4)
        for scorer, level, shift in (("oracle", 0.8, 0.02), ("ip", 0.6, 0), ("loss", 0.7, 0.01))
    ]
    assert detection_page(cells, "x").headline == (
        "Finding wrong labels: loss is better than ip (oracle not counted), corrected for 2 comparisons (Holm). "
        "Best: loss at 0.775, +0.100 over ip (95 % interval over 4 seeds: +0.082 to +0.118)."
    )


def test_without_ip_values_are_told_and_nothing_is_compared() -> None:
    cells = [detected(seed, scorer, auc) for seed in range(3) for scorer, auc in (("datainf", 0.8), ("loss", 0.7))]
    assert detection_page(cells, "x").headline == (
        "Finding wrong labels: Highest: datainf at 0.800. Nothing is judged: no run of ip has a seed and all "
        "else in common with another scorer."
    )
    single = detection_page([detected(0, "ip", 0.895)], "x").headline
    assert single.startswith("Finding wrong labels: Highest: ip at 0.895.")


def test_perfect_knowledge_is_the_highest_of_nothing_whatever_its_row_is_called() -> None:
    """No scorer here reads its count, so that the two runs of each are one, with the overrides of the last."""
    cells = [
        detected(0, scorer, auc, f"scorer.count={count}")
        for scorer, auc in (("oracle", 1.0), ("random", 0.9), ("ip", 0.7), ("loss", 0.8))
        for count in (1, 2)
    ]
    told = "Finding wrong labels: Highest: "
    assert detection_page(cells, "x").headline.startswith(f"{told}loss count=2 at 0.800.")
    assert detection_page(cells[:4], "x").headline.startswith(f"{told}oracle count=2 at 1.000.")
    assert detection_page(cells[:6], "x").headline.startswith(f"{told}ip count=2 at 0.700.")


def test_ip_itself_may_be_the_highest() -> None:
    cells = [
        detected(seed, scorer, auc + 0.01 * seed + shift * (-1) ** seed)
        for seed in range(4)
        for scorer, auc, shift in (("ip", 0.9, 0), ("loss", 0.7, 0.01))
    ]
    said = detection_page(cells, "x").headline
    assert said.startswith("Finding wrong labels: loss is worse than ip. Highest: ip at 0.915 (0.89")
    assert "by chance" not in said


def test_a_scorer_is_compared_with_ip_of_its_own_device_and_with_no_ip_of_two_objectives() -> None:
    """Differences by hand: 0.1 on the CPU, 0.2 on the GPU; a loss reads no objective, and there are two of ip."""
    found = [
        detected(seed, scorer, auc + 0.01 * seed) | {"device": device}
        for seed in range(3)
        for device, gain in (("cpu", 0.1), ("cuda:0", 0.2))
        for scorer, auc in (("ip", 0.5), ("loss", 0.5 + gain))
    ]
    rows = {row.setting.row: row for row in compare(settings_of(found), AUC)}
    assert {name: round(row.gain, 9) for name, row in rows.items()} == {
        "ip": 0, "loss": 0.1, "ip (2)": 0, "loss (2)": 0.2,
    }  # fmt: skip
    for order in (1, -1):
        assert [row.pair for row in compare(settings_of(RESULTS[::order]), AUC)] == [None] * 5


@pytest.mark.parametrize("changes", [{"versions": {"torch": "3"}}, {"device": "cuda:0"}])
def test_two_runs_that_are_not_the_same_are_no_repetition(changes: dict[str, Any]) -> None:
    """Their commands are the same: neither takes the other's place, and they are numbered apart."""
    rows = detection_page([*RESULTS, RESULTS[0] | changes], "x").sections[0].rows
    assert {row[0] for row in rows} >= {"ip, utility", "ip, utility (2)"}


def test_a_proxy_that_is_not_looked_at_is_a_repetition() -> None:
    cells = [detected(0, "oracle", 1.0, f"scorer.proxy={proxy}") for proxy in ("null", "adversarial")]
    cells += [detected(0, "loss", 0.9, f"scorer.proxy={proxy}") for proxy in ("null", "standard", "adversarial")]
    rows = detection_page(cells, "x").sections[0].rows
    assert [row[:2] for row in rows] == [
        ("oracle", "1.000"), ("loss", "0.900"), ("loss proxy=adversarial", "0.900"),
    ]  # fmt: skip


def test_recall_is_what_a_loop_counts() -> None:
    rng = np.random.default_rng(0)
    scores, noisy = rng.normal(size=50), rng.random(50) < 0.3
    order = sorted(range(50), key=lambda row: scores[row])
    found = recall_curve(scores, noisy)
    for share, value in zip(SHARES, found, strict=True):
        lowest = order[: round(share * 50)]
        assert value == pytest.approx(sum(noisy[row] for row in lowest) / noisy.sum())


def foreseen(seed: int, scorer: str, spearman: float, seconds: float) -> dict[str, Any]:
    content = {"faithfulness": {"spearman": spearman, "targets": [spearman], "retrainings": 9, "seconds": seconds}}
    config = {"faithfulness": {"subsets": "halves", "targets": 1}, "objective": {"weights": {"robustness": 1.0}}}
    config["task"] = "faithfulness"
    scoring = {"record": {"model utility residual": 0.01 * seed, "a": 7.0} if scorer == "ekfac" else {}}
    return result(seed, scorer, scoring=scoring, sizes={"train": 10, "validation": 5}, config=config, **content)


def test_faithfulness_page(tmp_path: Path) -> None:
    results = [foreseen(seed, "ip", 0.3 + 0.1 * seed, 2.0) for seed in (0, 1, 2)]
    results += [foreseen(3, "ekfac", 0.5, 9.0)]
    page = faithfulness_page(results, "lds")
    assert page.headline.startswith("Foreseeing retraining on random halves (linear datamodelling score): ")
    assert "attacked at the baseline" in page.sections[0].text
    write_page(page, tmp_path)
    rows = (tmp_path / "tables/cost_1.csv").read_text("utf-8").splitlines()
    assert rows[1:] == ["ekfac,0.03,9.00,4.5", "ip,-,2.00,1.0"]
    table = page.sections[0]
    column = table.header.index("rank correlation (95 %)")
    assert [(row[0], row[column]) for row in table.rows] == [
        ("ekfac", "+0.500"), ("ip", "+0.400 (+0.152 to +0.648)"),
    ]  # fmt: skip


def test_faithfulness_page_of_samples_dropped_at_weight_zero() -> None:
    """The correlation with validation attacked anew comes first, then that at the baseline and of single ones."""
    spec = {"subsets": "random", "dropped": 0.05, "by": "weight", "fresh": True, "targets": 1, "singles": 20}
    results = [foreseen(seed, "ip", 0.3, 2.0) for seed in (0, 1)]
    for found in results:
        found["config"]["faithfulness"] = spec
        found["faithfulness"] |= {"frozen": 0.2 + 0.1 * found["seed"], "singles": -0.1}
    section, costs = faithfulness_page(results, "lds").sections
    assert section.rows[0][:2] == ("ip", "+0.300")
    assert costs.header[:3] == ("scorer", "attacked at the baseline", "single samples")
    ((_, frozen, single, *_),) = costs.rows
    assert (frozen.split()[0], single) == ("+0.250", "-0.100")
    said = (
        "retraining with a random 5 % at weight 0 (linear datamodelling score), each from first weights of its own"
    )
    assert said in section.text
    assert "mean correlation over 20 of them" in section.text


def test_a_trajectory_counts_for_each_target() -> None:
    stages = {
        "trajectory": 5.0,
        "metagradient_target0": 1.0,
        "metagradient_target1": 2.0,
        "metagradient_target2": 9.0,
    }
    others = {"train_baseline": 50.0, "smoothness": 7.0, "metagradient_single0": 40.0}
    assert seconds_of_a_target(stages | others) == 7
    assert seconds_of_a_target({"score": 3.0, "train_baseline": 50.0}) == 3


def test_faithfulness_is_the_rank_correlation_over_retrainings() -> None:
    predicted, measured = np.array([[1.0, 2, 3, 4]]), np.array([[10.0, 20, 40, 30]])
    assert correlations(predicted, measured) == [pytest.approx(0.8)]
    assert correlations(np.ones((1, 4)), measured) == [0]


def test_every_part_of_the_faithfulness_page_says_what_its_own_numbers_are() -> None:
    results = [foreseen(0, "ip", 0.3, 2.0), foreseen(0, "ip", 0.9, 2.0)]
    for found, kind, count in zip(results, ("halves", "leave_one_out"), (9, 40), strict=True):
        found["overrides"].append(f"faithfulness.subsets={kind}")
        found["config"]["faithfulness"] = {"subsets": kind, "targets": 1}
        found["faithfulness"]["retrainings"] = count
    results[1]["config"]["objective"] = {"weights": {"utility": 1.0}}
    page = faithfulness_page(results, "x")
    first, second = (section.text for section in page.sections if section.name.startswith("faithfulness"))
    assert "random halves" in first
    assert "9 retrainings" in first
    assert "attacked at the baseline" in first
    assert "leave-one-out" in second
    assert "40 retrainings" in second
    assert "attacked at the baseline" not in second
