"""What failed, what was chosen, and what a reader who stops early sees of a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from defense.cli.report import main, page_of
from defense.cli.results import find_failures, find_results
from defense.errors import InputError
from tests.cli.test_report import result, swept
from tests.reporting.cells import fail, grid, leave
from tests.reporting.test_page import Reader


def test_failed_cells_are_found_in_their_order_and_one_that_finished_since_is_none(tmp_path: Path) -> None:
    for cell in (10, 2):
        fail(tmp_path / str(cell), f"seed={cell}")
    fail(leave(tmp_path / "3", result(3, 1.0)), "seed=3", error="an older failure")
    found = find_failures([tmp_path])
    assert [failure.folder.name for failure in found] == ["2", "10"]
    assert found[0].overrides == ["seed=2"]
    assert (found[0].folder / found[0].log).read_text("utf-8") == "what happened"
    assert [cell["seed"] for cell in find_results([tmp_path])] == [3]


def test_a_page_lists_what_failed_before_what_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "0", result(0, 1.0))
    fail(tmp_path / "1", "seed=1", "a=b|c", error="threat.eps=|: <no> number")
    main([str(tmp_path)])
    assert "failed: cell 1: threat.eps=|: <no> number" in capsys.readouterr().out
    page = (tmp_path / "report.md").read_text("utf-8")
    assert page.index("## Cells that failed") < page.index("## Every setting")
    assert r"| 1    | seed=1 a=b\|c | threat.eps=\|: &lt;no> number | [defense.log](1/defense.log) |" in page
    assert "[" in page[page.index("## Every run") :]
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "1 cell failed." in text
    assert "&lt;no&gt; number" in text
    assert 'href="1/defense.log"' in text


def test_a_sweep_without_a_finished_cell_has_a_page_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in (0, 1):
        fail(tmp_path / str(cell), f"seed={cell}")
    assert find_results([tmp_path]) == []
    main([str(tmp_path)])
    assert "No cell has finished: all 2 failed." in capsys.readouterr().out
    reader = Reader()
    reader.feed((tmp_path / "report.html").read_text("utf-8"))
    assert reader.open == []
    assert "Cells that failed" in "".join(reader.text)


SWEEP = """hydra:
  sweeper:
    _target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper
    params: {seed: "range(9)", a: "0,1"}
  overrides: {hydra: [], task: ["seed=range(3)", "treatment.budget=0.1"]}
"""


def test_a_sweep_that_was_ended_before_any_cell_finished_says_how_many_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "multirun.yaml").write_text(SWEEP)
    fail(tmp_path / "0", "seed=0")
    main([str(tmp_path)])
    said = capsys.readouterr().out
    assert "No cell has finished: 1 failed." in said
    assert "5 cells of the sweep are missing" in said


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (SWEEP, "3 cells of the sweep are missing"),
        (SWEEP.replace("range(3)", "0,1"), "1 cell of the sweep is missing"),
        (SWEEP.replace("range(3)", "0"), None),  # it was started again, with fewer
        (SWEEP.replace("0,1", "glob(*)"), None),
        (SWEEP.replace("BasicSweeper", "OptunaSweeper"), None),
    ],
)
def test_a_page_says_how_many_cells_are_missing(tmp_path: Path, sweep: str, said: str | None) -> None:
    (tmp_path / "multirun.yaml").write_text(sweep)
    for cell in (0, 1):
        leave(tmp_path / str(cell), result(cell, 1.0))
    fail(tmp_path / "2", "seed=2")
    main([str(tmp_path)])
    text = (tmp_path / "report.md").read_text("utf-8")
    assert ("missing: it was ended early" in text) is (said is not None)
    assert said is None or said in text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"overrides": ["seed=0"]}'])
def test_another_file_of_that_name_is_one_line(tmp_path: Path, content: str) -> None:
    fail(tmp_path / "0").joinpath("failed.json").write_text(content)
    with pytest.raises(InputError, match=r"0/failed\.json: not what a cell leaves that has failed"):
        find_failures([tmp_path])


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    """As head is; the text is longer than a pipe holds, so that something is still to be written."""
    grid(tmp_path / "sweep", seeds=2)
    command = [
        sys.executable,
        "-c",
        "from defense.cli import report; report.text_of = lambda page: 'x\\n' * 99999; report.main()",
    ]
    process = subprocess.Popen(
        [*command, str(tmp_path / "sweep")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def automatic(seed: int, picked: int) -> dict[str, Any]:
    """A run that chose one of three candidates."""
    rows = [("none", 0.0), ("remove", 0.2), ("reweight", 0.05)]
    candidates = [
        {"treatment": treatment, "budget": budget, "chosen": number == picked}
        for number, (treatment, budget) in enumerate(rows)
    ]
    cell = swept(seed, 1.0 + seed, "ip", "treatment.budget=auto", budget="auto", names=["remove", "reweight"])
    return {**cell, "candidates": candidates}


def test_what_was_chosen_is_counted_over_seeds() -> None:
    cells = [automatic(seed, picked) for seed, picked in enumerate((1, 1, 2, 0))]
    cells += [swept(seed, 1.0 + seed, "ip", "treatment.budget=0.1") for seed in (0, 1)]
    (section,) = (section for section in page_of(cells).sections if section.name == "chosen")
    assert section.rows == [
        ("ip, treatment.budget=auto", "remove 0.2", "2 of 4"),
        ("ip, treatment.budget=auto", "reweight", "1 of 4"),
        ("ip, treatment.budget=auto", "nothing", "1 of 4"),
    ]
