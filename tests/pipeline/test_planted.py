"""Harm that takes a model is planted once, for all runs that are compared on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from defense.config.choices import Harm
from defense.config.compose import composed
from defense.data.load import load
from tests.conftest import TINY, computed_in, result_of, run_in

Command = Callable[..., tuple[int, str, str]]


POISONED = [*TINY, "train.epochs=5", "task=detect", "data.harm=poison"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the run that all changes are changes of."""
    folder = tmp_path_factory.mktemp("store")
    run_in(folder / "before", *POISONED, f"store={folder}")
    return folder


PLANTED = {"train_planter", "plant"}
HARMS = {
    "data.harm_eps=0.3": {"plant"},
    "threat.eps=0.05": {"plant"},
    "data.harm_rate=0.1": {"plant"},
    "train.epochs=4": PLANTED,
    "scorer=loss": set(),
    "scorer.proxy=adversarial": set(),
    "treatment=relabel": set(),
    "train=adversarial": set(),
    "attack.steps=2": set(),
    "data.harm_target=1": set(),
}


@pytest.mark.parametrize("change", HARMS)
def test_what_a_harm_is_made_from(store: Path, tmp_path: Path, change: str) -> None:
    """The planter is one for all scorers, treatments and recipes: they are compared on the same data."""
    before, after = store / "before", tmp_path / "after"
    run_in(after, *POISONED, f"store={store}", change)
    assert computed_in(after) & PLANTED == HARMS[change]
    labels = [pd.read_parquet(folder / "scores.parquet")["label"] for folder in (before, after)]
    assert labels[0].equals(labels[1]) == (change != "data.harm_rate=0.1")
    if not HARMS[change]:
        found, other = result_of(after), result_of(before)
        assert {found["seconds"][stage] for stage in PLANTED} == {other["seconds"][stage] for stage in PLANTED}


def test_a_grid_over_scorers_plants_once(command: Command, tmp_path: Path) -> None:
    arguments = ["-m", *TINY, "train.epochs=5", "data.harm=poison", "scorer=ip,loss", "task=detect"]
    assert command(*arguments, f"store={tmp_path / 'own'}", "hydra.sweep.dir=sweep")[0] == 0
    reused = [
        set(json.loads((tmp_path / f"sweep/{cell}/result.json").read_text("utf-8"))["reused"]) & PLANTED
        for cell in (0, 1)
    ]
    assert reused == [set(), PLANTED]
    assert len(list((tmp_path / "own/plant").glob("*/manifest.json"))) == 1
    assert len(list((tmp_path / "own/train").glob("*/manifest.json"))) == 2  # planter, baseline


@pytest.mark.parametrize(
    "harm", [harm for harm in Harm if harm not in (Harm.none, Harm.boxes)]
)  # boxes: test_points
def test_every_harm_goes_through_and_is_known(store: Path, tmp_path: Path, harm: Harm) -> None:
    """The oracle takes the harmed samples and no others; the arms are trained on what was planted."""
    arguments = [*TINY, "train.epochs=5", f"store={store}", f"data.harm={harm}", "scorer=oracle"]
    found = run_in(tmp_path / "out", *arguments, "treatment.budget=0.2")
    assert found["selection"] == {"precision": 1, "recall": 1, "auc": 1, "noise": 0.2}
    table = pd.read_parquet(tmp_path / "out/scores.parquet")
    assert (table["treated"] == (table["label"] != table["truth"])).all()
    truth = load(composed(*arguments, "data.harm=none").data, seed=0).train
    assert table["id"].tolist() == truth.ids.tolist()
    assert table["truth"].tolist() == truth.labels.tolist()
    assert run_in(tmp_path / "detect", *arguments, "task=detect")["selection"]["auc"] == 1
