"""A run that never began leaves no folder; nothing else is touched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from defense.cli.leftovers import made, note, remove_unbegun

Command = Callable[..., tuple[int, str, str]]


def begun(folder: Path) -> Path:
    """Make what Hydra makes for a run."""
    note(folder)
    (folder / ".hydra").mkdir(parents=True)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (folder / ".hydra" / name).write_text("a: 1\n")
    (folder / "defense.log").touch()
    return folder


def test_what_was_made_for_a_run_is_removed(tmp_path: Path) -> None:
    folder = begun(tmp_path / "runs/digits/now")
    handler = logging.FileHandler(folder / "defense.log")
    logging.getLogger().addHandler(handler)
    remove_unbegun(".hydra")
    assert handler not in logging.getLogger().handlers
    assert list(tmp_path.iterdir()) == []
    assert made == []
    remove_unbegun(".hydra")  # once is enough


@pytest.mark.parametrize(
    "name", ["result.json", ".hydra/mine.yaml", "sub/config.yaml", "model.log/x", "config.yaml"]
)
def test_any_other_file_keeps_all(tmp_path: Path, name: str) -> None:
    folder = begun(tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    remove_unbegun(".hydra")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_log_with_a_word_in_it_keeps_all(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    (folder / "defense.log").write_text("train baseline       2.0 s\n")
    remove_unbegun(".hydra")
    assert (folder / ".hydra/config.yaml").exists()


def test_a_folder_that_was_there_stays_and_so_do_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    folder = begun(tmp_path / "mine")
    remove_unbegun(".hydra")
    assert (folder / "defense.log").exists()
    begun(tmp_path / "runs/digits/now")
    (tmp_path / "runs/digits/other").mkdir()
    remove_unbegun(".hydra")
    assert [path.name for path in (tmp_path / "runs/digits").iterdir()] == ["other"]


def test_the_command_leaves_nothing(command: Command, tmp_path: Path) -> None:
    for words in (["treatment.budget=2"], ["train.epochs=${nosuch}"], ["treatment.budget=2", "hydra.run.dir=a/b"]):
        assert command(*words)[0] == 2
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    assert command("treatment.budget=2", "hydra.run.dir=a")[0] == 2
    assert (tmp_path / "a/.hydra/config.yaml").exists()
