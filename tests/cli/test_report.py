from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from defense.cli.report import main, page_of, text_of
from defense.cli.results import find_results
from defense.errors import InputError
from defense.reporting.frame import group


def summary(results: list[dict[str, Any]]) -> str:
    return text_of(page_of(results))


def result(seed: int, gain: float, **changes: Any) -> dict[str, Any]:
    arms = {
        name: {"clean": 90.0, "transfer": 50.0, "adaptive": {"pgd": 40 + shift, "worst": 40 + shift}}
        for name, shift in (("baseline", 0.0), ("control", 1.0), ("defended", 1.0 + gain))
    }
    config = {"name": "x", "seed": seed, "store": "s", "treatment": {"name": "remove", "budget": 0.1}}
    config |= {"task": "defend", "train": {"recipe": "standard"}, "objective": {"weights": {"robustness": 1.0}}}
    config["scorer"] = {"name": "ip", "method": "alignment", "proxy": None}
    config |= {"data": {"source": "digits", "path": None, "harm": "none", "harm_rate": 0.2, "train_labels": None}}
    config |= {"model": {"_target_": "defense.models.networks.mlp", "width": None}}
    config |= {"threat": {"norm": "Linf", "eps": "0.1"}, "evaluation": {"checked": 0}}
    base = {
        "task": "defend",
        "sizes": {"train": 100, "validation": 30, "test": 50, "treated": 10},
        "seconds": {"train_baseline": 4.0, "train_control": 3.0, "train_defended": 2.0},
        "reused": ["train_baseline"],
        "name": "x",
        "seed": seed,
        "arms": arms,
        "config": config,
        "selection": {"auc": 0.8},
        "overrides": [f"seed={seed}"],
        "device": "cpu",
    }
    return {**base, "versions": {"torch": "2"}, **changes}


def test_seeds_are_folded_and_repetitions_count_once() -> None:
    results = [result(0, 4.0), result(1, 5.0), result(2, 6.0), result(2, 6.0)]
    ((name, runs),) = group(results)
    assert name == "default"
    assert sorted(run["seed"] for run in runs) == [0, 1, 2]
    text = summary(results)
    assert text.startswith(
        "The treatment is better than random removal. ip reaches 46.0 %, +5.0 points over random removal (95 % "
        "interval over 3 seeds: +2.5 to +7.5); 40.0 % without treatment."
    )
    row = next(line for line in text.splitlines() if line.startswith("| ip"))
    cells = ["best", "+5.0 (+2.5 to +7.5)", "40.0", "41.0", "46.0", "0.013"]
    assert [cell.strip() for cell in row.split("|")[2:8]] == cells


def test_what_differs_in_anything_but_the_seed_is_apart() -> None:
    other = copy.deepcopy(result(1, 9.0))
    other["config"]["treatment"]["budget"] = 0.2
    other["overrides"] = ["treatment.budget=0.2", "seed=1"]
    results = [result(0, 4.0), other, result(0, 1.0, device="cuda:0"), result(1, 1.0, versions={"torch": "3"})]
    assert [name for name, _ in group(results)] == [
        "default (1)",
        "treatment.budget=0.2",
        "default (2)",
        "default (3)",
    ]
    rows = [row[:2] for row in page_of(results).sections[0].rows]
    assert rows == [("ip", "0.1"), ("ip (2)", "0.1"), ("ip (3)", "0.1"), ("ip", "0.2")]


def test_a_row_of_fewer_seeds_says_so() -> None:
    """As where a cell failed: its means are not those of the rows beside it."""
    loss = {"overrides": ["scorer=loss"]}
    results = [result(seed, 4.0 + seed) for seed in range(3)] + [result(seed, 1.0, **loss) for seed in range(3)]
    for run in results[3:]:
        run["config"] = run["config"] | {"scorer": {"name": "loss", "method": "loss", "proxy": None}}
    assert "| seeds |" not in summary(results)
    text = summary(results[:-1])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, first, second = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:4])
    assert dict(zip(head, first, strict=True))["seeds"] == "3"
    assert dict(zip(head, second, strict=True))["seeds"] == "2"
    others = next(section for section in page_of(results).sections if section.name == "metrics")
    transfer = [row for row in others.rows if "frozen" in row[1]]
    assert [row[2] for row in transfer] == ["+0.0"] * 2  # the same in every seed


def test_weights_that_read_no_budget_are_one_setting_whatever_the_budget() -> None:
    results = []
    for budget in (0.1, 0.2):
        for seed, gain in enumerate((4.0, 5.0)):
            results.append(result(seed, gain, overrides=[f"treatment.budget={budget}", f"seed={seed}"]))
            results[-1]["config"] = results[-1]["config"] | {"treatment": {"name": "reweight", "budget": budget}}
    assert len(group(results)) == 1


