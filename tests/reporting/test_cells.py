"""The tables of plain numbers: every run and every setting, as CSV, LaTeX and Parquet."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from defense.cli.report import main, page_of
from defense.cli.results import find_results
from defense.errors import InputError
from defense.reporting.compare import Metric
from defense.reporting.exports import Text, latex, sort_key
from defense.reporting.frame import costs, frame, per_sample, settings_of
from defense.tasks.defend.report import OTHERS, numbers_of_run
from tests.cli.test_report import result, swept
from tests.reporting.cells import grid, leave


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = grid(tmp_path_factory.mktemp("sweeps") / "sweep")
    main([str(folder)])
    return folder


def test_there_is_a_row_for_every_run_with_its_own_numbers(sweep: Path) -> None:
    cells = pd.read_parquet(sweep / "tables/cells.parquet")
    assert len(cells) == 5 * 3 * 2
    assert cells["seed"].dtype.kind == "i"
    assert cells["treatment.budget"].tolist() == [0.05, 0.1] * 15
    for row in cells.itertuples():
        assert (sweep / row.folder / "result.json").exists()
    assert set(cells["mcnemar_p"].round(9)) == {round(2 * 0.5**4, 9)}  # four samples differ, all one way
    assert cells["defended.adaptive.worst"].iloc[0] == pytest.approx(41 + 2)
    assert (cells["seconds_own"].iloc[0], cells["seconds_all"].iloc[0]) == (5.0, 9.0)
    again = pd.read_csv(sweep / "tables/cells.csv")
    assert again.columns.tolist() == cells.columns.tolist()
    for name in cells.select_dtypes("number"):
        assert np.allclose(again[name], cells[name])


def test_there_is_a_row_for_every_setting_with_intervals_and_p_values(sweep: Path) -> None:
    settings = pd.read_parquet(sweep / "tables/settings.parquet")
    cells = pd.read_parquet(sweep / "tables/cells.parquet")
    assert settings["setting"].tolist() == [1, 2, 3, 4, 5, 6]
    expected = []
    for row in settings.itertuples():
        own = cells[cells["setting"] == row.setting]
        test = stats.ttest_rel(own["defended.adaptive.worst"], own["control.adaptive.worst"])
        interval = test.confidence_interval(0.95)
        assert (row.gain_low, row.gain_high) == pytest.approx((interval.low, interval.high))
        assert row.gain_p_t == pytest.approx(test.pvalue)
        assert row.seeds == len(own) == row.mcnemar_seeds
        assert row.mcnemar_below == 0
        expected.append(test.pvalue)
    order = np.argsort(expected)
    stepped = np.maximum.accumulate(np.array(expected)[order] * np.arange(6, 0, -1)).clip(max=1)
    assert settings["gain_p_holm"].to_numpy()[order] == pytest.approx(stepped)
    chance = "not distinguishable"
    assert settings["treatment.budget"].tolist() == [0.05] * 3 + [0.1] * 3
    assert settings["judgement"].tolist() == [chance, "better", chance, chance, "best", chance]
    assert settings["best"].sum() == 1


def test_costs_are_those_of_the_stages() -> None:
    cell = result(0, 1.0, seconds={"train_baseline": 10.0, "score": 2.5, "treat": 0.5}, reused=["train_baseline"])
    assert costs(cell) == {"seconds_own": 3.0, "seconds_all": 13.0}


def test_a_run_that_is_found_twice_counts_once_and_stands_in_the_table_twice(tmp_path: Path) -> None:
    for folder in ("a/0", "b/0"):
        leave(tmp_path / folder, result(0, 2.0))
    leave(tmp_path / "a/1", result(1, 3.0))
    results = find_results([tmp_path / "a", tmp_path / "b"])
    table = frame(settings_of(results), results, numbers_of_run)
    assert table["counted"].tolist() == [False, True, True]
    said = next(section.text for section in page_of(results).sections if section.name == "cells")
    assert "1 of the runs repeat others and count once" in said


def test_what_is_swept_of_several_kinds_is_text(tmp_path: Path) -> None:
    cells = [swept(0, 1.0, "ip", f"treatment.budget={budget}", budget=budget) for budget in (0.1, 0.2)]
    cells.append(swept(0, 1.0, "ip", "treatment.budget=auto", budget="auto", names=["remove"]))
    table = frame(settings_of(cells), cells, numbers_of_run)
    assert table["treatment.budget"].tolist() == ["0.1", "0.2", "auto"]
    table.to_parquet(tmp_path / "cells.parquet")


@pytest.mark.parametrize("harm", ["torn", "column", "samples"])
def test_another_table_of_samples_is_one_line(tmp_path: Path, harm: str) -> None:
    folder = leave(tmp_path / "0", result(0, 1.0))
    file = folder / "per_sample.parquet"
    table = pd.read_parquet(file)
    if harm == "torn":
        file.write_bytes(file.read_bytes()[:100])
    elif harm == "column":
        table.drop(columns="arm").to_parquet(file)
    else:
        table[3:].to_parquet(file)
    with pytest.raises(InputError, match=r"per_sample\.parquet: not what a run of this version leaves"):
        per_sample(folder)
    file.unlink()
    assert per_sample(folder) is None


def test_latex_is_escaped_and_ruled() -> None:
    rows = [("x_1 {#1}", "-5.2 (-1.0 to +3.0)"), ("data.path=a-1~b", "<0.001"), ("[a]", "6 \N{PLUS-MINUS SIGN} 1")]
    lines = latex(("a_b & c", "a - b (95 %)"), rows, caption="50 % | a", label="tab:x").splitlines()
    assert lines[0].startswith("%")
    assert lines[1:9] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \% $|$ a}",
        r"\label{tab:x}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b \& c & a $-$ b (95 \%) \\",
        r"\midrule",
    ]
    assert lines[9:] == [
        r"x\_1 \{\#1\} & $-$5.2 ($-$1.0 to +3.0) \\",
        r"data.path=a-1\textasciitilde{}b & $<$0.001 \\",
        r"{[}a] & 6 $\pm$ 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: LaTeX is read, not set")
def test_latex_sets(sweep: Path, tmp_path: Path) -> None:
    body = "".join(f"\\input{{{file}}}\n" for file in sorted((sweep / "tables").glob("*.tex")))
    (tmp_path / "t.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_every_table_has_a_twin_for_each_program(sweep: Path) -> None:
    stems = {file.stem for file in (sweep / "tables").iterdir()}
    for stem in stems:
        with (sweep / f"tables/{stem}.csv").open(newline="") as file:
            widths = {len(row) for row in csv.reader(file)}
        assert len(widths) == 1
        assert (sweep / f"tables/{stem}.tex").exists()
    assert {file.stem for file in (sweep / "tables").glob("*.parquet")} == {"settings", "cells"}


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        ("+5.2 (+1.3 to +9.1)", "5.2"),
        ("-0.4 (-1.8 to +1.0)", "-0.4"),
        ("<0.001", "0.001"),
        ("3 of 5", "3"),
        ("-", ""),
        ("not distinguishable", ""),
        ("1/255", ""),
        ("2024-01-02", ""),
        ("3x", ""),
        (Text("ten", value=10), "10.0"),
        (Text("-", value=float("nan")), ""),
    ],
)
def test_a_cell_sorts_by_the_number_that_it_begins_with(cell: str, key: str) -> None:
    assert sort_key(cell) == key


def test_a_metric_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the page of a sweep, compared with its rival, and in both tables of plain numbers."""
    metric = Metric("margin", "mean margin", unit="", decimals=2)
    monkeypatch.setattr("defense.tasks.defend.report.OTHERS", (*OTHERS, metric))
    cells = [swept(seed, 1.0 + seed, scorer) for seed in range(3) for scorer in ("ip", "loss")]
    for number, cell in enumerate(cells):
        for arm, margin in (("baseline", 0.1), ("control", 0.2), ("defended", 0.5 + 0.1 * cell["seed"])):
            cell["arms"][arm] = cell["arms"][arm] | {"margin": margin}
        leave(tmp_path / "sweep" / str(number), cell)
    main([str(tmp_path / "sweep")])
    row = next(line for line in (tmp_path / "sweep/tables/metrics.csv").open() if "mean margin" in line)
    half = stats.t.ppf(0.975, 2) * 0.1 / 3**0.5
    assert row.split(",")[:3] == ["ip", "mean margin", f"+0.40 ({0.4 - half:+.2f} to {0.4 + half:+.2f})"]
    settings = pd.read_parquet(tmp_path / "sweep/tables/settings.parquet")
    assert settings["gain_margin"].tolist() == pytest.approx([0.4, 0.4])
    assert pd.read_parquet(tmp_path / "sweep/tables/cells.parquet")["defended.margin"].min() == 0.5
