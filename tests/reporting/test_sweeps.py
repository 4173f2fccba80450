"""Many results on one page: what is a row, what is a column, what is folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defense.errors import InputError
from defense.reporting.page import write_page
from defense.reporting.statistics import mean_interval
from defense.reporting.sweeps import Grid, columns_of, command_of, row_of
from defense.tasks.detect.report import SHARES, detection_page, recall_curve
from defense.tasks.faithfulness.report import correlations, faithfulness_page, interval, seconds_of_a_target
from tests.reporting.test_page import Reader


def result(seed: int, scorer: str, *overrides: str, **content: Any) -> dict[str, Any]:
    base = {"seed": seed, "name": "x", "device": "cpu", "versions": {"torch": "2"}, **content}
    own = ["experiment=e", f"seed={seed}", f"scorer={scorer}", *overrides]
    values = dict(part.split("=") for part in overrides)
    method = scorer if scorer in ("loss", "oracle", "random") else "alignment"
    proxy = values.get("scorer.proxy", "null")
    config = {
        "scorer": {"name": scorer, "method": method, "proxy": None if proxy == "null" else proxy},
        "objective": values.get("objective"),
        "train": {"recipe": values.get("train", "standard")},
        "treatment": {"name": values.get("treatment", "remove"), "budget": 0.1},
        "task": "detect",
    }
    return base | {"overrides": own, "config": config | content.get("config", {})}


def detected(seed: int, scorer: str, auc: float, *overrides: str) -> dict[str, Any]:
    return result(
        seed, scorer, *overrides, selection={"auc": auc}, recall_curve=[float(share) for share in SHARES]
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


def rows_of(results: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row_of(result, results) for result in results))


def test_rows_are_scorers_columns_the_rest_and_seeds_are_folded() -> None:
    assert rows_of(RESULTS) == ["ip", "loss", "loss proxy=adversarial", "oracle"]
    assert columns_of(RESULTS) == ["utility", "robustness"]
    grid = Grid.of(RESULTS, lambda found: found["selection"]["auc"])
    assert grid.values("ip", "utility") == [0.70, 0.80]
    assert grid.values("loss", "robustness") == []


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
    assert columns_of(RESULTS + other) == ["x, utility", "x, robustness", "mnist"]


def test_a_column_of_grounds_has_the_names_of_their_files() -> None:
    grounds = [detected(0, "ip", 0.5, f"+experiment/faithfulness/lds={name}") for name in ("cnn", "mlp")]
    assert columns_of(grounds) == ["cnn", "mlp"]


def test_an_interval_of_correlations_stays_within_one() -> None:
    assert interval(mean_interval([0.2, 1.0])) == "+0.600 (-1.000 to +1.000)"
    assert interval(mean_interval([0.5, 0.6, 0.7])) == "+0.600 (+0.352 to +0.848)"
    assert interval(mean_interval([0.5])) == "+0.500"
    assert interval(None) == "-"


def test_detection_page(tmp_path: Path) -> None:
    page = detection_page(RESULTS, "noise")
    assert page.headline == (
        "ROC AUC for finding the labels that are wrong: utility: loss proxy=adversarial 0.950 is the highest "
        "of 3, ip 0.750; robustness: ip 0.600."
    )
    write_page(page, tmp_path)
    table = (tmp_path / "tables/auc.csv").read_text("utf-8").splitlines()
    assert table[0] == "scorer,utility,robustness"
    assert table[1] == "oracle,1.000,-"
    assert table[4] == "ip,0.750 (0.115 to 1.000),0.600"  # of two values 0.1 apart: t = 12.7
    assert r"scorer & utility & robustness \\" in (tmp_path / "tables/auc.tex").read_text("utf-8").splitlines()
    assert 'class="sortable"' in (tmp_path / "report.html").read_text("utf-8")
    reader = Reader()
    reader.feed((tmp_path / "report.html").read_text("utf-8"))
    assert reader.open == []
    assert not [source for source in reader.sources if source.startswith("http")]
    text = (tmp_path / "report.md").read_text("utf-8")
    assert all(f"\n    {command}\n" in text for command in page.command.splitlines())
    for figure in ("recall_1", "recall_2"):
        assert f"figures/{figure}.svg" in text
        assert (tmp_path / f"figures/{figure}.svg").read_text("utf-8").startswith("<svg")


def test_perfect_knowledge_is_the_highest_of_nothing_whatever_its_row_is_called() -> None:
    cells = [
        detected(0, scorer, auc, f"scorer.count={count}")
        for scorer, auc in (("oracle", 1.0), ("random", 0.9), ("ip", 0.7), ("loss", 0.8))
        for count in (1, 2)
    ]
    said = "ROC AUC for finding the labels that are wrong: "
    assert rows_of(cells)[0] == "oracle count=1"
    assert detection_page(cells, "x").headline == f"{said}loss count=1 0.800 is the highest of 4."
    assert detection_page(cells[:4], "x").headline == f"{said}oracle count=1 1.000 is the highest of 4."
    assert detection_page(cells[:6], "x").headline == f"{said}ip count=1 0.700 is the highest of 2."


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"versions": {"torch": "3"}}, "versions.torch"),
        ({"device": "cuda:0"}, "device"),
        ({"config": {"treatment": {"name": "remove", "budget": 0.2}}}, "treatment.budget"),
    ],
)
def test_two_runs_that_are_not_the_same_are_no_repetition(changes: dict[str, Any], named: str) -> None:
    """Their commands are the same, as where a default has changed since: neither takes the other's place."""
    again = RESULTS[0] | changes | {"config": RESULTS[0]["config"] | changes.get("config", {})}
    expected = f"PATH=ip, utility, seed 0: two runs that differ in {named}; expected one of them"
    with pytest.raises(InputError, match=expected):
        detection_page([*RESULTS, again], "x")
    detection_page([*RESULTS, again | {"seed": 7}], "x")  # another seed clashes with nothing


