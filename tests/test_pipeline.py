"""What a stage is computed from is in its key: a changed setting recomputes what depends on it, and that alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TINY

Command = Callable[..., tuple[int, str, str]]

TRAINED = {"train_baseline", "train_control", "train_defended"}
TREATED = {"treat_control", "treat_defended"}
ATTACKED = {"attack_test_fgsm", "attack_test_pgd"}
EVALUATED = {"evaluate_baseline", "evaluate_control", "evaluate_defended"}
AFTER_BASELINE = {"attack_validation", "score", "treat_defended", "train_defended"} | ATTACKED | EVALUATED
SCORED = {"score", "train_defended", "evaluate_defended"} | TREATED
RETRAINED = TREATED | {"train_control", "train_defended", "evaluate_control", "evaluate_defended"}
EVERYTHING = TRAINED | TREATED | AFTER_BASELINE

CHANGES = {
    "seed=1": EVERYTHING,
    "data.label_noise=0.1": EVERYTHING,
    "data.train_size=210": EVERYTHING,
    "model.hidden=[8]": EVERYTHING,
    "train.epochs=1": EVERYTHING,
    "train.learning_rate=0.02": EVERYTHING,
    "train.crop=1": EVERYTHING,
    "fabric.precision=bf16-mixed": EVERYTHING,
    "threat.eps=0.05": {"attack_validation"} | SCORED | ATTACKED | EVALUATED,
    "attack.steps=2": {"attack_validation"} | SCORED,
    "objective=utility": SCORED,
    "scorer=random": SCORED,
    "objective.weights.utility=0.5": SCORED,
    "scorer=ip_ensemble": SCORED,
    "scorer.attacked_train=true": SCORED | {"attack_train"},
    "treatment.budget=0.2": RETRAINED,
    "treatment.balance=class": RETRAINED,
    "treatment=relabel": RETRAINED,
    "treatment=reweight": RETRAINED,
    "evaluation.attacks.pgd.steps=3": {"attack_test_pgd"} | EVALUATED,
    "data.test_size=90": None,  # the test split is drawn first: everything may move
    "name=other": set(),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_recomputes_what_depends_on_it(
    command: Command, store: Path, tmp_path: Path, change: str
) -> None:
    arguments = [*TINY, f"store={store}"]
    assert command(*arguments, "hydra.run.dir=before")[0] == 0
    assert command(*arguments, change, "hydra.run.dir=after")[0] == 0
    found = json.loads((tmp_path / "after/result.json").read_text())
    computed = set(found["seconds"]) - set(found["reused"])
    expected = CHANGES[change]
    if expected is None:
        assert computed >= EVALUATED
    else:
        # the same samples can be removed by another score: retraining is then rightly reused
        assert computed <= expected
        assert expected - computed <= RETRAINED - TREATED


OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = self.twin = nn.Linear(64, classes)  # tied
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return (self.head(torch.tanh(x.flatten(1))) + self.twin(x.flatten(1))) / 2
"""


def test_a_users_file_is_part_of_the_key(command: Command, tmp_path: Path) -> None:
    """A network with tied weights and unused parameters runs through; an edited file is noticed."""
    arguments = [*TINY, "train.epochs=5", "model._target_=own_network.Net", "seed=3"]
    (tmp_path / "own_network.py").write_text(OWN)
    assert command(*arguments, "hydra.run.dir=a")[0] == 0
    first = json.loads((tmp_path / "a/result.json").read_text())
    assert command(*arguments, "hydra.run.dir=b")[0] == 0
    assert set(json.loads((tmp_path / "b/result.json").read_text())["reused"]) == set(first["seconds"])
    (tmp_path / "own_network.py").write_text(OWN.replace("tanh", "sin"))
    sys.modules.pop("own_network")
    assert command(*arguments, "hydra.run.dir=c")[0] == 0
    assert "train_baseline" not in json.loads((tmp_path / "c/result.json").read_text())["reused"]
    sys.modules.pop("own_network")
