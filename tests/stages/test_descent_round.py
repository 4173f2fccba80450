"""A round of descent: what it measures, and derivatives, beside the same taken apart; killed, it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from defense.artifacts import DescentRound, Treatment
from defense.config.choices import AttackName, ObjectiveName, Recipe
from defense.config.schema import Attack, Objective, Training
from defense.data.load import held_out
from defense.data.splits import Dataset, Split
from defense.data.validation import Validation
from defense.models.build import Design
from defense.runtime import checkpoint as checkpoint
from defense.runtime.progress import Progress
from defense.runtime.runtime import Runtime
from defense.stages import descent as stage
from defense.stages.descent import Adversary, descent
from defense.stages.metagradient import metagradient
from defense.stages.train import train
from defense.stages.trained import Trained
from defense.stages.trajectory import plainly, trajectory
from defense.stages.treat import untreated
from defense.store.store import FileCheckpointer
from defense.training.sgd import TrainingRun
from tests.calls import perturb
from tests.conftest import recipe, threat

MLP = {"_target_": "defense.models.networks.mlp", "hidden": [16]}
BALL = threat(eps=0.1)
STRONG = Adversary(Attack(AttackName.pgd, steps=5, step_size=0.05), BALL, 7)
ROBUSTNESS = Objective({ObjectiveName.robustness: 1.0}, 1)
UTILITY = Objective({ObjectiveName.utility: 1.0}, 1)


@pytest.fixture(scope="module")
def halved(digits: Dataset) -> Dataset:
    return held_out(digits, 0.5, seed=0)


def training(**changes: Any) -> Training:
    usual: dict[str, Any] = {"epochs": 3, "batch_size": 50, "attack_steps": 2, "learning_rate": 0.1}
    return Training(plainly(recipe(**usual | changes)), BALL)


def weighed(data: Dataset) -> Treatment:
    weights = np.linspace(0.5, 1.5, len(data.train))
    return Treatment(untreated(data.train).table.assign(weight=weights))


def one_round(data: Dataset, runtime: Runtime | None = None, **changes: Any) -> DescentRound:
    given: dict[str, Any] = {"objective": ROBUSTNESS, "adversary": STRONG, "last": False, "recipe": training()}
    given |= changes
    spec = given.pop("recipe")
    common = {"batch_size": 64, "threads": 1}
    return descent(runtime or Runtime(), Design(MLP, data, 3), data, spec, weighed(data), **given, **common)


def test_it_measures_both_parts_attacked_at_the_end_of_its_training(halved: Dataset) -> None:
    found = one_round(halved).measured.set_index("part")
    weights = train(Runtime(), Design(MLP, halved, 3), halved, training(), weighed(halved))
    model = Trained(Design(MLP, halved, 3), weights).network
    for part, split in (("validation", halved.validation), ("choice", halved.choice)):
        assert split is not None
        with torch.no_grad():
            clean = F.cross_entropy(model(split.images.pixels), split.labels).item()
        attacked = perturb(model, split, STRONG.attack, BALL, classes=10, batch_size=64, seed=1)
        with torch.no_grad():
            logits = model(attacked)
        row, right = found.loc[part], (logits.argmax(1) == split.labels).double().mean()
        assert row["objective"] > clean + 0.2
        loss = F.cross_entropy(logits, split.labels).item()
        assert row["objective"] == pytest.approx(loss, rel=0.05)  # other random starts
        assert row["accuracy"] == pytest.approx(100 * float(right), abs=7)  # two of 30 samples


def test_without_an_adversary_it_measures_samples_as_they_are(halved: Dataset) -> None:
    found = one_round(halved, objective=UTILITY, adversary=None).measured.set_index("part")
    weights = train(Runtime(), Design(MLP, halved, 3), halved, training(), weighed(halved))
    model = Trained(Design(MLP, halved, 3), weights).network
    for part, split in (("validation", halved.validation), ("choice", halved.choice)):
        assert split is not None
        with torch.no_grad():
            logits = model(split.images.pixels)
        assert found.loc[part, "objective"] == pytest.approx(
            F.cross_entropy(logits, split.labels).item(), rel=1e-5
        )
        right = (logits.argmax(1) == split.labels).double().mean()
        assert found.loc[part, "accuracy"] == pytest.approx(100 * float(right))


def test_its_scores_are_metagradients_of_the_part_that_drives(halved: Dataset) -> None:
    """Beside the scorer's own stages, on a training with the same weights."""
    design, treatment = Design(MLP, halved, 3), weighed(halved)
    model = Trained(design, train(Runtime(), design, halved, training(), treatment))
    states = trajectory(Runtime(), design, halved, training(), treatment, epochs=3, threads=1)
    scores = metagradient(
        Runtime(), model, states, halved, training(), treatment,
        validation=Validation(halved.validation, None), objective=UTILITY, batch_size=64,
    ).table  # fmt: skip
    found = one_round(halved, objective=UTILITY, adversary=None).scores
    pd.testing.assert_frame_equal(found, scores[["id", "score"]], check_exact=True)


