"""cells.parquet: its columns say what result.json says, and a page drawn from it alone is the page."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from defense.cli.report import main
from defense.cli.results import find_cells
from defense.config.choices import Task
from defense.errors import InputError
from defense.reporting.archive import column
from tests.conftest import run_in
from tests.reporting.cells import fail, grid, leave

SMALL = [
    "data.train_size=60",
    "data.validation_size=30",
    "data.test_size=30",
    "model.hidden=[8]",
    "train.epochs=2",
]
SMALL += ["evaluation.checked=10", "evaluation.attacks.pgd.steps=2", "evaluation.attacks.apgd_t.steps=2"]
CELLS: dict[Task, list[str]] = {
    Task.defend: ["data=digits", "data.train_size=90"],
    Task.detect: ["data=moons"],
    Task.score: ["data=moons"],
    Task.repair: ["data=moons", "objective=utility"],
    Task.evade: ["data=moons", "evade.shares=[0.125,0.3]"],
    Task.order: ["data=moons", "scorer=datainf", "order.dampings=[0.1,1]"],
    Task.faithfulness: ["data=moons", "faithfulness.count=4", "faithfulness.targets=2"],
    Task.speed: [
        *("data=moons", "objective=utility", "+scorer@speed.scorers.datainf=datainf", "speed.peers=[]"),
        *("speed.works=[[16,8],[32,8]]", "speed.rounds=1", "speed.seconds=0.1", "fabric.accelerator=cpu"),
    ],
}
PLAIN = (  # without links, and without the blanks and dashes that make room for them in a table of Markdown
    (re.compile(r'<a href="[^"#]*">(.*?)</a>'), r"\1"),
    (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r" +(?=\|)|(?<=\|) +|-+(?=:? \|)"), ""),
)


def pages(folder: Path, *, links: bool = False) -> dict[str, str]:
    """Return the pages and tables of a folder by name; without links to runs unless they are asked for."""
    files = [
        file for form in ("report.*", "tables/*.csv", "tables/*.tex", "figures/*") for file in folder.glob(form)
    ]
    found = {str(file.relative_to(folder)): file.read_text("utf-8") for file in files}
    for pattern, shown in () if links else PLAIN:
        found = {name: pattern.sub(shown, text) for name, text in found.items()}
    return found


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each task with two cells and their page; the second is the first under another seed."""
    top = tmp_path_factory.mktemp("tasks")
    for task, words in CELLS.items():
        overrides = [words[0], *SMALL, *words[1:], f"task={task}", f"store={top / 'store'}", "seed=0"]
        run_in(top / str(task) / "0", *overrides)
        shutil.copytree(top / str(task) / "0", top / str(task) / "1")
        file = top / str(task) / "1/result.json"
        found = json.loads(file.read_text("utf-8"))
        found |= {"seed": 1, "overrides": [*overrides[:-1], "seed=1"], "config": found["config"] | {"seed": 1}}
        file.write_text(json.dumps(found), encoding="utf-8")
        main([str(top / str(task))])
    return top


