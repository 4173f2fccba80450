"""Every file in conf/ makes a run that passes the checks."""

from __future__ import annotations

import pytest

from defense.config.compose import CONF, composed
from defense.errors import InputError
from tests.conftest import LAUNCHERS, changed

NEEDS = {
    "npz": ["data.path=x.npz"],
    "image_folder": ["data.path=x"],
    "none": ["task=detect", "model.weights=x.pt"],
    "benchmark/cifar10n": ["data.path=x.npz"],
    "paper/noisy_labels": ["data.path=x.npz"],
    "table": ["data.path=x.csv", "data.target=y"],
    **{
        f"{group}-own": [f"{group}._target_=my_parts.f"]
        for group in ("attack", "objective", "scorer", "treatment")
    },
    **{name: ["task=repair", "objective=utility"] for name in ("text", "sst2", "mrpc", "advglue")},
}
CHOICES = [
    pytest.param(
        group,
        choice := file.relative_to(CONF / group).with_suffix("").as_posix(),
        marks=[pytest.mark.extra(LAUNCHERS[choice])] if choice in LAUNCHERS else [],
        id=f"{group}-{choice}",
    )
    for group in sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
    for file in sorted((CONF / group).rglob("*.yaml"))
]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(group: str, choice: str) -> None:
    config = composed(f"{group}={choice}", *NEEDS.get(choice, NEEDS.get(f"{group}-{choice}", [])))
    if group in ("scorer", "treatment"):
        expected = "f" if (group, choice) == ("scorer", "own") else choice  # of its path
        assert str(getattr(config, group).name) == expected


@pytest.mark.parametrize("task", ["defend", "repair"])
def test_a_treatment_is_read_where_there_is_one(task: str) -> None:
    assert composed(f"task={task}", "treatment.balance=class").treatment.balance == "class"
    assert composed(f"task={task}", "treatment.threshold=0").treatment.threshold == 0


