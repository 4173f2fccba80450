from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from defense.reporting.sweeps import group
from defense.sweep import find_results, main, sheet_of, text_of


def summary(results: list[dict[str, Any]]) -> str:
    return text_of(sheet_of(results))


def result(seed: int, gain: float, **changes: Any) -> dict[str, Any]:
    arms = {
        name: {"clean": 90.0, "transfer": 50.0, "adaptive": {"pgd": 40 + shift, "worst": 40 + shift}}
        for name, shift in (("baseline", 0.0), ("control", 1.0), ("defended", 1.0 + gain))
    }
    config = {"name": "x", "seed": seed, "store": "s", "treatment": {"name": "remove", "budget": 0.1}}
    config["scorer"] = {"name": "ip", "method": "alignment"}
    base = {
        "task": "defend",
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
    assert "+5.0 points over random (95 % interval over 3 seeds +2.5 to +7.5), better than random removal" in text
    row = next(line for line in text.splitlines() if line.startswith("| adaptive, worst"))
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["40.0", "41.0", "46.0", "+5.0 (+2.5 to +7.5)"]


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
    assert summary(results).count("## ") == 2 + 4  # two budgets, four settings


def test_settings_are_beside_each_other_and_chance_is_named() -> None:
    """Of twenty useless settings one is called different by chance: the answer says so."""
    results = []
    for budget, gains in ((0.1, (5.0, 5.2)), (0.2, (-5.0, -5.2)), (0.3, (-9.0, 9.0))):
        for seed, gain in enumerate(gains):
            cell = copy.deepcopy(result(seed, gain))
            cell["config"]["treatment"]["budget"] = budget
            cell["overrides"] = [f"treatment.budget={budget}", f"seed={seed}"]
            cell["arms"]["proxy"] = cell["arms"]["baseline"]
            results.append(cell)
    sheet = sheet_of(results)
    assert sheet.answer == (
        "1 of 3 settings is better than the random control, 1 worse; "
        "were all as good as random, 0.2 would be called different."
    )
    first = sheet.parts[0]
    assert first.heading == "treatment.budget=0.1"
    row = dict(zip(first.header, first.rows[0], strict=True))
    assert (row["scorer"], row["AUC"], row["control"], row["defended"]) == ("ip", "0.800", "41.0", "46.1")
    assert row["defended - control (95 %)"] == "+5.1 (+3.8 to +6.4)"
    assert row["proxy"] == "40.0"
    assert "<svg" in first.chart


def test_one_seed_is_not_judged() -> None:
    assert "one seed: no interval, no judgement" in summary([result(0, 9.0)])


def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    for seed in range(3):
        folder = tmp_path / "a" / str(seed)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result(seed, 2.0)))
    assert len(find_results([tmp_path])) == 3


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
    assert "no such folder" in capsys.readouterr().err


def test_runs_of_several_tasks_are_not_mixed_and_the_page_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        (tmp_path / f"sweep/{seed}").mkdir(parents=True)
        (tmp_path / f"sweep/{seed}/result.json").write_text(json.dumps(result(seed, 4.0 + seed)))
    main([str(tmp_path / "sweep")])
    assert "better than the random control" in capsys.readouterr().out
    page = (tmp_path / "sweep/report.md").read_text()
    assert "+4.5 points over random" in page
    assert (tmp_path / "sweep/tables/arms_1.csv").read_text().startswith('"test accuracy, %"')
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