def table_of(sweeps: Path, task: Task) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows of the cells of a task, and the result of the first."""
    file = sweeps / str(task) / "0/result.json"
    return pd.read_parquet(sweeps / str(task) / "cells.parquet"), json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("task", Task)
def test_a_page_is_drawn_again_from_the_file_alone(sweeps: Path, tmp_path: Path, task: Task) -> None:
    own = sweeps / str(task)
    alone = tmp_path / "other"
    alone.mkdir()
    shutil.copy(own / "cells.parquet", alone / "mine.parquet")
    main([str(alone / "mine.parquet")])
    assert pages(alone) == pages(own)
    assert len(pages(alone)) >= 3
    assert (alone / "cells.parquet").read_bytes() == (own / "cells.parquet").read_bytes()
    (alone / "mine.parquet").unlink()
    for name in ("report.html", "report.md"):
        (alone / name).unlink()
    main([str(alone)])  # no run below it
    assert pages(alone) == pages(own)


@pytest.mark.parametrize("task", Task)
def test_columns_say_what_the_results_say(sweeps: Path, task: Task) -> None:
    table, result = table_of(sweeps, task)
    assert set(table["run"]) == {0, 1}
    assert (table["seed"] == table["run"]).all()
    assert set(table["task"]) == {str(task)}
    assert set(table["settings.model.hidden"]) == {"[8]"}
    assert set(table["settings.data.train_size"]) == {result["config"]["data"]["train_size"]}
    assert table["settings.data.path"].isna().all()
    assert set(table["settings.scorer.name"]) == {result["config"]["scorer"]["name"]}
    assert set(table["sizes.train"]) == {result["sizes"]["train"]}
    assert table["seconds.train_baseline"].tolist() == [result["seconds"]["train_baseline"]] * len(table)
    first = table[table["run"] == 0]
    assert [json.loads(text) for text in first["result"]] == [result] * len(first)
    settings = [name for name in table if name.startswith("settings.")]
    kinds = {type(value) for name in settings for value in table[name].dropna()}
    assert not kinds & {dict, list}


def test_the_row_of_an_arm_has_its_accuracies_and_checks(sweeps: Path) -> None:
    table, result = table_of(sweeps, Task.defend)
    first = table[table["run"] == 0].set_index("arm")
    assert list(first.index) == list(result["arms"]) == ["baseline", "control", "defended", "trusted"]
    assert {"baseline", "control", "defended"} <= set(result["checks"])
    samples = pd.read_parquet(sweeps / "defend/0/per_sample.parquet")
    for arm, row in first.iterrows():
        assert row["adaptive.worst"] == pytest.approx(
            100 * samples[samples["arm"] == arm]["adaptive.worst"].mean()
        )
        assert row["clean"] == result["arms"][arm]["clean"]
        if arm in result["checks"]:  # of a trusted arm they are made if it is the highest
            assert row["checks.square.found"] == result["checks"][arm]["square"]["found"]
        assert row["health.accuracy"] == result["health"]["arms"][arm]["accuracy"]
    wide = samples.pivot(index="id", columns="arm", values="adaptive.worst")
    only = [int((wide[a] & ~wide[b]).sum()) for a, b in (("defended", "control"), ("control", "defended"))]
    tail = sum(math.comb(sum(only), k) for k in range(min(only) + 1)) / 2 ** sum(only)
    assert set(first["mcnemar_p"].round(12)) == {round(min(1.0, 2 * tail), 12)}
    assert set(table_of(sweeps, Task.repair)[0]["arm"]) == {"baseline", "control", "defended"}


def test_other_tasks_have_a_row_for_each_of_their_units(sweeps: Path) -> None:
    table, result = table_of(sweeps, Task.evade)
    ways = result["arms"]["control"]
    (row,) = table[(table["run"] == 0) & (table["arm"] == "control") & (table["share"] == 0.125)].to_dict(
        "records"
    )
    assert len(table) == 2 * 3 * 2
    assert (row["strict_bounded"], row["mean.strict_bounded"]) == (
        ways["strict_bounded"]["12_5"],
        ways["strict_bounded"]["mean"],
    )
    table, result = table_of(sweeps, Task.order)
    assert table["damping"].tolist() == [0.1, 1.0] * 2
    assert table["spearman"].tolist() == [found["spearman"] for found in result["order"]["dampings"]] * 2
    table, result = table_of(sweeps, Task.faithfulness)
    assert table["spearman"].tolist() == result["faithfulness"]["targets"] * 2
    table, result = table_of(sweeps, Task.speed)
    own = table[table["scorer"] == "ip"]
    assert own["train"].tolist() == [16, 32] * 2
    assert own["seconds"].tolist() == [work["seconds"] for work in result["speed"]["works"]] * 2
    others = table[table["scorer"] == "datainf"]
    factors = [work["rivals"]["datainf"]["factor"] for work in result["speed"]["works"] if work["rivals"]]
    assert others["factor"].tolist() == factors * 2
    table, result = table_of(sweeps, Task.detect)
    assert [json.loads(text) for text in table["recall_curve"]] == [result["recall_curve"]] * 2


def test_links_failures_and_counts_come_back(tmp_path: Path) -> None:
    """A page elsewhere leads to the runs where they are; what failed or is missing is said again."""
    sweep = grid(tmp_path / "sweep", seeds=2)
    overrides = {"task": ["seed=range(14)"], "hydra": ["hydra.mode=MULTIRUN"]}
    sweeper = {"_target_": "x.BasicSweeper", "params": None}
    (sweep / "multirun.yaml").write_text(json.dumps({"hydra": {"sweeper": sweeper, "overrides": overrides}}))
    main([str(sweep), "--output", str(tmp_path / "pages/one")])
    before = pages(tmp_path / "pages/one", links=True)
    assert "1 cell of the sweep is missing" in before["report.md"]
    assert "../../sweep/3/report.html" in before["report.html"]
    assert "../../sweep/12/defense.log" in before["report.html"]
    assert "defense -m 'seed=range(14)'" in before["report.md"]
    main([str(tmp_path / "pages/one/cells.parquet")])
    assert pages(tmp_path / "pages/one", links=True) == before
    shutil.rmtree(sweep)
    main([str(tmp_path / "pages/one/cells.parquet"), "--output", str(tmp_path / "elsewhere")])
    assert pages(tmp_path / "elsewhere") == {
        name: text for name, text in pages(tmp_path / "pages/one").items() if name != "tables/cells.csv"
    } | {"tables/cells.csv": (tmp_path / "elsewhere/tables/cells.csv").read_text("utf-8")}
    cells = find_cells([tmp_path / "pages/one"])
    assert (len(cells.results), len(cells.failures), cells.missing, cells.others) == (12, 1, 1, 0)


def test_a_sweep_of_which_all_failed_has_a_file_without_rows(tmp_path: Path) -> None:
    fail(tmp_path / "sweep/0", "seed=0", error="data.path=x: no such path")
    main([str(tmp_path / "sweep")])
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "sweep/cells.parquet", tmp_path / "alone")
    main([str(tmp_path / "alone")])
    assert pages(tmp_path / "alone") == pages(tmp_path / "sweep")
    assert "data.path=x: no such path" in pages(tmp_path / "alone")["report.md"]


def test_runs_below_a_folder_come_before_its_file(tmp_path: Path) -> None:
    from tests.cli.test_report import result

    for seed in (0, 1):
        leave(tmp_path / f"sweep/{seed}", result(seed, 4.0 + seed))
    main([str(tmp_path / "sweep")])
    leave(tmp_path / "sweep/2", result(2, 5.0))
    assert len(find_cells([tmp_path / "sweep"]).results) == 3
    both = find_cells([tmp_path / "sweep/2", tmp_path / "sweep/cells.parquet"])
    assert [found["seed"] for found in both.results] == [2, 0, 1]


BROKEN: dict[str, Callable[[Path, Path], Any]] = {
    "another parquet": lambda file, sweep: shutil.copy(sweep / "tables/cells.parquet", file),
    "no parquet": lambda file, sweep: file.write_text("seed,arm\n0,control\n"),
    "empty": lambda file, sweep: file.touch(),
    "half": lambda file, sweep: file.write_bytes((sweep / "cells.parquet").read_bytes()[:-900]),
    "without the metadata": lambda file, sweep: pd.read_parquet(sweep / "cells.parquet").to_parquet(file),
    "another format": lambda file, sweep: changed(file, sweep, lambda meta: meta | {"format": 0}),
    "no failures in it": lambda file, sweep: changed(file, sweep, lambda meta: {"format": 1}),
    "no result": lambda file, sweep: replaced(file, sweep, None),
    "another result": lambda file, sweep: replaced(file, sweep, "{}"),
    "no JSON": lambda file, sweep: replaced(file, sweep, "{"),
}


def changed(file: Path, sweep: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write the cells of a sweep with other metadata."""
    table = pq.read_table(sweep / "cells.parquet")
    meta = change(json.loads(table.schema.metadata[b"defense.cells"]))
    pq.write_table(table.replace_schema_metadata({b"defense.cells": json.dumps(meta)}), file)