def test_a_proxy_that_is_not_looked_at_is_a_repetition() -> None:
    cells = [detected(0, "oracle", 1.0, f"scorer.proxy={proxy}") for proxy in ("null", "adversarial")]
    cells += [detected(0, "loss", 0.9, f"scorer.proxy={proxy}") for proxy in ("null", "standard", "adversarial")]
    assert rows_of(cells) == ["oracle", "loss", "loss proxy=adversarial"]
    assert detection_page(cells, "x").sections[0].rows[0] == ("oracle", "1.000")


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
    assert page.headline.startswith("Rank correlation with retraining on random halves")
    assert page.headline.endswith("ekfac +0.500 is the highest of 2, ip +0.400.")
    assert "attacked at the baseline" in page.sections[0].text
    write_page(page, tmp_path)
    rows = (tmp_path / "tables/faithfulness_1.csv").read_text("utf-8").splitlines()
    assert rows[1:] == ["ekfac,+0.500,0.03,9.00,4.5", "ip,+0.400 (+0.152 to +0.648),-,2.00,1.0"]


def test_faithfulness_page_of_samples_dropped_at_weight_zero() -> None:
    """The correlation with validation attacked anew comes first, then that at the baseline and of single ones."""
    spec = {"subsets": "random", "dropped": 0.05, "by": "weight", "fresh": True, "targets": 1, "singles": 20}
    results = [foreseen(seed, "ip", 0.3, 2.0) for seed in (0, 1)]
    for found in results:
        found["config"]["faithfulness"] = spec
        found["faithfulness"] |= {"frozen": 0.2 + 0.1 * found["seed"], "singles": -0.1}
    (section,) = faithfulness_page(results, "lds").sections
    assert section.header[:4] == ("scorer", "Spearman", "attacked at the baseline", "single samples")
    ((_, anew, frozen, single, *_),) = section.rows
    assert (anew, frozen.split()[0], single) == ("+0.300", "+0.250", "-0.100")
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
    first, second = (section.text for section in page.sections)
    assert "random halves" in first
    assert "9 retrainings" in first
    assert "attacked at the baseline" in first
    assert "leave-one-out" in second
    assert "40 retrainings" in second
    assert "attacked at the baseline" not in second
    assert "faithfulness.subsets=halves: ip +0.300; faithfulness.subsets=leave_one_out: ip +0.900" in page.headline