def test_settings_are_beside_each_other_and_chance_is_named() -> None:
    """Each has its row, and the best is named; what chance alone would do is said beside it."""
    results = []
    for budget, gains in ((0.1, (5.0, 5.2)), (0.2, (-5.0, -5.2)), (0.3, (-9.0, 9.0))):
        for seed, gain in enumerate(gains):
            cell = copy.deepcopy(result(seed, gain))
            cell["config"]["treatment"]["budget"] = budget
            cell["overrides"] = [f"treatment.budget={budget}", f"seed={seed}"]
            cell["config"]["scorer"]["proxy"] = "adversarial"
            cell["arms"]["proxy"] = cell["arms"]["baseline"]
            results.append(cell)
    page = page_of(results)
    assert page.headline == (
        "1 of 3 settings is better than random removal, 1 worse, corrected for 3 comparisons (Holm). Best: ip, "
        "treatment.budget=0.1 at 46.1 %, +5.1 points over random removal (95 % interval over 2 "
        "seeds: +3.8 to +6.4); 40.0 % without treatment."
    )
    assert "at most 5 % of such pages would report a difference" in page.notes[0]
    assert "share one random control" not in page.notes[0]
    settings = page.sections[0]
    rows = [dict(zip(settings.header, row, strict=True)) for row in settings.rows]
    assert [row["against random removal"] for row in rows] == ["best", "worse", "not distinguishable"]
    row = rows[0]
    assert (row["scorer"], row["treatment.budget"], row["control"], row["defended"]) == (
        "ip",
        "0.1",
        "41.0",
        "46.1",
    )
    assert row["defended - control (95 %)"] == "+5.1 (+3.8 to +6.4)"
    assert row["proxy"] == "40.0"
    assert "<svg" in settings.chart
    tests = next(section for section in page.sections if section.name == "tests")
    assert [row[tests.header.index("AUC")] for row in tests.rows] == ["0.800"] * 3


def swept(seed: int, gain: float, scorer: str, *overrides: str, **treatment: Any) -> dict[str, Any]:
    """A cell of a grid over scorers, proxies and objectives."""
    cell = copy.deepcopy(result(seed, gain))
    values = dict(part.split("=") for part in overrides)
    proxy = values.get("scorer.proxy", "null")
    method = scorer if scorer in ("loss", "random", "oracle") else "alignment"
    cell["config"]["scorer"] = {"name": scorer, "method": method, "proxy": None if proxy == "null" else proxy}
    cell["config"]["objective"] = {"weights": {values.get("objective", "robustness"): 1.0}}
    cell["config"]["treatment"] |= treatment
    cell["overrides"] = [f"seed={seed}", f"scorer={scorer}", *overrides]
    if proxy != "null":
        cell["arms"]["proxy"] = cell["arms"]["baseline"]
    return cell


def test_what_a_scorer_does_not_read_is_one_row_and_real_scorers_alone_are_counted() -> None:
    """Perfect knowledge looks at no proxy, the loss at no objective; both look at one control for each seed."""
    results = [
        swept(seed, gain + 0.1 * seed, scorer, f"objective={objective}", f"scorer.proxy={proxy}")
        for seed in (0, 1, 2)
        for scorer, gain in (("ip", 4.0), ("loss", 6.0), ("oracle", 9.0), ("random", 9.0))
        for objective in ("utility", "robustness")
        for proxy in ("null", "adversarial", "standard")  # standard: the recipe of the baseline itself
    ]
    results.append(swept(0, 1.0, "tracin", "objective=utility"))  # of one seed
    page = page_of(results)
    assert sorted(row[0] for row in page.sections[0].rows) == [
        "ip proxy=adversarial, robustness",
        "ip proxy=adversarial, utility",
        "ip, robustness",
        "ip, utility",
        "loss",
        "loss proxy=adversarial",
        "oracle",
        "random",
        "tracin, utility",
    ]
    named = {row[0]: row[page.sections[0].header.index("proxy")] for row in page.sections[0].rows}
    assert (named["oracle"], named["ip, utility"], named["loss proxy=adversarial"]) == ("-", "-", "40.0")
    assert page.headline == (
        "6 of 6 settings are better than random removal (oracle and random not counted), corrected for 8 "
        "comparisons (Holm). Best: loss at 47.1 %, +6.1 points over random removal (95 % interval over 3 seeds: "
        "+5.9 to +6.3); 40.0 % without treatment."
    )
    assert "Not judged: 1 of one seed." in page.notes[0]
    assert any("share one random control for each seed" in note for note in page.notes)
    assert page_of([cell for cell in results if cell["config"]["scorer"]["name"] == "oracle"]).headline == (
        "The treatment is better than random removal. oracle reaches 50.1 %, +9.1 points over random removal "
        "(95 % interval over 3 seeds: +8.9 to +9.3); 40.0 % without treatment."
    )


