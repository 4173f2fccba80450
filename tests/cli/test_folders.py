"""Which cells are those of a sweep: of several into one folder, in named and nested folders, at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from defense.cli.folders import CELL, SWEEP, begin, below, enter, own, uncounted
from defense.cli.report import main, names_of
from defense.cli.results import FAILED, RESULT, find_failures, find_results
from defense.cli.sweep_files import missing_of
from defense.errors import InputError
from defense.reporting.page import Failure
from defense.reporting.reading import COMMAND
from defense.runtime.lock import seize
from tests.cli.test_report import MULTIRUN, result

Command = Callable[..., tuple[int, str, str]]
NAMED = "hydra.sweep.subdir=${hydra.job.override_dirname}"
ENDS = (RESULT, FAILED)


def ran(sweep: Path, name: str, cells: dict[str, int], *, planned: int | None = None) -> None:
    """Leave what a sweep of that name leaves: a result of a seed in each of its folders."""
    begin(sweep, name, len(cells) if planned is None else planned)
    (sweep / "multirun.yaml").write_text(MULTIRUN.replace("ip,loss", name))
    for number, (folder, seed) in enumerate(cells.items()):
        (sweep / folder).mkdir(parents=True, exist_ok=True)
        enter(sweep / folder, name, number)
        (sweep / folder / RESULT).write_text(json.dumps(result(seed, 4.0 + 0.1 * seed)))


def seeds(*paths: Path, sweep: str | None = None) -> list[int]:
    return [found["seed"] for found in find_results(paths, sweep)]


LARGE = {"scorer=ip,seed=0": 0, "scorer=ip,seed=1": 1, "scorer=loss,seed=0": 2, "scorer=loss,seed=1": 3}


def test_a_smaller_sweep_into_the_same_folder_has_its_own_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(tmp_path, "first", LARGE)
    assert sorted(seeds(tmp_path)) == [0, 1, 2, 3]
    ran(tmp_path, "second", dict(list(LARGE.items())[:2]))
    assert seeds(tmp_path) == [0, 1]
    assert uncounted([tmp_path], ENDS) == 2
    assert missing_of([tmp_path], ENDS) == 0
    main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "over 2 seeds" in out
    assert "2 other runs are in this folder, of another sweep into it, and not on this page." in out
    main([str(tmp_path / name) for name in LARGE] + ["--output", str(tmp_path / "all")])  # asked for one by one
    out = capsys.readouterr().out
    assert "over 4 seeds" in out
    assert "other run" not in out


def test_cells_may_lie_deep_and_know_their_command(tmp_path: Path) -> None:
    ran(tmp_path / "a", "first", {"ip/0": 0, "ip/1": 1, "x/y/z/0": 2})
    ran(tmp_path / "b", "other", {"0": 5, "1": 6})
    ran(tmp_path / "a", "second", {"ip/0": 0, "x/y/w/0": 4})
    assert seeds(tmp_path) == [0, 4, 5, 6]
    assert {found[COMMAND].split()[3] for found in find_results([tmp_path / "a"])} == {"scorer=second"}
    assert seeds(tmp_path / "a" / "x") == [4, 2]  # below the folder of a sweep all that is there
    (alone,) = find_results([tmp_path / "a/ip/1"])
    assert COMMAND not in alone  # of a sweep whose command the folder has no more
    assert uncounted([tmp_path], ENDS) == 2


def test_a_sweep_that_goes_on_or_fails_counts_what_it_has(tmp_path: Path) -> None:
    ran(tmp_path, "first", LARGE)
    ran(tmp_path, "again", {"scorer=ip,seed=0": 0}, planned=4)  # begun again, and interrupted after one
    assert seeds(tmp_path) == [0]
    assert missing_of([tmp_path], ENDS) == 3
    enter(tmp_path / "scorer=ip,seed=1", "again", 1)
    (tmp_path / "scorer=ip,seed=1" / RESULT).unlink()
    said = {"overrides": ["seed=1"], "error": "no", "log": "defense.log"}
    (tmp_path / "scorer=ip,seed=1" / FAILED).write_text(json.dumps(said))
    (tmp_path / "scorer=loss,seed=1" / RESULT).rename(tmp_path / "scorer=loss,seed=1" / FAILED)  # of the first
    assert [cell.folder.name for cell in find_failures([tmp_path])] == ["scorer=ip,seed=1"]
    assert missing_of([tmp_path], ENDS) == 2
    begin(tmp_path, "third", 4)
    with pytest.raises(InputError, match=r"no result.json below it of the last sweep into it"):
        find_results([tmp_path])


def test_cells_that_failed_are_named_as_far_as_they_differ(tmp_path: Path) -> None:
    for names in (["0", "12"], ["ip/0", "loss/0"], ["a/b/0", "a/c/d/0"], ["3"], []):
        failures = [Failure(tmp_path / "sweep" / name, [], "no", "defense.log") for name in names]
        assert names_of(failures) == ([name.removeprefix("a/") for name in names])


def test_two_sweeps_at_once_each_have_their_own(tmp_path: Path) -> None:
    ran(tmp_path, "one", {"seed=0": 0, "seed=1": 1})
    ran(tmp_path, "other", {"seed=1": 1, "seed=2": 2})  # takes over what both have
    assert seeds(tmp_path, sweep="one") == [0]
    assert seeds(tmp_path, sweep="other") == seeds(tmp_path) == [1, 2]
    assert all(COMMAND not in found for found in find_results([tmp_path], "one"))


def test_sweeps_without_notes_are_as_they_were(tmp_path: Path) -> None:
    for name in ("0", "1", "named"):
        (tmp_path / name).mkdir()
        (tmp_path / name / RESULT).write_text(json.dumps(result(len(name), 4.0)))
    (tmp_path / "multirun.yaml").write_text(MULTIRUN)
    assert len(find_results([tmp_path])) == 3
    assert uncounted([tmp_path], ENDS) == 0


def test_a_folder_is_of_one_cell_and_below_that_of_the_sweep(tmp_path: Path) -> None:
    enter(tmp_path, "one", 0)
    own(tmp_path, "one", 0)  # queued again
    own(tmp_path, "other", 1)
    own(tmp_path, None, 1)
    with pytest.raises(InputError, match=r"hydra.sweep.subdir=.*: cells 0 and 1 of the sweep share it"):
        own(tmp_path, "one", 1)
    for name in ("0", "a/b", "..a", "a/../b"):
        below(name)
    for name in ("", ".", "..", "../a", "a/../..", "/tmp", "a/.."):
        with pytest.raises(InputError, match=r"expected a folder below hydra.sweep.dir"):
            below(name)
    for text in ("{", "[]", "{}"):
        (tmp_path / SWEEP).write_text(text)
        (tmp_path / "0").mkdir(exist_ok=True)
        (tmp_path / "0" / RESULT).write_text("{}")
        with pytest.raises(InputError, match=r"sweep.json: not what a sweep notes of itself"):
            find_results([tmp_path])


def test_the_command_notes_its_cells(command: Command, tmp_path: Path) -> None:
    """Cells that fail before any compute are enough to see whose page it is."""
    arguments = ["-m", NAMED, "hydra.sweep.dir=sweep", "treatment.budget=7"]
    code, _, err = command(*arguments, "seed=0,1,2")
    assert (code, err.count("defense: cell ")) == (1, 3)
    code, out, err = command(*arguments, "seed=0,1")
    assert (code, err.count("defense: cell ")) == (1, 2)
    assert "1 other run is in this folder" in out
    notes = [json.loads(file.read_text("utf-8")) for file in sorted((tmp_path / "sweep").glob(f"*/{CELL}"))]
    last = json.loads((tmp_path / "sweep" / SWEEP).read_text("utf-8"))
    assert last["cells"] == 2
    assert [note["cell"] for note in notes if note["sweep"] == last["sweep"]] == [0, 1]
    assert len(notes) == 3
    assert len(find_failures([tmp_path / "sweep"])) == 2


def test_numbered_cells_of_two_sweeps_at_once_are_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "sweep/0").mkdir(parents=True)
    (tmp_path / "sweep/0" / RESULT).write_text("{}")
    lock = seize(tmp_path / "sweep/.lock")
    assert lock is not None
    arguments = ["-m", "hydra.sweep.dir=sweep", "treatment.budget=7", "seed=0"]
    code, _, err = command(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("defense: hydra.sweep.dir=sweep: another sweep is writing numbered cells into it")
    assert (tmp_path / "sweep/0" / RESULT).exists()
    lock.release()
    assert command(*arguments)[0] == 1  # as the cell says
    assert not (tmp_path / "sweep/.lock").exists()


SHARED = {
    "one name for all": (["hydra.sweep.subdir=x", "seed=0,1"], "=x: cells 0 and 1 of the sweep share it"),
    "a name of one of two": (["hydra.sweep.subdir=${seed}", "seed=0,1", "scorer=ip,loss"], "=0: cells 0 and 1"),
    "the same cell twice": ([NAMED, "seed=0,1,0"], "cells 0 and 2 of the sweep share it"),
    "above": (["hydra.sweep.subdir=../x${seed}", "seed=0,1"], "=../x0: expected a folder below"),
    "no such setting": (["hydra.sweep.subdir=${nosuch}", "seed=0"], "hydra.sweep.subdir: Interpolation key"),
}


@pytest.mark.parametrize("name", SHARED)
def test_cells_that_would_share_a_folder_are_refused_before_any_runs(
    command: Command, tmp_path: Path, name: str
) -> None:
    arguments, said = SHARED[name]
    code, _, err = command("-m", *arguments, "hydra.sweep.dir=sweep")
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not (tmp_path / "sweep").exists()
