"""What choices say they read is what the code reads, found out by watching it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from defense.config.choices import AttackName, Direction, Harm, Members, Method, Norm, Source, TreatmentName
from defense.config.compose import CONF, composed
from defense.config.reads import names_read, read, readers_of, reading, table_of_readers, unread
from defense.config.schema import Attack, Data, Scorer, Threat, Train, Treat
from defense.data.validation import Validation
from defense.models.checkpoints import Checkpoint
from defense.runtime.progress import no_progress
from defense.stages.treat import TREATMENTS, RankedSamples
from tests.calls import perturb, score, treat
from tests.conftest import TINY, changed, make_split

Settings = TypeVar("Settings", Scorer, Attack, Treat, Data)


def watched(settings: Settings) -> tuple[Settings, set[str]]:
    """Return the same settings, and the names of the fields that are looked at from now on."""
    seen: set[str] = set()
    kind: Any = type(settings)

    class Watched(kind):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            seen.add(name)
            return super().__getattribute__(name)

    found = Watched(**vars(settings))
    seen.clear()
    return found, seen


def looked_at(settings: Settings, use: Callable[[Settings], object]) -> set[str]:
    """Return the fields of settings that `use` looks at."""
    spy, seen = watched(settings)
    use(spy)
    return seen & {field.name for field in fields(settings)}


NEEDS = {"confident_learning": "cleanlab"}
ELSEWHERE = ("metagradient", "file")  # the others are taken of a model
SCORERS = sorted(file.stem for file in (CONF / "scorer").glob("*.yaml") if file.stem not in ELSEWHERE)
OWN = {"own": ["scorer._target_=my_parts.error_norm"]}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.extra(NEEDS[name]) if name in NEEDS else ()) for name in SCORERS]
)
def test_scorers(name: str) -> None:
    spec = replace(changed(f"scorer={name}", *OWN.get(name, [])).scorer, iterations=2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    train, validation = make_split(12, 3, (1, 2, 2)), make_split(6, 3, (1, 2, 2), seed=1)
    states = [Checkpoint("first", 1.0, model.state_dict()), Checkpoint("last", 1.0, model.state_dict())]

    def use(scorer: Scorer) -> None:
        score(
            model, train, Validation(validation, None), changed("objective=utility").objective, scorer,
            attacked=train, states=states, held_out=torch.full((12, 3), 1 / 3), seed=0, progress=no_progress,
        )  # fmt: skip

    seen, own = looked_at(spec, use), set(read(spec))
    others = {"name", "proxy", "seeds", "folds"}  # of the run; how many folds held_out was made with
    assert seen - {"name"} <= own
    assert own - others - {"scale"} <= seen | {"tolerance", "iterations"}


@pytest.mark.parametrize("name", AttackName)
def test_attacks(name: AttackName) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    samples, ball = make_split(6, 3, (1, 4, 4)), Threat(Norm.Linf, 0.1)
    path = {AttackName.own: "my_parts.ascent"}.get(name)
    spec = Attack(name, steps=2, queries=5, restarts=1, _target_=path)

    def use(attack: Attack) -> None:
        perturb(model, samples, attack, ball, classes=3, batch_size=6, seed=0, progress=no_progress)

    seen = looked_at(spec, use)
    if name is not AttackName.autoattack:  # whose parts are copies, made by looking at every field
        assert seen - {"name"} <= set(read(spec))
    assert set(read(spec)) - {"restarts"} <= seen


@pytest.mark.parametrize("threshold", [None, -1.0])
@pytest.mark.parametrize("name", list(TREATMENTS))
def test_treatments(name: TreatmentName, threshold: float | None) -> None:
    rng = np.random.default_rng(0)
    train = make_split(30, 3, (1, 2, 2))
    labels = train.labels.numpy()
    suggestion = RankedSamples(rng.normal(size=30), (labels + 1) % 3, labels, 3)
    spec = replace(changed().treatment, name=name, threshold=threshold)
    known = {field for field, value in read(spec).items() if value is not None}
    assert looked_at(spec, lambda treatment: treat(train, suggestion, treatment)) <= known | {"threshold"}


def test_a_choice_that_is_not_read_reads_nothing() -> None:
    spec = changed("scorer=loss").scorer
    assert "damping" not in reading(replace(spec, direction=Direction.cg))
    assert "count" not in reading(replace(spec, members=Members.dropout))
    assert {"damping", "count"} <= reading(
        replace(spec, method=Method.alignment, direction=Direction.cg, members=Members.dropout)
    )


def test_values_of_a_result_are_read_like_settings() -> None:
    """A page has the settings as plain values, of which some may be missing."""
    assert "beta" in names_read(Train, {"recipe": "trades", "optimizer": "sgd"})
    assert "beta" not in names_read(Train, {"recipe": "fast", "optimizer": "sgd", "keep": None})


def test_every_setting_that_some_choice_reads_says_which() -> None:
    readers = readers_of(Data)
    assert readers["harm_eps"] == [("harm", Harm.poison), ("harm", Harm.hypocritical)]
    assert [member for _, member in readers["spread"]] == [Source.blobs, Source.moons]
    assert "seed" not in readers


def test_help_lists_every_setting_that_only_some_choices_read() -> None:
    lines = table_of_readers().splitlines()
    assert "train.validation_steps: recipe=adversarial,fast,trades or keep=robust" in lines
    assert "objective.positive: weights=demographic_parity,equal_opportunity" in lines
    named = {line.partition(":")[0] for line in lines}
    for part, settings in (("data", Data), ("train", Train), ("attack", Attack), ("scorer", Scorer)):
        always = names_read(settings, {})  # no choice is made: what is read whatever is chosen
        assert {f"{part}.{field.name}" for field in fields(settings) if field.name not in always} <= named


@pytest.mark.parametrize(
    ("overrides", "readers"),
    [
        (["train.beta=3"], "train.recipe=trades"),
        (["train=trades", "train.beta=3"], None),
        (["train.validation_steps=3"], "train.recipe=adversarial or train.recipe=fast or train.recipe=trades or "
         "train.keep=robust"),
        (["scorer.damping=1"], "scorer.direction=hessian or scorer.direction=cg or scorer.direction=lissa or "
         "scorer.direction=ekfac or scorer.direction=datainf"),
        (["scorer=datainf", "scorer.damping=1"], None),
        (["scorer=loss", "objective=utility"], "a scorer of gradients, as scorer=ip,"),
        (["scorer=loss", "scorer.damping=1"], "a scorer of gradients, as scorer=ip,"),
        (["scorer=ip", "scorer.folds=3"], "scorer.method=confident_learning"),
        (["scorer=loss", "objective.weights.utility=2"], "a scorer of gradients, as scorer=ip,"),
        (["scorer=loss", "objective=utility", "task=faithfulness"], None),
        (["order.share=0.1"], "task=order"),
        (["task=order", "order.share=0.1"], None),
        (["data.harm_eps=0.1"], "data.harm=poison or data.harm=hypocritical"),
        (["data.harm=hypocritical", "train.attack_steps=3"], None),
        (["scorer.proxy=trades", "train.beta=3"], None),
        (["data.harm=hypocritical", "train.beta=3"], "train.recipe=trades"),
        (["attack.queries=7"], "attack.name=square or attack.name=autoattack"),
        (["treatment.held_out=0.4"], "treatment.budget=auto or treatment=optimize"),
        (["treatment=optimize", "treatment.held_out=0.4"], None),
        (["treatment=optimize", "treatment.budget=0.4"], "treatment.discrete=true"),
        (["treatment=optimize", "treatment.discrete=true", "treatment.budget=0.4"], None),
        (["treatment.rounds=3"], "treatment.name=optimize"),
        (["treatment.budget=auto", "treatment.held_out=0.4"], None),
        (["treatment.threshold=-1", "treatment.budget=0.2"], "treatment.threshold=null"),
        (["treatment=reweight", "treatment.balance=class"], "treatment.name=remove or treatment.name=relabel or "
         "treatment.name=optimize"),
        (["seed=3", "model=cnn", "data.spread=0.2", "data=moons"], None),
    ],
    ids=str,
)  # fmt: skip
def test_an_override_that_nothing_reads_names_what_would_read_it(
    overrides: list[str], readers: str | None
) -> None:
    found = unread(composed(*overrides), overrides)
    assert found == (
        [] if readers is None else [f"{overrides[-1]}: not read by this run; {readers} would read it"]
    )


def test_the_command_says_so(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command(*TINY, "task=detect", "scorer=loss", "scorer.damping=3", "train.beta=2")
    assert code == 0
    assert "train.beta=2: not read by this run; train.recipe=trades would read it" in out.splitlines()
    assert len([line for line in out.splitlines() if "not read by this run" in line]) == 2