def test_relabelling_looks_at_the_proxy_whatever_the_score() -> None:
    """Its predictions are the labels that are given: perfect knowledge with a proxy is another treatment."""
    proxies = ("null", "adversarial")
    cells = [swept(0, 9.0, "oracle", f"scorer.proxy={proxy}", name="relabel") for proxy in proxies]
    assert [row[0] for row in page_of(cells).sections[0].rows] == ["oracle", "oracle proxy=adversarial"]


def test_one_seed_is_not_judged() -> None:
    assert summary([result(0, 9.0)]).startswith(
        "One seed: the intervals that a judgement needs are over seeds, as in seed=range(5). Differences from "
        "random removal, points: ip +9.0."
    )


def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    for seed in range(3):
        folder = tmp_path / "a" / str(seed)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result(seed, 2.0)))
    assert len(find_results([tmp_path])) == 3


MULTIRUN = """hydra:
  sweeper: {params: {seed: "0,1"}}
  overrides:
    hydra: [hydra.sweep.dir=runs/a, "hydra.sweeper.params={seed: '0,1'}", hydra.mode=MULTIRUN]
    task: [experiment=e, "scorer=ip,loss", "name=${x}", store=/tmp/s]
"""


def test_every_sweep_is_told_by_its_own_command(tmp_path: Path) -> None:
    """A grid of both would be one that was never run."""
    for sweep, cell in (("a", 0), ("a", 1), ("b", 0), ("lone", 0)):
        folder = tmp_path / sweep / str(cell)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result(cell, 2.0)))
    (tmp_path / "a/multirun.yaml").write_text(MULTIRUN)
    (tmp_path / "b/multirun.yaml").write_text(MULTIRUN.replace("ip,loss", "oracle"))
    told = page_of(find_results([tmp_path])).command.splitlines()
    seeds = shlex.quote("hydra.sweeper.params={seed: '0,1'}")
    assert told == [
        f"defense -m experiment=e scorer=ip,loss {shlex.quote('name=${x}')} {seeds}   # 2 cells",
        f"defense -m experiment=e scorer=oracle {shlex.quote('name=${x}')} {seeds}",
        "defense seed=0",
    ]
    assert shlex.split(told[0], comments=True)[-1] == "hydra.sweeper.params={seed: '0,1'}"
    for other in ("", "hydra: [", "hydra: {overrides: {task: 1}}"):
        (tmp_path / "a/multirun.yaml").write_text(other)
        with pytest.raises(InputError, match=r"a/multirun\.yaml: not what Hydra writes of a sweep"):
            find_results([tmp_path])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no result.json below it"),
        ("{}", "not a result of this version"),
        ("{", "not a result of this version"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
    assert "no such file or folder" in capsys.readouterr().err


def test_runs_of_several_tasks_are_not_mixed_and_the_page_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        (tmp_path / f"sweep/{seed}").mkdir(parents=True)
        (tmp_path / f"sweep/{seed}/result.json").write_text(json.dumps(result(seed, 4.0 + seed)))
    main([str(tmp_path / "sweep")])
    assert "random removal" in capsys.readouterr().out
    page = (tmp_path / "sweep/report.md").read_text("utf-8")
    assert "+4.5 points over random" in page
    assert (
        (tmp_path / "sweep/tables/metrics.csv").read_text("utf-8").startswith("metric,defended - control (95 %)")
    )
    main([str(tmp_path / "sweep/0"), "--output", str(tmp_path / "page")])
    assert (tmp_path / "page/report.html").exists()
    (tmp_path / "sweep/1/result.json").write_text(json.dumps(result(1, 4.0, task="detect")))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "sweep")])
    assert "runs of several tasks; expected those of one" in capsys.readouterr().err


def test_cells_are_in_the_order_that_they_ran_in(tmp_path: Path) -> None:
    for cell in (0, 2, 10, 1):
        (tmp_path / str(cell)).mkdir()
        (tmp_path / f"{cell}/result.json").write_text(json.dumps(result(cell, 4.0)))
    assert [found["seed"] for found in find_results([tmp_path])] == [0, 1, 2, 10]
