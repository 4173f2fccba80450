"""Scores by the derivative of a whole training: beside trainings with a weight of 0, and killed in the middle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from defense.artifacts import Scores, Smoothness, Trajectory
from defense.config.choices import ObjectiveName, Recipe
from defense.config.schema import Objective, Train, Training
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.objectives import objective_value
from defense.metagradients.replay import states_of
from defense.metagradients.smoothness import WEIGHT_STEP, directions, smoothness_of
from defense.models.build import Design
from defense.models.predict import predict
from defense.runtime import checkpoint as checkpoint
from defense.runtime.progress import Progress
from defense.runtime.runtime import Runtime
from defense.stages.metagradient import DISTANCE, metagradient, smoothness
from defense.stages.train import train
from defense.stages.trained import Trained
from defense.stages.trajectory import plainly, trajectory
from defense.stages.treat import untreated
from defense.store.store import FileCheckpointer
from tests.conftest import changed, recipe, run_in, threat

MLP = {"_target_": "defense.models.networks.mlp", "hidden": [16]}
SMOOTH = MLP | {"activation": "gelu"}
CNN = {"_target_": "defense.models.networks.cnn", "width": 4}  # with batch norm
SHORT: dict[str, Any] = {"epochs": 4, "batch_size": 50, "attack_steps": 2, "learning_rate": 0.1}
UTILITY = Objective({ObjectiveName.utility: 1.0}, 1)


class Killed(Exception):
    """Stands for SIGKILL, in the middle of a pass."""


def killing(at: int) -> Progress:
    def progress(done: int, total: int, **numbers: float) -> None:
        if done == at:
            raise Killed

    return progress


@dataclass(frozen=True)
class Setting:
    """A training on digits, and what scores of it are taken with."""

    data: Dataset
    settings: dict[str, Any]
    spec: Train

    @property
    def training(self) -> Training:
        return Training(plainly(self.spec), threat(eps=0.1))

    @property
    def design(self) -> Design:
        return Design(self.settings, self.data, 3)

    def model(self, weights: Tensor | None = None) -> Trained:
        treatment = untreated(self.data.train)
        if weights is not None:
            treatment = replace(treatment, table=treatment.table.assign(weight=weights.numpy()))
        return Trained(self.design, train(Runtime(), self.design, self.data, self.training, treatment))

    def trajectory(self, runtime: Runtime | None = None, epochs: int | None = None) -> Trajectory:
        made_of = (self.design, self.data, self.training, untreated(self.data.train))
        return trajectory(runtime or Runtime(), *made_of, epochs=epochs or self.spec.epochs, threads=1)

    def scores(self, model: Trained, states: Trajectory, runtime: Runtime | None = None) -> Scores:
        made_of = (self.data, self.training, untreated(self.data.train))
        seen = Validation(self.data.validation, None)
        return metagradient(
            runtime or Runtime(), model, states, *made_of, validation=seen, objective=UTILITY, batch_size=None
        )

    def smoothness(self, runtime: Runtime | None = None) -> Smoothness:
        made_of = (self.design, self.trajectory(), self.data, self.training, untreated(self.data.train))
        return smoothness(runtime or Runtime(), *made_of)

    def value(self, model: Trained) -> float:
        logits = {"clean": predict(model.network, self.data.validation, batch_size=256)}
        return objective_value(logits, Validation(self.data.validation, None), UTILITY)


@pytest.fixture
def setting(digits: Dataset) -> Callable[..., Setting]:
    def make(settings: dict[str, Any] = SMOOTH, **changes: Any) -> Setting:
        return Setting(digits, settings, recipe(**SHORT | changes))

    return make


@pytest.mark.parametrize("settings", [SMOOTH, {"_target_": "defense.models.networks.smooth_cnn", "width": 8}])
def test_single_samples_at_weight_zero(setting: Callable[..., Setting], settings: dict[str, Any]) -> None:
    """Rank correlation with trainings in the same order in which one sample has weight 0."""
    here = setting(settings, epochs=6)
    model = here.model()
    scores = here.scores(model, here.trajectory()).table["score"].to_numpy()
    rows, before, found = range(0, 200, 8), here.value(model), []
    for row in rows:
        weights = torch.ones(200)
        weights[row] = 0
        found.append(here.value(here.model(weights)) - before)
    assert spearmanr(scores[list(rows)], found).statistic > 0.95


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (MLP, {}),
        (CNN, {"channels_last": True, "ema": 0.9, "crop": 1}),
        (MLP, {"recipe": Recipe.trades}),
        (CNN, {"recipe": Recipe.fast}),
    ],
    ids=str,
)
def test_a_trajectory_ends_at_the_bits_of_the_stored_model(
    setting: Callable[..., Setting], settings: dict[str, Any], changes: dict[str, Any]
) -> None:
    here = setting(settings, **changes)
    model, states = here.model(), here.trajectory()
    scores = here.scores(model, states)
    record = dict(zip(scores.record["name"], scores.record["value"], strict=True))
    assert record[DISTANCE] == 0
    assert record["utility objective"] == pytest.approx(here.value(model), rel=1e-5)
    assert scores.table["id"].tolist() == here.data.train.ids.tolist()
    assert scores.table["score"].abs().min() > 0
    assert len(states_of(states.tensors)) == 5  # of 16 steps: before every fourth, and at the end


def test_another_model_is_said_to_be_another(
    setting: Callable[..., Setting], caplog: pytest.LogCaptureFixture
) -> None:
    here = setting(MLP)
    model, states = here.model(), here.trajectory()
    weights = {name: value.clone() for name, value in model.artifact.weights.items()}
    next(iter(weights.values())).view(-1)[-1] += 0.25
    other = replace(model, artifact=replace(model.artifact, weights=weights))
    with caplog.at_level(logging.WARNING):
        scores = here.scores(other, states)
    record = dict(zip(scores.record["name"], scores.record["value"], strict=True))
    assert record[DISTANCE] == pytest.approx(0.25, rel=1e-3)
    assert "ends up to 0.25 from the stored weights" in caplog.text


def test_an_earlier_epoch_that_was_kept_is_the_end(setting: Callable[..., Setting]) -> None:
    here = setting(MLP)
    shorter = states_of(here.trajectory(epochs=2).tensors)
    longer = states_of(here.trajectory().tensors)
    assert max(shorter) == 8
    assert all(torch.equal(value, longer[8][name]) for name, value in shorter[8].items())


class Kept(FileCheckpointer):
    """A checkpointer that counts what it saves."""

    saved = 0

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        self.saved += 1
        super().save(part, tensors)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save at every occasion."""
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)


