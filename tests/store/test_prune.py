"""What goes and what stays, by hand; and after real runs."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from defense.artifacts import Scores
from defense.cli.report import main
from defense.cli.store import in_bytes
from defense.cli.store import run_store_command as report
from defense.errors import InputError
from defense.runtime.lock import locked
from defense.store.store import Store, Stored
from tests.cli.test_cli import Command
from tests.conftest import TINY

SCORES = Scores(pd.DataFrame({"id": [3], "score": [0.5]}), pd.DataFrame({"name": ["a"], "value": [0.5]}))
DAY = 86_400.0


def once(store: Path, stage: str, seed: int) -> Stored[Scores]:
    return Store(store).once(stage, Scores, made_of={"seed": seed}, compute=lambda _: SCORES)


def aged(path: Path, days: float = 2.0) -> Path:
    """Make a thing, and all that is in it, as old as that."""
    then = time.time() - days * DAY
    for each in (*path.rglob("*"), path):
        os.utime(each, (then, then))
    return path


def a_run(folder: Path, keys: dict[str, str] | None, **more: object) -> None:
    folder.mkdir(parents=True)
    content = {"task": "defend", **({} if keys is None else {"keys": keys}), **more}
    (folder / "result.json").write_text(json.dumps(content))


def names(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.glob("*/*")}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An old store: a run needs score/0, none train/1 and score/2; leftovers of every kind beside them."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs" / "store"
    keys = [f"{stage}/{once(root, stage, seed).key}" for seed, stage in enumerate(("score", "train", "score"))]
    a_run(tmp_path / "runs" / "digits" / "a", {"score": keys[0]})
    (root / f"{keys[0]}.corrupt-1").mkdir()
    (root / f"{keys[0]}.corrupt-1" / "x").write_bytes(b"12345")
    (root / "score" / f"{'f' * 24}.part" / "progress").mkdir(parents=True)
    (root / "score" / f"{'f' * 24}.part" / "progress" / "a.tensors").write_bytes(b"1" * 1500)
    (root / "score" / f"{'f' * 24}.lock").write_text("process 1 on nowhere")
    (root / "score" / "notes.txt").write_text("mine")
    (root / "score" / "important").mkdir()
    return aged(root)


def keyed(store: Path) -> list[str]:
    """The keys of the entries, as `store` makes them."""
    return [f"{stage}/{once(store, stage, seed).key}" for seed, stage in enumerate(("score", "train", "score"))]


def test_list(store: Path) -> None:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report(["--list"]).splitlines()]
    assert lines[0] == ["stage", "entries", "size", "unfinished", "damaged", "locks", "size of these"]
    assert [line[:2] + line[3:] for line in lines[2:]] == [
        ["score", "2", "1", "1", "1", "1.52 kB"],
        ["train", "1", "0", "0", "0", "0 B"],
        ["all", "3", "1", "1", "1", "1.52 kB"],
    ]
    (entry,) = [path for path in store.glob("train/*") if path.is_dir()]
    assert lines[3][2] == in_bytes(sum(file.stat().st_size for file in entry.iterdir()))


def test_prune_removes_what_no_run_needs_and_says_so(store: Path) -> None:
    before = names(store)
    shown = report(["--prune", "--dry-run"])
    assert names(store) == before
    said = report(["--prune"])
    assert said.splitlines()[:-1] == shown.splitlines()[:-1]
    assert shown.splitlines()[-1].replace("would remove", "removed") == said.splitlines()[-1]
    assert "removed 5 things, " in said
    assert said.endswith("1 entries stay, of which runs name 1")
    (needed,) = json.loads((store.parent / "digits/a/result.json").read_text("utf-8"))["keys"].values()
    assert names(store) == {needed, "score/notes.txt", "score/important"}
    assert keyed(store)[0] == needed
    assert once(store, "score", 0).reused
    assert report(["--prune"]).splitlines()[-1].startswith("removed 0 things, 0 B; 3 entries stay")  # made anew


def test_what_is_young_or_was_used_stays(store: Path) -> None:
    assert once(store, "score", 2).reused  # by a run that has no result.json yet
    unfinished = store / "score" / f"{'f' * 24}.part" / "progress" / "a.tensors"
    unfinished.write_bytes(b"more")
    used, train = (f"score/{once(store, 'score', 2).key}", next(n for n in names(store) if n.startswith("train")))
    assert "removed 3 things" in report(["--prune"])  # the damaged one, the lock that nobody has, and train
    assert {used, f"score/{'f' * 24}.part"} <= names(store)
    assert train not in names(store)
    aged(store, 1.1)
    assert "removed 0 things" in report(["--prune", "--hours", "27"])
    assert "removed 2 things" in report(["--prune", "--hours", "26"])


def test_what_somebody_is_at_stays(store: Path) -> None:
    entry = next(path for path in store.glob("train/*") if path.is_dir())
    busy = store / "score" / ("f" * 24)
    with locked(entry.with_name(f"{entry.name}.lock"), "train"), locked(busy.with_name(f"{busy.name}.lock"), "f"):
        assert report(["--prune", "--hours", "0"]).endswith("; 2 are in use")
        assert entry.exists()
        assert busy.with_name(f"{busy.name}.part").exists()
    report(["--prune", "--hours", "0"])
    assert not entry.exists()
    assert len(names(store)) == 3


def test_a_removal_that_is_cut_short_leaves_no_half_entry(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(path: Path) -> None:
        next(path.iterdir()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            report(["--prune"])
    whole = [path for path in store.glob("*/*") if path.is_dir() and not path.suffix and path.name != "important"]
    assert all((path / "manifest.json").exists() and (path / "table.parquet").exists() for path in whole)
    report(["--prune", "--hours", "0"])
    assert len(names(store)) == 3


def test_runs_that_do_not_say_what_they_need(store: Path) -> None:
    a_run(store.parent / "digits" / "b", None)
    before = names(store)
    with pytest.raises(InputError, match=r"--runs=.*b/result.json: names no entries of the store; remove"):
        report(["--prune"])
    assert names(store) == before
    shutil.rmtree(store.parent / "digits" / "b")
    report(["--prune"])
    assert len(names(store)) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--list", "--store", "nowhere"], "--store=nowhere: no such folder"),
        (["--prune", "--runs", "nowhere"], "--runs=nowhere: no such folder"),
        (
            ["--prune", "--runs", "runs/store"],
            "--runs=runs/store: contains no runs, so every entry would be removed",
        ),
        (["--prune", "--hours", "-1"], "--hours=-1.0: expected a number of at least 0"),
        (["--prune", "--hours", "nan"], "--hours=nan: expected"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_removes_nothing(
    store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    before = names(store)
    with pytest.raises(SystemExit) as stop:
        main(["store", *arguments])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.startswith(f"defense-report: {said}")
    assert len(err.splitlines()) == 1
    assert names(store) == before


def test_a_result_that_cannot_be_read_is_said(store: Path) -> None:
    (store.parent / "digits" / "b").mkdir()
    (store.parent / "digits" / "b" / "result.json").write_text('{"task": "def')
    with pytest.raises(InputError, match=r"b/result.json: cannot be read"):
        report(["--prune"])
    (store.parent / "digits" / "b" / "result.json").write_text('{"numbers": []}')  # of something else
    assert "removed 5 things" in report(["--prune"])


def test_after_pruning_a_kept_run_has_all_it_needs(
    command: Command, tmp_path: Path, prune: Callable[[], str]
) -> None:
    for name, epochs in (("a", 1), ("b", 2)):
        assert command(*TINY, f"train.epochs={epochs}", f"hydra.run.dir=runs/{name}")[0] == 0
    shutil.rmtree(tmp_path / "runs/a")
    assert "removed 13 things" in prune()  # all twelve stages of it and its pages; they share none
    assert command(*TINY, "hydra.run.dir=runs/b")[0] == 0
    again = json.loads((tmp_path / "runs/b/result.json").read_text("utf-8"))
    assert sorted(again["reused"]) == sorted(set(again["seconds"]) - {"pages"})  # they show another command


@pytest.fixture
def prune(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def call() -> str:
        capfd.readouterr()
        main(["store", "--prune", "--hours", "0"])
        return capfd.readouterr().out

    return call


def test_runs_behind_a_link_are_kept_and_a_link_that_leads_back_ends(store: Path, tmp_path: Path) -> None:
    train = keyed(store)[1]
    aged(store)
    a_run(tmp_path / "elsewhere" / "b", {"train": train})
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "runs")
    report(["--prune"])
    assert train in names(store)


def test_the_runs_of_another_store_have_to_be_named(store: Path, tmp_path: Path) -> None:
    other = store.rename(tmp_path / "other")
    with pytest.raises(InputError, match=r"--runs=: expected the folder of the runs that .*other is of"):
        report(["--prune", "--store", str(other)])
    assert "would remove" in report(["--prune", "--dry-run", "--store", str(other), "--runs", "runs"])


def test_why_two_entries_differ(store: Path) -> None:
    first, train, second = keyed(store)
    assert report(["--why", first, second]) == "seed: 0, 2"
    assert report(["--why", first.rpartition("/")[2][:9], train]).splitlines() == [
        "seed: 0, 1",
    ]
    assert report(["--why", first, first]) == "nothing: both are one entry"
    for name, said in (("score/", "no such entry"), ("train/zzz", "no such entry"), ("../x", "no such entry")):
        with pytest.raises(InputError, match=f"--why={name}: {said}; expected STAGE/KEY"):
            report(["--why", first, name])
