"""The words for metagradients: what is held fixed, and a warning if the training is rough."""

from __future__ import annotations

from typing import Any

import pytest

from defense.tasks.metagradient import about_derivative, rough


def settings(method: str = "metagradient", recipe: str = "standard", proxy: str | None = None) -> dict[str, Any]:
    return {"scorer": {"method": method, "proxy": proxy}, "train": {"recipe": recipe}}


RECORD = {"robustness objective": 1.0, "smoothness": 0.95, "smoothness step": 0.1, "smoothness epochs": 5.0}


def result(seed: int, smoothness: float, *overrides: str) -> dict[str, Any]:
    record = {"baseline smoothness": 1.0, "baseline_seed1 smoothness": smoothness}
    common = {"name": "x", "seed": seed, "overrides": [*overrides, f"seed={seed}"]}
    return {"scoring": {"record": record}, "config": settings(), **common}


@pytest.mark.parametrize(
    ("recipe", "proxy", "held"), [("standard", None, False), ("trades", None, True), ("standard", "fast", True)]
)
def test_an_attack_of_the_training_is_said_to_be_held_fixed(recipe: str, proxy: str | None, held: bool) -> None:
    said = about_derivative(settings(recipe=recipe, proxy=proxy), RECORD)
    assert ("with the attack of the training held fixed" in said) is held
    assert "exact" not in said


def test_below_the_bar_a_training_is_said_to_be_rough() -> None:
    assert "is smooth in these weights: smoothness 0.95" in about_derivative(settings(), RECORD)
    said = about_derivative(settings(), RECORD | {"smoothness": 0.89})
    assert "Smoothness 0.89, below 0.9" in said
    assert "model=smooth_cnn" in said
    assert about_derivative(settings("alignment"), RECORD) == ""


def test_a_sweep_names_the_rough_runs() -> None:
    """The lowest of several trainings counts."""
    results = [result(0, 0.95, "model=a"), result(0, 0.5, "model=b"), result(1, 0.4, "model=b")]
    which = "(model=b seed=0 0.50; model=b seed=1 0.40)"
    assert rough(results).startswith(f"Smoothness below 0.9 in 2 of 3 runs {which}")
    assert rough(results[:1] * 2) == ""
    assert rough(results[:1]) == ""
    assert rough(results[1:2]).startswith("Smoothness 0.50, below 0.9")
    attacked = results[0] | {"config": settings(recipe="trades")}
    assert rough([attacked, results[0]]).endswith("with the attack of the training held fixed.")
    assert rough([result(seed, 0.1) for seed in range(7)]).count("seed=") == 5