def test_all_scorers_of_leave_one_out_are_about_the_same_training() -> None:
    """And the influence function is exact there: its damping is the weight decay."""
    names = ["ip", "loss", "influence_function", "lissa", "ekfac"]
    cells = {name: composed("experiment=faithfulness/loo", f"scorer={name}") for name in names}
    assert len({str(cell.train) for cell in cells.values()}) == 1
    for name in ("influence_function", "lissa", "ekfac"):
        assert cells[name].scorer.damping == cells[name].train.weight_decay


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.checkpoints=0"], "train.checkpoints=0: expected a whole number of at least 1"),
        (["scorer.seeds=0"], "scorer.seeds=0"),
        (["train.tolerance=0"], "train.tolerance=0.0: expected a number above 0"),
        (
            ["train=adversarial", "train.optimizer=lbfgs"],
            "train.recipe=adversarial: not with train.optimizer=lbfgs",
        ),
        (
            ["train=converged", "scorer.proxy=adversarial"],
            "scorer.proxy=adversarial: not with train.optimizer=lbfgs",
        ),
        (["train=converged", "scorer.proxy=trades"], "scorer.proxy=trades: not with train.optimizer=lbfgs"),
        (["train=fast", "train.optimizer=lbfgs"], "train.recipe=fast: not with train.optimizer=lbfgs"),
        (["train=converged", "train.ema=0.9"], "train.ema=0.9: not with train.optimizer=lbfgs; expected sgd"),
        (["train=converged", "train.keep=clean"], "train.keep=clean: not with train.optimizer=lbfgs"),
        (["train=converged", "train.compile=true"], "train.compile=true: not with train.optimizer=lbfgs"),
        (["train=converged", "train.channels_last=true"], "train.channels_last=true: not with train"),
        (["train=fast", "fabric.precision=16-mixed"], "fabric.precision=16-mixed: not with attacks in training"),
        (["scorer.proxy=trades", "fabric.precision=16-mixed"], "fabric.precision=16-mixed: not with attacks"),
        (["train.keep=robust", "fabric.precision=16-mixed"], "fabric.precision=16-mixed: not with attacks"),
        (["train.attack_steps=0"], "train.attack_steps=0: expected a whole number of at least 1"),
        (["train.validation_steps=0"], "train.validation_steps=0: expected a whole number of at least 1"),
        (["train.beta=0"], "train.beta=0.0: expected a number above 0"),
        (["train.beta=-6"], "train.beta=-6.0: expected a number above 0"),
        (["train.beta=nan"], "train.beta=nan: expected a number above 0"),
        (["train.ema=1"], r"train.ema=1.0: expected a decay between 0 and 1, as in 0.995, or null"),
        (["train.ema=0"], "train.ema=0.0: expected a decay between 0 and 1"),
        (["train.ema=-0.5"], "train.ema=-0.5: expected a decay between 0 and 1"),
        (["faithfulness.count=0"], "faithfulness.count=0"),
        (["+evaluation.attacks.x=pgd"], "evaluation.attacks.x=pgd: expected the settings of an attack"),
        (["evaluation.attacks.apgd_t.step_size=0.1"], "not read by apgd_t; expected null"),
        (
            ["evaluation=fast", "evaluation.attacks.pma.steps=1"],
            "attacks.pma.steps=1: expected a whole number of at ",
        ),
        (
            ["evaluation.masked=[square]"],
            "evaluation.masked=square: expected the name of a square in evaluation.att",
        ),
        (
            ["evaluation.masked=[pgd]"],
            "evaluation.masked=pgd: expected the name of a square in evaluation.attacks",
        ),
        (
            ["evaluation.trusted_weights=[3,1]"],
            r"evaluation.trusted_weights=1.0: expected numbers above 1, as in \[",
        ),
        (["evaluation.trusted_weights=[inf]"], "evaluation.trusted_weights=inf: expected numbers above 1"),
        (["evaluation.trusted_weights=[nan]"], "evaluation.trusted_weights=nan: expected numbers above 1"),
        (["evaluation.trusted_weights=[3,10,3]"], r"trusted_weights=\[3.0, 3.0\]: expected each weight once"),
        (
            ["evaluation.trusted=false", "evaluation.trusted_weights=[3]"],
            r"evaluation.trusted_weights=\[3.0\]: expected \[\] with evaluation.trusted=false",
        ),
        (
            ["threat.norm=L2", "threat.eps=1", "data.harm_eps='8 / 255'"],
            "data.harm_eps=8/255: is meant for Linf; give a radius in L2, as in data.harm_eps=0.5",
        ),
        (["treatment.threshold=0", "treatment.balance=class"], "treatment.threshold=0.0: expected null with"),
        (
            ["task=detect", "treatment.threshold=0"],
            "threshold=0.0: expected null: nothing is treated by task=detect",
        ),
        (["task=repair", "objective=utility", "treatment.budget=auto"], "expected a fraction: it is chosen under"),
        (["task=faithfulness", "treatment.balance=class"], "balance=class: expected none: nothing is treated by"),
        (
            ["data=npz", "data.path=x", "data.outliers=keep"],
            "data.outliers=keep: not read by data=npz; expected refuse",
        ),
        (
            ["data.unreadable=skip"],
            "data.unreadable=skip: not read by data=digits; expected refuse, or data=hugging",
        ),
        (["data.channels=first"], "data.channels=first: not read by data=digits; expected null, or data=npz"),
        (["data.drop=[a]"], r"data.drop=\['a'\]: not read by data=digits; expected null, or data=table"),
        (
            ["data=adult", "data.categories=[age,sex]", "data.numbers=[age]"],
            r"data.numbers=\['age'\]: expected other columns than in data.categories",
        ),
        (["scorer.precision=fp8"], "scorer.precision=fp8: expected one of 32-true, tf32, bf16"),
    ],
)
def test_what_cannot_be_is_said(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        changed(*overrides)
