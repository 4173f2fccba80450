from __future__ import annotations

import logging
import multiprocessing
import shutil
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from defense.artifacts import AdversarialSet, Scores, TrainedModel, load, save
from defense.store.store import FileCheckpointer, Store, Stored, verified_manifest


def scores(value: float = 1.0) -> Scores:
    table = pd.DataFrame({"id": [3, 5], "score": [value, -0.5], "treated": [True, False]})
    return Scores(table, pd.DataFrame({"name": ["objective"], "value": [0.5]}))


def once(store: Store, compute, seed: int = 0) -> Stored[Scores]:  # type: ignore[no-untyped-def]
    return store.once(
        "score",
        Scores,
        made_of={"seed": seed, "model": "abc"},
        compute=lambda _: compute(),
    )


def forbidden() -> Scores:
    raise AssertionError("computed again")


def test_computed_once_and_equal_afterwards(tmp_path: Path) -> None:
    first = once(Store(tmp_path), scores)
    again = once(Store(tmp_path), forbidden)
    assert (first.reused, again.reused) == (False, True)
    assert (first.key, first.seconds) == (again.key, again.seconds)
    pd.testing.assert_frame_equal(first.artifact.table, again.artifact.table)


def test_every_part_of_the_identity_makes_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"a": 1, "b": "x", "code": {"score": 1}}
    variants = [common, {**common, "a": 2}, {**common, "b": "y"}, {**common, "code": {"score": 2}}]
    store = Store(tmp_path)
    keys = {store.once("score", Scores, compute=lambda _: scores(), made_of=each).key for each in variants}
    monkeypatch.setattr("defense.store.store.version", lambda name: "99")
    keys.add(store.once("score", Scores, compute=lambda _: scores(), made_of=common).key)
    assert len(keys) == 5


def test_a_failure_leaves_nothing_that_is_believed(tmp_path: Path) -> None:
    def fails() -> Scores:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(Store(tmp_path), fails)
    key = once(Store(tmp_path / "other"), scores).key
    part = tmp_path / "score" / f"{key}.part"  # as a kill in the middle of writing leaves it
    part.mkdir()
    (part / "table.parquet").write_bytes(b"half")
    assert not once(Store(tmp_path), scores).reused
    assert not part.exists()
    assert once(Store(tmp_path), forbidden).reused


@pytest.mark.parametrize("name", ["table.parquet", "record.parquet", "manifest.json", "manifest.sha256"])
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damage_is_noticed_and_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    entry = tmp_path / "score" / once(Store(tmp_path), scores).key
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (entry / name).unlink()
    if damage == "flip":
        (entry / name).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        mended = once(Store(tmp_path), scores)
    assert not mended.reused
    assert "is damaged" in caplog.text
    assert once(Store(tmp_path), forbidden).reused


def test_an_entry_under_the_name_of_another_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (tmp_path / "score" / once(Store(tmp_path), scores, seed).key for seed in (0, 1))
    shutil.rmtree(first)
    second.rename(first)
    assert not once(Store(tmp_path), scores).reused
    assert "its manifest is of another key" in caplog.text


def test_every_byte_of_an_entry_counts(tmp_path: Path) -> None:
    """Of the manifest, too: of the digits of a time as of white space."""
    entry = tmp_path / "score" / once(Store(tmp_path), scores).key
    for name in ("manifest.json", "manifest.sha256"):
        whole = (entry / name).read_bytes()
        for position in range(len(whole)):
            for flip in (0x01, 0x07):  # 7: a line feed becomes a carriage return
                damaged = bytearray(whole)
                damaged[position] ^= flip
                (entry / name).write_bytes(damaged)
                assert verified_manifest(entry) is None
                (aside,) = entry.parent.glob("*.corrupt-*")
                aside.rename(entry)
        (entry / name).write_bytes(whole)
    assert verified_manifest(entry)


def _slow(root: Path, calls: Path) -> None:
    def compute() -> Scores:
        with calls.open("a") as file:
            file.write("x")
        time.sleep(0.3)
        return scores()

    once(Store(root), compute)


def test_parallel_jobs_compute_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_slow, args=(tmp_path / "store", tmp_path / "calls")) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    assert (tmp_path / "calls").read_text("utf-8") == "x"


@pytest.mark.parametrize(
    "artifact",
    [
        scores(float("nan")),
        AdversarialSet({"pictures": torch.rand(2, 1, 3, 3)}),
        TrainedModel(
            {"w": torch.rand(3), "n": torch.tensor(4)}, {}, pd.DataFrame({"epoch": [1], "train_loss": [0.5]})
        ),
    ],
    ids=lambda artifact: type(artifact).__name__,
)
def test_artifacts_come_back_as_they_were(tmp_path: Path, artifact) -> None:  # type: ignore[no-untyped-def]
    save(artifact, tmp_path)
    again = load(type(artifact), tmp_path)
    for name, value in vars(artifact).items():
        other = getattr(again, name)
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, other)
        else:
            assert value.keys() == other.keys()
            assert all(torch.equal(value[key], other[key]) for key in value)


def test_what_a_killed_attempt_has_kept_is_there_for_the_next(tmp_path: Path) -> None:
    seen = []

    def attempt(progress: FileCheckpointer, *, last: bool) -> Scores:
        known = progress.load("first half/a")
        seen.append(None if known is None else known["x"].tolist())
        progress.save("first half/a", {"x": torch.tensor([1.0, 2.0])})
        if not last:
            raise KeyboardInterrupt
        return scores()

    common = {"made_of": {}}
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).once("score", Scores, compute=partial(attempt, last=False), **common)
    key = Store(tmp_path).once("score", Scores, compute=partial(attempt, last=True), **common).key
    assert seen == [None, [1.0, 2.0]]
    names = sorted(path.name for path in (tmp_path / "score" / key).iterdir())
    assert names == ["manifest.json", "manifest.sha256", "record.parquet", "table.parquet"]
    assert not (tmp_path / "score" / f"{key}.part").exists()


def test_damaged_progress_is_said_and_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    progress = FileCheckpointer(tmp_path)
    progress.save("a", {"x": torch.arange(100)})
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for position in range(0, len(whole), 37):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert progress.load("a") is None
    file.write_bytes(whole[:20])
    assert progress.load("a") is None
    assert "is damaged: computed again" in caplog.text
    file.write_bytes(whole)
    assert torch.equal(progress.load("a")["x"], torch.arange(100))


def test_a_store_of_another_format_is_left_alone_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("defense.store.store.FORMAT", 2)
        old = once(Store(tmp_path), scores)
    caplog.clear()
    new = once(Store(tmp_path), scores)
    assert (new.reused, new.key != old.key) == (False, True)
    assert len(caplog.messages) == 1
    assert "has entries of format 2, this version writes format 4" in caplog.text
    assert verified_manifest(tmp_path / "score" / old.key) is not None
    once(Store(tmp_path), forbidden)
    assert len(caplog.messages) == 1
