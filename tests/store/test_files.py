"""A disk that refuses: nothing is half believed, nothing that was kept is lost, and the error is one line."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import pytest
import torch

from defense import artifacts
from defense.artifacts import AdversarialSet, Scores
from defense.errors import InputError
from defense.store import store as module
from defense.store.store import FileCheckpointer, Store, Stored
from tests.cli.test_cli import Command

COMMON = {"made_of": {}}
SCORES = Scores(pd.DataFrame({"id": [3], "score": [0.5]}), pd.DataFrame({"name": ["a"], "value": [0.5]}))


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def once(root: Path, compute: Callable[[FileCheckpointer], Scores] = lambda _: SCORES) -> Stored[Scores]:
    return Store(root).once("score", Scores, compute=compute, **COMMON)


@pytest.mark.parametrize("where", ["save", "write_json", "sync", "seal"])
def test_a_full_disk_is_one_line_and_the_next_attempt_has_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    seen = []

    def compute(progress: FileCheckpointer) -> Scores:
        known = progress.load("a")
        seen.append(known and known["x"].item())
        if known is None:
            progress.save("a", {"x": torch.tensor(5)})
            if where == "sync":
                monkeypatch.setattr(module, where, full)  # not before: progress is synced, too
        return SCORES

    with monkeypatch.context() as patch:
        if where != "sync":
            patch.setattr(module, where, full)
        with pytest.raises(InputError, match=r"^store=.*: cannot be used \(No space left on device\)") as error:
            once(tmp_path, compute)
    monkeypatch.undo()
    assert "\n" not in str(error.value)
    (part,) = (tmp_path / "score").glob("*.part")
    assert [path.name for path in part.iterdir()] == ["progress"]
    assert not once(tmp_path, compute).reused
    assert seen == [None, 5]
    assert once(tmp_path).reused
    assert [path.suffix for path in (tmp_path / "score").iterdir()] == [""]


def test_progress_that_cannot_be_kept_is_said_and_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    progress = FileCheckpointer(tmp_path / "progress")
    progress.save("a", {"x": torch.tensor(1)})
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(module, "sync", full)
        progress.save("a", {"x": torch.tensor(2)})
        progress.save("b", {"x": torch.tensor(3)})
    assert caplog.text.count("cannot be written (No space left on device): a kill would lose") == 2
    assert progress.load("a") == {"x": torch.tensor(1)}
    assert progress.load("b") is None
    assert [path.name for path in (tmp_path / "progress").iterdir()] == ["a.tensors"]


CLOSED = 77  # exit code


def in_a_child(job: Callable[[], None]) -> int:
    """Run `job` in a process whose files may have 20 kB, which all libraries notice while they write."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        job()

    child = multiprocessing.get_context("fork").Process(target=limited)
    child.start()
    child.join(60)
    return child.exitcode if child.exitcode is not None else -1


@pytest.mark.parametrize("kind", ["tensors", "table"])
def test_a_real_limit_is_noticed_whoever_writes(tmp_path: Path, kind: str) -> None:
    """Safetensors and pyarrow have errors of their own for it."""
    large = {
        "tensors": AdversarialSet({"pictures": torch.rand(10_000)}),
        "table": Scores(pd.DataFrame({"score": torch.rand(10_000).numpy()}), SCORES.record),
    }[kind]

    def job() -> None:
        progress_said = []

        def compute(progress: FileCheckpointer) -> object:
            progress.save("small", {"x": torch.tensor(1)})
            progress.save("large", {"x": torch.rand(10_000)})
            progress_said.extend([progress.load("small"), progress.load("large")])
            return large

        with pytest.raises(InputError, match=r"^store=.*: cannot be used \(.*File too large"):
            Store(tmp_path).once("attack", type(large), compute=compute, **COMMON)  # type: ignore[type-var, arg-type]
        assert progress_said == [{"x": torch.tensor(1)}, None]

    assert in_a_child(job) == 0
    (part,) = (tmp_path / "attack").glob("*.part")
    assert [str(path.relative_to(part)) for path in sorted(part.rglob("*"))] == [
        "progress",
        "progress/small.tensors",
    ]
    assert not Store(tmp_path).once("attack", type(large), compute=lambda _: large, **COMMON).reused
    assert Store(tmp_path).once("attack", type(large), compute=lambda _: large, **COMMON).reused


def test_a_file_in_place_of_a_folder(tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").write_text("")
    for root in ("file", "file/store"):
        code, _, err = command(f"store={root}")
        assert code == 2
        assert err.startswith(f"defense: store={root}: cannot be used (")
        assert len(err.splitlines()) == 1
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "score").write_text("")
    with pytest.raises(InputError, match=r"cannot be used \((File exists|Not a directory): .*score"):
        once(tmp_path / "store")


def test_a_folder_that_cannot_be_written() -> None:
    """Root may write everywhere, so the one who tries is somebody else then."""

    def job() -> None:
        if os.geteuid() == 0:
            os.seteuid(65_534)
        try:  # a clone or an environment in a folder of root's own is closed to others
            Path(module.__file__).open().close()
            version("defense")
        except (OSError, PackageNotFoundError):
            sys.exit(CLOSED)
        for root in (folder, folder / "store"):
            with pytest.raises(InputError, match=r"cannot be used \(Permission denied: "):
                once(root)

    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        folder = Path(name)
        for stage in (None, "score"):
            if stage:
                (folder / stage).mkdir()
                (folder / stage).chmod(0o555)
            folder.chmod(0o555)
            code = in_a_child(job)
            folder.chmod(0o700)
            if code == CLOSED:
                pytest.skip("the package is where nobody but root may read it")
            assert code == 0


def test_what_may_not_be_read_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = once(tmp_path).key

    def denied(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(module, "checksum", denied)
        with pytest.raises(InputError, match=r"cannot be used \(Permission denied: .*"):
            once(tmp_path)
    assert [path.name for path in (tmp_path / "score").glob(f"{key}*") if path.suffix != ".lock"] == [key]
    assert once(tmp_path).reused


def test_no_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(InputError, match=r"its file system has no locks \(flock\).*expected another folder"):
        once(tmp_path)


def test_what_is_whole_and_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another version of a library has written it."""
    key = once(tmp_path).key
    save = artifacts.save

    def otherwise(artifact: object, folder: Path) -> None:
        save(artifact, folder)
        (folder / "record.parquet").write_bytes(b"PAR9")

    once(tmp_path)
    (tmp_path / "score" / key).rename(tmp_path / "aside")
    monkeypatch.setattr(module, "save", otherwise)
    once(tmp_path)
    with pytest.raises(InputError, match=rf"{key}: is whole, but cannot be read \(.*\); remove this folder"):
        once(tmp_path)


def test_an_error_of_the_computation_is_not_one_of_the_store(tmp_path: Path) -> None:
    def fails(_: FileCheckpointer) -> Scores:
        raise FileNotFoundError("data.npz")

    with pytest.raises(FileNotFoundError, match=r"data\.npz"):
        once(tmp_path, fails)
