"""The key of a training holds what the training reads, found out by watching it read."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from defense.config.choices import Keep, Norm, Optimizer, Recipe
from defense.config.reads import read, reading
from defense.config.schema import Threat, Train, plain
from defense.data.splits import Dataset
from defense.models.build import build
from defense.runtime.progress import no_progress
from tests.calls import trained
from tests.conftest import recipe, threat


def settings_read(spec: Train, ball: Threat) -> dict[str, Any]:
    """Return what the key of a training holds of its settings."""
    return {"train": read(spec), "threat": plain(ball) if "threat" in reading(spec) else None}


ADVERSARIAL, FAST, TRADES = (recipe(recipe=name) for name in (Recipe.adversarial, Recipe.fast, Recipe.trades))


@pytest.mark.parametrize(
    "spec",
    [recipe(), ADVERSARIAL, FAST, TRADES, recipe(keep=Keep.robust), recipe(optimizer=Optimizer.lbfgs)],
    ids=lambda spec: f"{spec.recipe}-{spec.keep}-{spec.optimizer}",
)
def test_nothing_is_read_that_is_not_in_the_key(
    digits: Dataset, fabric: Fabric, spec: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is in the key that is not read."""
    seen: set[str] = set()

    class Watched(Train):
        def __getattribute__(self, name: str) -> Any:
            seen.add(name)
            return super().__getattribute__(name)

    class Ball(Threat):
        def __getattribute__(self, name: str) -> Any:
            if name in ("norm", "eps"):
                seen.add("threat")
            return super().__getattribute__(name)

    small = replace(spec, epochs=2, attack_steps=1, validation_steps=1)
    watched = Watched(**{field.name: getattr(small, field.name) for field in fields(Train)})
    count, ball = len(digits.train), Ball(Norm.Linf, 0.1)
    monkeypatch.setattr("defense.training.validation.reading", lambda _: reading(small))  # looks at every field
    seen.clear()
    trained(
        build({"_target_": "defense.models.networks.mlp", "hidden": []}, digits, seed=0),
        digits,
        watched,
        keep=torch.ones(count, dtype=torch.bool),
        weights=torch.ones(count),
        threat=ball,
        seed=0,
        fabric=fabric,
        progress=no_progress,
    )
    names = {field.name for field in fields(Train)}
    key = settings_read(spec, threat())
    own = set(key["train"])
    assert seen & names <= own
    assert ("threat" in seen) == (key["threat"] is not None)
    looked = {"ema", "channels_last", "compile"} if spec.optimizer is Optimizer.lbfgs else set()  # off, or refused
    assert own - looked <= seen


@pytest.mark.parametrize(
    "change", [{"attack_steps": 3}, {"beta": 1.0}, {"validation_steps": 3}, {"tolerance": 0.1}]
)
def test_the_key_of_ordinary_training(change: dict[str, Any]) -> None:
    assert settings_read(recipe(**change), threat()) == settings_read(recipe(), threat(eps=0.3))
    assert settings_read(recipe(keep=Keep.last), threat()) == settings_read(recipe(), threat())
    for other in ({"ema": 0.9}, {"compile": True}, {"channels_last": True}, {"keep": Keep.clean}):
        assert settings_read(recipe(**other), threat()) != settings_read(recipe(), threat())


def test_the_keys_of_the_others() -> None:
    def key(spec: Train, ball: Threat | None = None, **changes: Any) -> dict[str, object]:
        return settings_read(replace(spec, **changes), ball or threat())

    for spec in (ADVERSARIAL, FAST, TRADES):
        assert key(spec) != key(spec, validation_steps=3)
        assert key(spec) != key(spec, threat(eps=0.3))
        assert key(spec) == key(spec, keep=Keep.robust)
        assert key(spec) != key(spec, keep=Keep.last)
    assert key(TRADES) != key(TRADES, beta=1.0)
    assert key(ADVERSARIAL) == key(ADVERSARIAL, beta=1.0)
    assert key(FAST) == key(FAST, attack_steps=3)
    assert key(recipe(), keep=Keep.robust) != key(recipe(), threat(eps=0.3), keep=Keep.robust)
