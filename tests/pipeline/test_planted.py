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
from defense.errors import InputError
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
    "harm", [harm for harm in Harm if harm.changes_labels and harm is not Harm.boxes]
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


HYPOCRITICAL = [*TINY, "train.epochs=5", "data.harm=hypocritical", "data.harm_rate=1", "scorer=loss"]


def test_hypocritical_pictures_go_through_and_no_label_is_said_to_be_wrong(tmp_path: Path) -> None:
    """The model that they are made at has seen attacks of a quarter of their radius, and no other model has."""
    arguments = [*HYPOCRITICAL, "data.harm_eps=0.2", f"store={tmp_path / 'own'}"]
    found = run_in(tmp_path / "out", *arguments)
    assert set(found["selection"].values()) == {None}
    table = pd.read_parquet(tmp_path / "out/scores.parquet")
    assert (table["label"] == table["truth"]).all()
    assert "known to be" not in (tmp_path / "out/report.md").read_text("utf-8")
    trained = {}
    for arm in ("planter", "baseline"):
        manifest = tmp_path / "own" / found["keys"][f"train_{arm}"] / "manifest.json"
        trained[arm] = json.loads(manifest.read_text("utf-8"))["arguments"]
    assert trained["planter"]["training"]["recipe"]["recipe"] == "adversarial"
    assert trained["planter"]["training"]["threat"] == {"norm": "Linf", "eps": 0.05}
    assert trained["baseline"]["training"]["recipe"]["recipe"] == "standard"
    truth = load(composed(*arguments, "data.harm=none", "data.harm_rate=0.2").data, seed=0).train
    assert trained["planter"]["data"]["train.images"] == truth.images.digest()
    assert trained["baseline"]["data"]["train.images"] != truth.images.digest()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["task=detect"],
            "task=detect: expected another with data.harm=hypocritical, which leaves no label wrong",
        ),
        (["scorer=oracle"], "scorer.method=oracle: expected another with data.harm=hypocritical, which leaves no"),
        (["data.harm_rate=1.1"], "data.harm_rate=1.1: expected a fraction in (0, 1]"),
        (["data.harm=poison"], "data.harm_rate=1.0: expected a fraction in (0, 1)"),
        (
            ["train=converged", "data=moons"],
            "data.harm=hypocritical: not with train.optimizer=lbfgs; expected sgd",
        ),
        (["fabric.precision=16-mixed"], "fabric.precision=16-mixed: not with attacks in training"),
    ],
)
def test_what_hypocritical_pictures_cannot_do_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        composed(*HYPOCRITICAL, *words)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
