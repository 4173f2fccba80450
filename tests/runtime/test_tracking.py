from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from defense.config.choices import Tracker
from defense.config.schema import Track
from defense.runtime import tracking
from tests.conftest import TINY

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.extra("tensorboard")
def test_tensorboard_holds_the_curves_of_every_arm_and_the_numbers(command: Command, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing import event_accumulator as events

    for _ in range(2):  # the second attempt, from the store, takes the place of the first
        assert command(*TINY, "track=tensorboard", "hydra.run.dir=runs/a")[0] == 0
    found = json.loads((tmp_path / "runs/a/result.json").read_text("utf-8"))
    read = events.EventAccumulator(str(tmp_path / "runs/a/tensorboard")).Reload()
    for arm in ("baseline", "control", "defended"):
        curve = read.Scalars(f"{arm}/validation_accuracy")
        assert [event.step for event in curve] == [1, 2]
        assert 0 < curve[-1].value <= 100
    (clean,) = read.Scalars("arms.defended.clean")
    assert clean.value == pytest.approx(found["arms"]["defended"]["clean"])
    (gain,) = read.Scalars("gain_over_control.mean")
    assert gain.value == pytest.approx(found["gain_over_control"]["mean"])


@pytest.mark.extra("wandb")
def test_wandb_runs_without_a_network(command: Command, tmp_path: Path) -> None:
    code, _, err = command(*TINY, "track=wandb", "track.online=false", "hydra.run.dir=runs/a")
    assert code == 0, err
    (folder,) = (tmp_path / "runs/a/wandb").glob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    end = time.monotonic() + 20
    while log.stat().st_size < 100 and time.monotonic() < end:  # wandb's own process writes it
        time.sleep(0.1)
    written = log.read_bytes()
    for name in (b"arms.defended.adaptive.worst", b"control/validation_accuracy", b"scorer"):
        assert name in written
    assert not (tmp_path / "wandb").exists()


def test_nothing_is_tracked_unless_asked_for(command: Command, tmp_path: Path) -> None:
    assert command(*TINY, "task=detect", "hydra.run.dir=runs/a")[0] == 0
    assert not (tmp_path / "runs/a/tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_computed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    code, _, err = command(*TINY, "track=wandb")
    assert code == 2
    assert err.strip() == 'defense: track=wandb: not installed; expected it from pip install -e ".[track]"'
    assert not (tmp_path / "runs/store").exists()


def test_measures_are_the_numbers_of_a_result_alone() -> None:
    result = {"seed": 3, "verdict": "better", "arms": {"a": {"clean": 90.5, "adaptive": {"pgd": 40}}}}
    found = tracking.measures({**result, "config": {"x": 1}, "seconds": {"train": 2.0}})
    assert found == {"arms.a.clean": 90.5, "arms.a.adaptive.pgd": 40.0, "seconds.train": 2.0}


@pytest.mark.parametrize("there", ["a login", "none", "a folder of that name"])
def test_what_tracking_needs_is_looked_for_first(
    there: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it keeps the login of an earlier test
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if there == "a folder of that name":
        (tmp_path / "wandb").mkdir()
        monkeypatch.setattr(tracking, "find_spec", lambda name: ModuleSpec(name, None))
        expected = "track=wandb: not installed"
    elif there == "none":
        expected = "track.online=true: no login; expected `wandb login`, or track.online=false"
    else:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        tracking.check_tracker(Track(Tracker.wandb, "defense", True))
        wandb.teardown()
        return
    code, _, err = command(*TINY, "track=wandb")
    assert code == 2
    assert expected in err
    assert not (tmp_path / "runs/store").exists()