@pytest.mark.parametrize("settings", [MLP, CNN])
def test_a_killed_trajectory_goes_on_to_the_same_bits(
    setting: Callable[..., Setting], settings: dict[str, Any], tmp_path: Path, always: None
) -> None:
    here = setting(settings, ema=0.9)
    whole = here.trajectory()
    for at in (3, 7, 14):
        with pytest.raises(Killed):
            here.trajectory(Runtime(checkpoint=FileCheckpointer(tmp_path), progress=killing(at)))
    steps: list[int] = []
    last = Runtime(checkpoint=FileCheckpointer(tmp_path), progress=lambda done, total, **_: steps.append(done))
    found = here.trajectory(last)
    assert steps[0] == 13
    assert found.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in whole.tensors.items())


def killed_again_and_again(here: Setting, folder: Path, times: list[int]) -> None:
    """Kill a reverse pass so many times, each after so many steps, and compare what comes of it."""
    model, states = here.model(), here.trajectory()
    whole = here.scores(model, states)
    kept = Kept(folder)
    for at in times:
        with pytest.raises(Killed):
            here.scores(model, states, Runtime(checkpoint=kept, progress=killing(at)))
    begun: list[int] = []
    last = Runtime(checkpoint=kept, progress=lambda done, total, **_: begun.append(done))
    found = here.scores(model, states, last)
    assert kept.saved > 0
    assert begun[0] > 1
    pd.testing.assert_frame_equal(found.table, whole.table, check_exact=True)
    pd.testing.assert_frame_equal(found.record, whole.record, check_exact=True)


@pytest.mark.parametrize("settings", [MLP, CNN])
def test_a_killed_reverse_pass_goes_on_to_the_same_bits(
    setting: Callable[..., Setting], settings: dict[str, Any], tmp_path: Path, always: None
) -> None:
    killed_again_and_again(setting(settings, recipe=Recipe.adversarial, ema=0.9), tmp_path, [2, 6, 15])


@pytest.mark.slow
def test_a_reverse_pass_that_is_killed_twenty_times(
    setting: Callable[..., Setting], tmp_path: Path, always: None
) -> None:
    here = setting(CNN, epochs=30, batch_size=20)  # 300 steps, 17 segments
    killed_again_and_again(here, tmp_path, [14 * number + 9 for number in range(1, 21)])