def replaced(file: Path, sweep: Path, content: str | None) -> None:
    """Write the cells of a sweep with another text for each result, or without their column."""
    table = pq.read_table(sweep / "cells.parquet")
    place = table.column_names.index("result")
    fewer = table.remove_column(place)
    texts = pa.array([content] * len(table))
    pq.write_table(fewer if content is None else fewer.add_column(place, "result", texts), file)


@pytest.mark.parametrize("kind", BROKEN)
def test_another_file_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, sweeps: Path
) -> None:
    file = tmp_path / "cells.parquet"
    BROKEN[kind](file, sweeps / "defend")
    for path in (file, tmp_path):
        with pytest.raises(SystemExit) as stop:
            main([str(path)])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"defense-report: PATH={file}: not the cells of a page (")
        assert line.endswith("expected a cells.parquet that defense-report has written, or the folder of a sweep")


def test_results_of_several_tasks_are_refused_as_before(sweeps: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(sweeps / "defend/cells.parquet"), str(sweeps / "detect")])
    with pytest.raises(InputError, match="no such file or folder"):
        find_cells([sweeps / "nowhere"])


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 3], "int64", [1, None, 3]),
        ([1, 2.5, None], "double", [1.0, 2.5, None]),
        ([10**20, 1], "string", ["100000000000000000000", "1"]),
        ([2**60 + 1, 0.5], "string", [str(2**60 + 1), "0.5"]),
        ([True, None], "bool", [True, None]),
        ([True, 2], "string", ["true", "2"]),
        ([0.1, "auto"], "string", ["0.1", "auto"]),
        ([[1, 2], None, []], "string", ["[1, 2]", None, "[]"]),
        ([None, None], "string", [None, None]),
        (["b\udce4r"], "string", ["b\\udce4r"]),
    ],
)
def test_a_column_has_one_type(values: list[Any], kind: str, expected: list[Any]) -> None:
    found = column(values)
    assert (str(found.type), found.to_pylist()) == (kind, expected)


def test_a_sweep_leaves_the_file_at_its_end(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    words = ["-m", *SMALL, "data=moons", "task=detect", "seed=0,1", "hydra.sweep.dir=sweep", "store=store"]
    assert command(*words)[0] == 0
    table = pd.read_parquet(tmp_path / "sweep/cells.parquet")
    assert table["seed"].tolist() == [0, 1]
    assert table["folder"].tolist() == ["0", "1"]
    assert table["command"].str.startswith("defense -m ").all()
    before = pages(tmp_path / "sweep", links=True)
    main([str(tmp_path / "sweep/cells.parquet")])
    assert pages(tmp_path / "sweep", links=True) == before
