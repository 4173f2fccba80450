"""Relative paths are those of the folder that the command was given in, wherever Hydra runs a cell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from defense.config.schema import Config

Command = Callable[..., tuple[int, str, str]]
Seen = list[tuple[Path, Path, Config, list[str]]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What each cell is given, in place of running it: the current folder, its own, settings and overrides."""
    found: Seen = []

    def launched(config: Config, output: Path, overrides: list[str]) -> Any:
        found.append((Path.cwd(), output, config, overrides))

    monkeypatch.setattr("defense.cli.launch.launched", launched)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return found


@pytest.mark.parametrize("chdir", ["true", "null"])
def test_a_run_has_the_folder_of_its_caller(command: Command, tmp_path: Path, seen: Seen, chdir: str) -> None:
    words = ["data=npz", "data.path=good.npz", "store=s", "data.root=../d", "name=${data.source}"]
    code, out, err = command(*words, "hydra.run.dir=out/a", f"hydra.job.chdir={chdir}")
    assert (code, err) == (0, "")
    ((folder, output, config, overrides),) = seen
    assert (folder, output) == (tmp_path, tmp_path / "out/a")
    assert (config.data.path, config.store, config.data.root) == ("good.npz", "s", "../d")  # as they were typed
    assert overrides == words
    assert str(tmp_path) in sys.path  # so that files of networks are found
    assert str(output) not in sys.path
    assert ("relative paths stay those of the folder" in out) == (chdir == "true")
    assert Path.cwd() == tmp_path


def test_every_cell_has_the_folder_of_the_caller(command: Command, tmp_path: Path, seen: Seen) -> None:
    command("-m", "seed=0,1", "store=s", "hydra.sweep.dir=sweep", "hydra.job.chdir=true")
    assert [folder for folder, *_ in seen] == [tmp_path, tmp_path]
    assert [output for _, output, *_ in seen] == [tmp_path / "sweep/0", tmp_path / "sweep/1"]
    assert [overrides for *_, overrides in seen] == [[f"seed={seed}", "store=s"] for seed in (0, 1)]


def test_a_folder_that_is_gone_is_said(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    """As on a machine of a cluster that has no such folder."""
    gone = str(tmp_path / "gone")
    monkeypatch.setattr("defense.__main__.HydraConfig.get", lambda: moved(gone))
    monkeypatch.setattr("defense.__main__.as_typed", lambda _: [])
    code, _, err = command("hydra.job.chdir=true", "hydra.run.dir=a")
    assert (code, err.count("\n"), seen) == (2, 1, [])
    assert err.startswith(f"defense: hydra.job.chdir=true: cannot go back to {gone}, which relative paths are of")


def moved(folder: str) -> Any:
    """The settings of Hydra of a run that was started in another folder."""
    from types import SimpleNamespace as Settings

    runtime = Settings(cwd=folder, output_dir=folder)
    job, overrides = Settings(chdir=True), Settings(task=[])
    return Settings(runtime=runtime, job=job, overrides=overrides, mode=None, output_subdir=".hydra")