def test_states_that_do_not_fit_the_disk_are_refused_before_training(
    setting: Callable[..., Setting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileCheckpointer, "free", lambda self: 1e4)
    steps: list[int] = []
    here = setting(MLP)
    runtime = Runtime(checkpoint=FileCheckpointer(tmp_path), progress=lambda done, total, **_: steps.append(done))
    with pytest.raises(InputError, match=r"GiB for the states of the training, and .* GiB are free; make room"):
        here.trajectory(runtime)
    assert steps == []


def test_smoothness_by_hand() -> None:
    """d = (2, 1, 4): the first goes on, the second turns round, the third only moves at last."""
    start, middle, end = ({"w": torch.tensor(each)} for each in ([0.0, 0, 0], [1.0, 2, 0], [2.0, 1, 4]))
    assert smoothness_of(start, middle, end) == pytest.approx((2 - 1 + 0) / 7)
    assert smoothness_of(start, start, start) == 1
    assert sorted(directions(500, seed=0).unique().tolist()) == [-1, 1]
    assert abs(directions(500, seed=0).sum()) < 100


def test_a_killed_smoothness_goes_on_to_the_same_bits(
    setting: Callable[..., Setting], tmp_path: Path, always: None
) -> None:
    here = setting(MLP, epochs=3, ema=0.5)  # twelve steps in each of two trainings
    whole = here.smoothness()
    begun: list[int] = []
    for at in (5, 9, 20):
        with pytest.raises(Killed):
            here.smoothness(Runtime(checkpoint=FileCheckpointer(tmp_path), progress=killing(at)))
    last = Runtime(checkpoint=FileCheckpointer(tmp_path), progress=lambda done, total, **_: begun.append(done))
    again = here.smoothness(last)
    assert begun == [20, 21, 22, 23, 24]
    pd.testing.assert_frame_equal(again.table, whole.table, check_exact=True)


def test_smooth_networks_are_smoother(setting: Callable[..., Setting]) -> None:
    found = {}
    for name, settings in (("smooth", SMOOTH), ("rough", CNN)):
        table = setting(settings).smoothness().table.set_index("name")["value"]
        found[name] = table["smoothness"]
    assert found["smooth"] > 0.9 > found["rough"]


def test_smoothness_is_of_the_whole_training_with_its_average(setting: Callable[..., Setting]) -> None:
    """Beside three trainings, with an average that a shorter training would be refused with."""
    here = setting(MLP, epochs=4, ema=0.9)  # 16 steps leave 19 % of the first weights, 12 would leave 28 %
    moved = directions(200, seed=here.design.seed)
    ends = [here.model(1 + number * WEIGHT_STEP * moved).artifact.weights for number in range(3)]
    table = here.smoothness().table.set_index("name")["value"]
    assert table["smoothness"] == pytest.approx(smoothness_of(*ends), abs=1e-12)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train=converged", "model=logistic"], "train.optimizer=lbfgs: expected sgd: scorer is a metagradient"),
        (["fabric.precision=bf16-mixed"], "fabric.precision=bf16-mixed: expected 32-true"),
        (["fabric.devices=2"], "fabric.devices=2: expected 1: scorer is a metagradient"),
        (["fabric.num_nodes=2"], "fabric.num_nodes=2: expected 1: scorer is a metagradient"),
    ],
)
def test_trainings_without_a_reverse_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        changed("scorer=metagradient", *overrides)


def test_dropout_is_refused_before_any_compute(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected model\.dropout=0, or another scorer"):
        run_in(tmp_path / "run", "scorer=metagradient", "+model.dropout=0.1", f"store={tmp_path / 'store'}")
    assert not list((tmp_path / "store").glob("train/*"))


SMALL = ["data.train_size=60", "data.validation_size=30", "data.test_size=30", "train.epochs=2", "task=detect"]


def test_a_run_scores_by_it_and_others_never_train_for_it(tmp_path: Path) -> None:
    store = f"store={tmp_path / 'store'}"
    run_in(tmp_path / "ip", *SMALL, store)
    assert not (tmp_path / "store" / "trajectory").exists()
    found = run_in(tmp_path / "meta", *SMALL, store, "scorer=metagradient", "scorer.seeds=2", "scorer.proxy=fast")
    record = found["scoring"]["record"]
    assert {"proxy robustness objective", "proxy smoothness", "proxy_seed1 smoothness"} <= record.keys()
    assert record[f"proxy_seed1 {DISTANCE}"] == 0
    assert len(list((tmp_path / "store" / "trajectory").glob("*/manifest.json"))) == 2
    again = run_in(
        tmp_path / "other", *SMALL, store, "scorer=metagradient", "objective=utility", "scorer.proxy=fast"
    )
    assert "trajectory_proxy" in again["reused"]
    assert "metagradient_proxy" not in again["reused"]


def test_another_number_of_threads_is_another_trajectory(setting: Callable[..., Setting]) -> None:
    from defense.store.stage import STAGES

    here = setting(MLP)
    made_of = (here.design, here.data, here.training, untreated(here.data.train))
    stage = STAGES["trajectory"]
    one, two = (stage.identity(Runtime(), stage.bind(*made_of, epochs=2, threads=count)) for count in (1, 2))
    assert one != two
