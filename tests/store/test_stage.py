"""What a declared stage has in its key, who computes it, and what a runner keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pandas as pd
import pytest
import torch

from defense.artifacts import Scores
from defense.config.choices import reads
from defense.config.schema import Scorer
from defense.data.splits import Split
from defense.runtime.distributed import SingleProcess
from defense.runtime.runtime import Runtime
from defense.store.fingerprint import key_of
from defense.store.stage import STAGES, Stage, StageRunner, stage, unread
from tests.conftest import make_split, scorer

ROOM = ModuleType("defense.room")
ROOM.VERSION = 1  # type: ignore[attr-defined]
SPLIT = make_split(4, 2, (1, 2, 2))
SEEN: list[Runtime] = []  # the runtimes that the stage was called with


class Second(SingleProcess):
    """One of two processes, which speaks to nobody."""

    size = 2


def scores(value: float) -> Scores:
    return Scores(pd.DataFrame({"id": [1], "score": [value]}), pd.DataFrame({"name": [], "value": []}))


@pytest.fixture
def counted() -> Iterator[Callable[..., Scores]]:
    """A declared stage; it is forgotten after the test."""

    @stage(version=3, code=(ROOM,), shared=lambda arguments: arguments["together"], as_before={"newer": 0})
    def counted(
        runtime: Runtime,
        split: Annotated[Split, reads("ids", "labels")],
        spec: Annotated[Scorer, unread("name")],
        value: float = 1.0,
        *,
        together: bool = False,
        newer: object = 0,
    ) -> Scores:
        """Return a score."""
        SEEN.append(runtime)
        return scores(value)

    SEEN.clear()
    yield counted
    del STAGES["counted"]


def declared() -> Stage:
    return STAGES["counted"]


def key(*given: Any, runtime: Runtime | None = None, **named: Any) -> str:
    usual = () if "split" in named else (SPLIT, scorer())
    arguments = declared().bind(*(given or usual), **named)
    return key_of(declared().identity(runtime or Runtime(), arguments))


@pytest.mark.usefixtures("counted")
def test_every_argument_is_in_the_key_by_what_is_read_of_it() -> None:
    other = make_split(4, 2, (1, 2, 2), seed=1)  # the same labels of other pictures
    assert key() == key(other, scorer()) == key(spec=scorer(), split=SPLIT) == key(value=1)
    assert key() == key(SPLIT, scorer(name="other", damping=9.0))  # one is declared unread, one is not read by ip
    relabelled = Split(SPLIT.ids, SPLIT.images, 1 - SPLIT.labels, SPLIT.truth)
    changed = [
        key(relabelled, scorer()),
        key(SPLIT, scorer(cosine=True)),
        key(value=2.0),
        key(together=True),
        key(newer=1),
    ]
    assert len({key(), *changed}) == 6


@pytest.mark.usefixtures("counted")
def test_an_argument_with_the_value_of_before_leaves_keys_as_they_were() -> None:
    arguments = declared().bind(SPLIT, scorer())
    older = {name: value for name, value in arguments.items() if name != "newer"}
    assert declared().identity(Runtime(), arguments) == declared().identity(Runtime(), older)
    forms = [0.0, False, None, torch.zeros(2), pd.DataFrame({"a": [0]})]
    assert [key(newer=value) == key() for value in forms] == [True, False, False, False, False]


@pytest.mark.usefixtures("counted")
def test_versions_of_the_stage_and_of_its_rooms_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    assert declared().versions == {"counted": 3, "room": 1}
    monkeypatch.setattr(ROOM, "VERSION", 2)
    assert key() != before


@pytest.mark.usefixtures("counted")
def test_of_the_runtime_device_and_precision_alone_are_in_the_key() -> None:
    progress = Runtime(progress=print, label="a", ranks=Second())
    assert key(runtime=progress) == key(runtime=progress, together=False) == key()


def test_the_number_of_ranks_is_in_the_key_of_a_stage_that_counts_them() -> None:
    def alone(runtime: Runtime) -> Scores:
        return scores(0)

    for counts, several in ((True, True), (True, False), (False, True)):
        one = Stage(alone, 1, (), lambda arguments, several=several: several, {}, counts)  # type: ignore[misc]
        keys = {key_of(one.identity(Runtime(ranks=ranks), {})) for ranks in (Second(), SingleProcess())}
        assert len(keys) == 1 + (counts and several)


def test_without_a_runner_it_is_computed_in_place(counted: Callable[..., Scores]) -> None:
    runtime = Runtime(ranks=Second())
    assert counted(runtime, SPLIT, scorer(), 5.0).table["score"].item() == 5.0
    counted(runtime, SPLIT, scorer(), together=True)
    assert [each.ranks.size for each in SEEN] == [1, 2]  # who computes alone waits for nobody


def test_a_runner_computes_once_and_notes_label_key_seconds_and_reuse(
    counted: Callable[..., Scores], tmp_path: Path
) -> None:
    runners = [StageRunner(tmp_path) for _ in range(2)]
    found = [counted(Runtime(runner=each, label="x"), SPLIT, scorer(), 5.0) for each in runners]
    assert len(SEEN) == 1
    assert SEEN[0].runner is None  # a stage that called another would compute it in place
    assert [each.table["score"].item() for each in found] == [5.0, 5.0]
    (label, entry), *others = runners[0].keys.items()
    assert (label, others, runners[1].keys) == ("counted_x", [], runners[0].keys)
    assert (tmp_path / entry / "manifest.json").is_file()
    assert [each.reused for each in runners] == [[], ["counted_x"]]
    assert runners[0].seconds == runners[1].seconds
    counted(Runtime(runner=runners[0], label="x"), SPLIT, scorer(), 5.0)
    assert runners[0].reused == []  # called again in the run that computed it


def test_two_stages_of_one_name_are_refused(counted: Callable[..., Scores]) -> None:
    with pytest.raises(ValueError, match="two stages are called counted"):
        stage(version=1)(declared().function)


def test_a_stage_that_is_called_like_a_room_is_refused() -> None:
    """The versions of both stand in the key by name."""

    def models(runtime: Runtime) -> Scores:
        raise AssertionError

    from defense import models as room

    with pytest.raises(ValueError, match="a stage and a room are called models"):
        stage(version=1, code=(room,))(models)
