"""The page of orders: what is a level, what is folded, and that both signs of a result are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defense.reporting.page import write_page
from defense.reporting.statistics import compared
from defense.tasks.order.report import angles_of, order_page
from defense.tasks.order.table import Orders, factor_of
from defense.tasks.order.words import mended
from tests.reporting.test_sweeps import result

DAMPINGS = (0.01, 1.0)


def ordered(seed: int, scorer: str, rho: float, *overrides: str) -> dict[str, Any]:
    """Return a result whose correlation is `rho` at the lower damping and 0.9 at the higher."""
    found = [
        {"damping": d, "spearman": s, "kendall": s, "overlap": abs(s), "angle": 40.0, "auc": 0.6}
        for d, s in zip(DAMPINGS, (rho, 0.9), strict=True)
    ]
    angles = {"harmful": {"mean": 120.0, "counts": [1] * 36}, "others": {"mean": 60.0, "counts": [2] * 36}}
    order = {
        "dampings": found,
        "auc": 0.8,
        "lowest_eigenvalue": -0.1,
        "angles": angles,
        "seconds": {"score": 0.5, "reference": 2.0},
    }
    spec = {"reference": "hessian", "dampings": list(DAMPINGS), "share": 0.05, "draw": True}
    made = result(seed, scorer, *overrides, order=order, sizes={"train": 100, "validation": 50})
    return made | {"config": made["config"] | {"order": spec, "task": "order"}}


def sweep(gain: float, spread: float = 0.001) -> list[dict[str, Any]]:
    """Return five seeds at two lengths of training; ip_ensemble has `gain` over ip, `spread` apart by seed."""
    found = []
    for seed in range(5):
        for epochs, rho in ((5, 0.2), (20, 0.6)):
            own = rho + 0.01 * seed
            length = f"train.epochs={epochs}"
            found += [
                ordered(seed, "ip", own, length),
                ordered(seed, "ip_ensemble", own + gain + spread * (seed - 2), length),
                ordered(seed, "random", 0.01 * (seed - 2), length),
            ]
    return found


def test_levels_are_folded_over_all_else_seed_by_seed() -> None:
    orders = Orders.of(sweep(0.0))
    assert orders.factors == ["train.epochs", "damping"]
    assert orders.scorers == ["ip", "ip_ensemble", "random"]
    assert orders.levels("train.epochs") == [5, 20]
    by_hand = [np.mean([0.2 + 0.01 * seed, 0.9]) for seed in range(5)]
    assert orders.by_seed("spearman", "ip", {"train.epochs": 5}).tolist() == pytest.approx(by_hand)
    everywhere = [np.mean([0.2 + 0.01 * seed, 0.6 + 0.01 * seed, 0.9, 0.9]) for seed in range(5)]
    assert orders.by_seed("spearman", "ip").tolist() == pytest.approx(everywhere)


def test_a_run_that_is_found_twice_counts_once() -> None:
    once, twice = Orders.of(sweep(0.0)), Orders.of([*sweep(0.0), *sweep(0.0)[:4]])
    assert len(once.table) == len(twice.table) == 30 * len(DAMPINGS)


@pytest.mark.parametrize(("gain", "word"), [(0.1, "better"), (-0.1, "worse"), (0.0, "not distinguishable")])
def test_both_signs_of_what_the_ensemble_does_are_said(gain: float, word: str) -> None:
    gains = Orders.of(sweep(gain)).gains()
    assert {row.scorer for row in gains} == {"ip_ensemble"}
    places = {
        "": ["all"],
        "train.epochs": ["5", "20"],
        "damping": ["0.01", "1"],
        "matrix": ["indefinite", "definite"],
    }
    assert [(row.factor, row.level) for row in gains] == [(f, level) for f, of in places.items() for level in of]
    assert word in mended(gains)
    by_hand = compared([np.mean([gain + 0.001 * (seed - 2), 0.0]) for seed in range(5)], np.zeros(5)).difference
    assert [gains[0].spearman.difference.low, gains[0].spearman.difference.high] == pytest.approx(
        [by_hand.low, by_hand.high]
    )


def test_the_page_begins_with_the_answer_and_shows_chance(tmp_path: Path) -> None:
    page = order_page(sweep(0.1), "x")
    assert page.headline.startswith("ip keeps much of the order of exact influence: rank correlation +0.6")
    assert "5 seeds; at random" in page.headline
    assert "It is kept worst at train.epochs 5 (+0.56; 20: +0.76), damping 0.01 (+0.42; 1: +0.90)" in page.headline
    write_page(page, tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "| random " in text
    assert (tmp_path / "figures/angles_1.svg").exists()
    assert (tmp_path / "tables/settings.csv").read_text("utf-8").count("\n") == 1 + 2 * len(DAMPINGS)
    rows = {row[0]: row for section in page.sections if section.name == "factor_2" for row in section.rows}
    assert rows["0.01"][-1] == "100"  # the lowest eigenvalue is -0.1
    assert rows["1"][-1] == "0"


@pytest.mark.parametrize(
    ("rho", "said"),
    [
        (0.95, "ip keeps the order"),
        (0.7, "ip keeps much of the order"),
        (0.4, "ip keeps a part of the order"),
        (0.1, "ip keeps little of the order"),
        (0.0, "ip does not measurably keep the order"),
        (-0.9, "ip turns against the order of exact influence"),
    ],
)
def test_the_answer_is_as_strong_as_the_correlation(rho: float, said: str) -> None:
    runs = [ordered(seed, "ip", rho + 0.01 * (seed - 1)) for seed in range(3)]
    for run in runs:
        run["order"]["dampings"] = run["order"]["dampings"][:1]
    assert order_page(runs, "x").headline.startswith(said)


def test_one_seed_is_no_answer() -> None:
    said = order_page([ordered(0, "ip", 0.99)], "x").headline
    assert said.startswith(
        "ip beside the order of exact influence: rank correlation +0.945 (one seed, no interval)"
    )


def test_names_of_factors() -> None:
    assert factor_of("train.epochs=20") == ("train.epochs", 20)
    assert factor_of("+experiment/paper/order_consistency=digits_cnn") == ("order_consistency", "digits_cnn")
    assert factor_of("data.harm_rate=0.05") == ("data.harm_rate", 0.05)


def test_angles_are_counted_by_kind() -> None:
    found = angles_of(np.array([1.0, 0.5, -1.0]), np.array([False, False, True]))
    assert found["others"]["mean"] == pytest.approx(30)
    assert found["harmful"] == {"mean": 180.0, "counts": [0] * 35 + [1]}
    assert sum(found["others"]["counts"]) == 2