def test_the_part_that_decides_does_not_drive(halved: Dataset) -> None:
    assert halved.choice is not None
    labels = halved.choice.labels.roll(1)
    other = replace(halved, choice=replace(halved.choice, labels=labels))
    one, two = one_round(halved), one_round(other)
    pd.testing.assert_frame_equal(one.scores, two.scores, check_exact=True)
    changed = one.measured.set_index("part")["objective"] != two.measured.set_index("part")["objective"]
    assert changed.to_dict() == {"validation": False, "choice": True}


def test_the_last_round_goes_no_way_back(halved: Dataset) -> None:
    steps: list[int] = []
    runtime = Runtime(progress=lambda done, total, **_: steps.append(done))
    last = one_round(halved, runtime, last=True)
    assert steps == list(range(1, 13))
    assert last.scores.empty
    pd.testing.assert_frame_equal(last.measured, one_round(halved).measured, check_exact=True)


def test_a_round_costs_no_more_than_a_training_an_attack_and_a_score(
    halved: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training steps: 12 of its training, which a score would take again, and 12 of the replay."""
    taken: list[int] = []
    attacked: list[int] = []
    step, perturbed = TrainingRun.step, stage.perturb

    def counting(self: TrainingRun, *batch: Any) -> tuple[Tensor, Tensor]:
        taken.append(1)
        return step(self, *batch)

    def attacking(attacker: Any, split: Split, *given: Any) -> Tensor:
        attacked.append(len(split))
        return perturbed(attacker, split, *given)

    monkeypatch.setattr(TrainingRun, "step", counting)
    monkeypatch.setattr(stage, "perturb", attacking)
    one_round(halved)
    assert len(taken) == 24
    assert attacked == [30, 30]


class Killed(Exception):
    """Stands for SIGKILL, in the middle of a pass."""


def killing(at: int) -> Progress:
    """Return a progress that raises at the report of this number, counted over the whole round."""
    reports = 0

    def progress(done: int, total: int, **numbers: float) -> None:
        nonlocal reports
        reports += 1
        if reports == at:
            raise Killed

    return progress


class Kept(FileCheckpointer):
    """A checkpointer that notes the parts that it saves."""

    saved: set[str]

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        self.saved = getattr(self, "saved", set()) | {part}
        super().save(part, tensors)


def test_a_killed_round_goes_on_to_the_same_bits(
    halved: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    spec = training(recipe=Recipe.adversarial, ema=0.7)
    whole, kept = one_round(halved, recipe=spec), Kept(tmp_path)
    for at in (3, 6, 7, 6, 6):
        with pytest.raises(Killed):
            one_round(halved, Runtime(checkpoint=kept, progress=killing(at)), recipe=spec)
    steps: list[int] = []
    last = Runtime(checkpoint=kept, progress=lambda done, total, **_: steps.append(done))
    found = one_round(halved, last, recipe=spec)
    assert {part.split()[0] for part in kept.saved} == {"states", "adjoints", "attacked"}
    assert steps[0] == 5
    pd.testing.assert_frame_equal(found.scores, whole.scores, check_exact=True)
    pd.testing.assert_frame_equal(found.measured, whole.measured, check_exact=True)
