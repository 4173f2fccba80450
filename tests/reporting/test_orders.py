"""The page of orders: what is a level, what is folded, and that both signs of a result are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defense.errors import InputError
from defense.reporting.page import write_page
from defense.reporting.statistics import Mean, compared, mean_interval
from defense.tasks.order.report import against_ip, agreement, angles_of, auc_of, order_page
from defense.tasks.order.table import METRICS, Orders, shown
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
    for name, _, value in (override.partition("=") for override in overrides):
        group, _, field = name.partition(".")
        made["config"] |= {group: made["config"].get(group, {}) | {field: float(value)} if field else value}
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
    by_hand = {
        epochs: mean_interval([np.mean([rho + 0.01 * seed, 0.9]) for seed in range(5)])
        for epochs, rho in ((5, 0.2), (20, 0.6))
    }
    means = orders.correlations("scorer", "train.epochs")
    assert list(means)[:2] == [("ip", 5), ("ip", 20)]
    everywhere = mean_interval([np.mean([0.2 + 0.01 * seed, 0.6 + 0.01 * seed, 0.9, 0.9]) for seed in range(5)])
    pairs = [(means["ip", epochs], mean) for epochs, mean in by_hand.items()]
    for found, expected in [*pairs, (orders.correlations("scorer")["ip",], everywhere)]:
        numbers = [found.mean, found.low, found.high]
        assert numbers == pytest.approx([expected.mean, expected.low, expected.high])
        assert found.count == 5


def test_a_run_that_is_found_twice_counts_once() -> None:
    once, twice = Orders.of(sweep(0.0)), Orders.of([*sweep(0.0), *sweep(0.0)[:4]])
    assert len(once.table) == len(twice.table) == 30 * len(DAMPINGS)
    assert len(once.results) == len(twice.results) == 30


@pytest.mark.parametrize(
    ("change", "name"), [({"device": "cuda"}, "device"), ({"versions": {"torch": "3"}}, "versions.torch")]
)
def test_a_seed_of_two_machines_is_refused(change: dict[str, Any], name: str) -> None:
    """Their mean would count one seed as two, or hide one of them."""
    runs = sweep(0.0)
    with pytest.raises(InputError) as error:
        Orders.of([*runs, runs[0] | change])
    assert str(error.value) == (
        f"PATH=ip (2), train.epochs=5, seed 0: two runs that differ in {name}; expected one of them on a page"
    )
    assert len(Orders.of([*runs[1:], runs[0] | change]).results) == len(runs)  # every seed once


def test_a_swept_objective_is_a_factor_like_any_other() -> None:
    """Each scorer is compared with ip at the same objective."""
    runs = [
        ordered(seed, scorer, rho + 0.01 * seed, f"objective={objective}")
        for seed in range(3)
        for objective, base in (("utility", 0.2), ("robustness", 0.5))
        for scorer, rho in (("ip", base), ("datainf", base + 0.1 + 0.001 * seed))
    ]
    orders = Orders.of(runs)
    assert (orders.factors, orders.scorers) == (["objective", "damping"], ["ip", "datainf"])
    gains = {gain.place: gain for gain in orders.gains()}
    assert list(gains)[:3] == ["all", "objective=utility", "objective=robustness"]
    expected = np.mean([0.1 + 0.001 * seed for seed in range(3)]) / 2  # at one of two dampings
    assert gains["objective=utility"].differences["spearman"].difference.mean == pytest.approx(expected)


def test_numbers_are_printed_within_the_bounds_of_their_measure() -> None:
    wide = Mean(0.5, -1.2, 1.7, 3)
    assert METRICS["spearman"].text(wide) == "+0.500 (-1.000 to +1.000)"
    assert METRICS["overlap"].text(wide) == "50.0 (0.0 to 100.0)"
    assert METRICS["auc"].text(wide) == "0.500 (0.000 to 1.000)"
    assert METRICS["spearman"].text(mean_interval([0.25])) == "+0.250"
    assert METRICS["angle"].text(Mean(40.4, 30.0, 50.0, 3)) == "40"
    assert [METRICS["auc"].text(nothing) for nothing in (None, np.nan)] == ["-", "-"]


@pytest.mark.parametrize(
    ("gain", "first", "verdict"),
    [
        (0.1, "Better than ip: ip_ensemble (difference in rank correlation: ip_ensemble +0.050", "better"),
        (-0.1, "No other scorer is measurably better than ip (difference", "worse"),
        (0.0, "No other scorer is measurably better than ip (difference", "not distinguishable"),
    ],
)
def test_both_signs_of_what_the_ensemble_does_are_said(gain: float, first: str, verdict: str) -> None:
    orders = Orders.of(sweep(gain))
    gains = orders.gains()
    assert {row.scorer for row in gains} == {"ip_ensemble"}
    places = {
        "train.epochs": ["5", "20"],
        "damping": ["0.01", "1"],
        "matrix": ["indefinite", "definite"],
    }
    assert [row.place for row in gains] == ["all", *(f"{f}={level}" for f, of in places.items() for level in of)]
    text = against_ip(orders, gains)
    assert text.startswith(first)
    assert f", {verdict})" in text
    assert ("p <0.001" if gain else "p 1.000") in text
    by_hand = compared([np.mean([gain + 0.001 * (seed - 2), 0.0]) for seed in range(5)], np.zeros(5)).difference
    found = gains[0].differences["spearman"].difference
    assert [found.low, found.high] == pytest.approx([by_hand.low, by_hand.high])


def test_the_page_begins_with_the_answer_and_shows_chance(tmp_path: Path) -> None:
    page = order_page(sweep(0.1), "x")
    assert page.headline.startswith(
        "ip orders the samples largely as exact influence does: rank correlation +0.660 (+0.650 to +0.670), "
        "95 % interval over 5 seeds; of random scores it is +0.450. Of the lowest 5 % of samples 66.0 ("
    )
    assert "The correlation is lowest at damping 0.01, +0.420 (+0.400 to +0.440), and highest at 1, +0.900." in (
        page.headline
    )
    assert "In 10 of 20 cases the inverted matrix is indefinite (an eigenvalue is below zero)" in page.headline
    assert "All samples have the same score" not in page.headline
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
        (0.95, "ip orders the samples as exact influence does"),
        (0.7, "ip orders the samples largely as exact influence does"),
        (0.4, "ip orders the samples partly as exact influence does"),
        (0.1, "ip hardly orders the samples as exact influence does"),
        (0.0, "ip does not measurably order the samples as exact influence does"),
        (-0.9, "ip tends to reverse the order of exact influence"),
    ],
)
def test_the_answer_is_as_strong_as_the_correlation(rho: float, said: str) -> None:
    runs = [ordered(seed, "ip", rho + 0.01 * (seed - 1)) for seed in range(3)]
    for run in runs:
        run["order"]["dampings"] = run["order"]["dampings"][:1]
    assert order_page(runs, "x").headline.startswith(said)


def test_one_seed_is_no_answer() -> None:
    text = order_page([ordered(0, "ip", 0.99), ordered(0, "datainf", 0.79)], "x").headline
    assert text.startswith(
        "One seed gives no interval and no verdict: the rank correlation of ip with exact influence is +0.945."
    )
    assert text.endswith(
        "No other scorer is judged against ip (difference in rank correlation: datainf -0.100, not judged)."
    )


def test_without_ip_no_scorer_is_compared() -> None:
    runs = [ordered(seed, scorer, 0.5 + 0.01 * seed) for seed in range(3) for scorer in ("datainf", "loss")]
    page = order_page(runs, "x")
    assert page.headline.startswith("datainf orders the samples largely as exact influence does")
    assert page.headline.endswith(
        "No scorer is compared with another: that takes runs of ip at the same settings."
    )
    assert "gains" not in [section.name for section in page.sections]


def test_a_reference_without_eigenvalues_leaves_the_matrices_out() -> None:
    runs = [ordered(seed, "ip", 0.5 + 0.01 * seed) for seed in range(3)]
    for run in runs:
        run["order"]["lowest_eigenvalue"] = None
        run["config"]["order"] |= {"reference": "cg"}
    page = order_page(runs, "x")
    assert page.headline.startswith("ip orders the samples largely as influence by cg does")
    assert "indefinite" not in page.headline
    (rows,) = [section.rows for section in page.sections if section.name == "factor_1"]
    assert [row[-1] for row in rows] == ["-", "-"]


def test_a_score_that_is_the_same_for_all_samples_orders_nothing() -> None:
    runs = [ordered(seed, scorer, 0.5 + 0.1 * seed) for seed in range(3) for scorer in ("ip", "loss")]
    flat, other, wrong = np.ones(10), np.arange(10.0), np.arange(10) < 3
    for run in runs[3:]:  # loss of seed 1, both of seed 2
        numbers = agreement(flat, other, 0.2)
        rows = [row | numbers for row in run["order"]["dampings"]]
        run["order"] |= {"dampings": rows, "auc": auc_of(flat, wrong)}
    assert order_page(runs, "x").headline.endswith(
        "All samples have the same score in 1 run of ip, 2 runs of loss: that orders nothing, and its rank "
        "correlation counts as 0."
    )


def test_names_and_levels_of_factors() -> None:
    groups = [
        ordered(0, "ip", 0.5, f"+experiment/paper/order_consistency={name}", f"data.harm_rate={rate}")
        for name, rate in (("digits_cnn", 0.05), ("moons_mlp", 0.3))
    ]
    orders = Orders.of(groups)
    assert orders.factors == ["order_consistency", "data.harm_rate", "damping"]
    assert orders.table["order_consistency"].unique().tolist() == ["digits_cnn", "moons_mlp"]
    assert [shown(level) for level in (20, 0.05, np.int64(3), True, "a")] == ["20", "0.05", "3", "true", "a"]


def test_angles_are_counted_by_kind() -> None:
    found = angles_of(np.array([1.0, 0.5, -1.0]), np.array([False, False, True]))
    assert found["others"]["mean"] == pytest.approx(30)
    assert found["harmful"] == {"mean": 180.0, "counts": [0] * 35 + [1]}
    assert sum(found["others"]["counts"]) == 2
