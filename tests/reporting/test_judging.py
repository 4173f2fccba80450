"""How often chance is called a difference, and an effect found: simulated sweeps through what makes the page."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from defense.reporting.compare import Comparison, compare
from defense.reporting.frame import settings_of
from defense.reporting.verdicts import answer, caveat, shared_control
from defense.tasks.defend.report import MAIN
from tests.cli.test_report import result

SAMPLES = 500  # of the test set: accuracies come in steps of 0.2 points
TABLES = 200


def sweep(
    rng: np.random.Generator,
    *,
    seeds: int,
    settings: int,
    effect: float = 0.0,
    shared: bool = True,
    controls: int = 1,
) -> list[Any]:
    """Cells of a sweep over scorers, in which the first alone gains `effect` points over the random control.

    A seed moves all of its arms, by its split; a model is then as lucky as its training, heavy in the tails
    (Student, 6 degrees of freedom, 1.5 points); what is counted are test samples. The control is the mean of
    `controls` models for each seed, as it is of one budget, or unless `shared` for each setting.
    """
    cells = []
    for seed in range(seeds):
        level = 40 + rng.normal(0, 3)
        control = mean_of_draws(rng, level, controls)
        for number in range(settings):
            cell = copy.deepcopy(result(seed, 0.0))
            cell["overrides"] = [f"seed={seed}", f"scorer.seeds={number}"]
            cell["config"]["scorer"] |= {"name": "random", "method": "random", "seeds": number}
            arms = {"baseline": measured(rng, level), "control": control}
            if not shared:
                arms["control"] = mean_of_draws(rng, level, controls)
            arms["defended"] = measured(rng, level + (effect if number == 0 else 0.0))
            for name, worst in arms.items():
                cell["arms"][name]["adaptive"] = {"pgd": worst, "worst": worst}
            cells.append(cell)
    return cells


def mean_of_draws(rng: np.random.Generator, level: float, draws: int) -> float:
    """The mean accuracy of several random draws, in percent."""
    return float(np.mean([measured(rng, level) for _ in range(draws)]))


def measured(rng: np.random.Generator, level: float) -> float:
    """The accuracy of one trained model, in percent."""
    luck = 1.5 * rng.standard_t(6) / np.sqrt(6 / 4)
    return 100 * rng.binomial(SAMPLES, np.clip((level + luck) / 100, 0, 1)) / SAMPLES


@cache
def judged(tables: int, start: int, **form: Any) -> list[list[Comparison]]:
    """The judgements of many simulated sweeps; of 3, 5 and 10 seeds in turn unless `form` says how many."""
    return [list(table) for table in simulated(tables, start, **form)]


def simulated(tables: int, start: int, **form: Any) -> Iterator[list[Comparison]]:
    for number in range(tables):
        own = {"seeds": (3, 5, 10)[number % 3], **form}
        yield compare(settings_of(sweep(np.random.default_rng((start, number)), **own)), MAIN)


@pytest.mark.parametrize(
    ("shared", "controls", "allowed"),
    [
        (True, 1, TABLES // 20),
        pytest.param(False, 1, int(stats.binom.ppf(0.99, TABLES, 0.05)), marks=pytest.mark.slow),
        pytest.param(True, 3, int(stats.binom.ppf(0.99, TABLES, 0.05)), marks=pytest.mark.slow),
    ],
)
def test_random_removal_is_called_different_from_random_removal_in_no_more_than_a_twentieth_of_tables(
    shared: bool, controls: int, allowed: int
) -> None:
    """The null check: six settings of chance against their random control, 200 tables. Without Holm it would fail.

    Over 12,000 tables of these kinds 4.8 % call one or more of their settings different, and 0.9 % of the settings
    are. As many in 200 tables are 10, and by the luck of the draw up to 18 (99 %). A control for each seed, the
    first kind, is what the pipeline makes.
    """
    tables = judged(TABLES, 1, settings=6, shared=shared, controls=controls)
    assert all(row.holm is not None for table in tables for row in table)
    wrong = sum(any(row.differs for row in table) for table in tables)
    assert wrong <= allowed
    assert np.mean([row.differs for table in tables for row in table]) <= 0.05
    assert sum(any(row.best for row in table) for table in tables) <= wrong
    uncorrected = sum(any(row.pair.t < 0.05 for row in table) for table in tables)  # type: ignore[operator]
    assert uncorrected > stats.binom.ppf(0.99, TABLES, 0.05)


@pytest.mark.parametrize("controls", [1, 3])
def test_an_effect_is_found_as_often_as_the_noncentral_t_says(controls: int) -> None:
    """One setting, 5 seeds: the power of a paired t test is known, and no table is corrected for others.

    The mean of several random draws has the less luck in it.
    """
    effect, tables = 4.0, 400
    found = judged(tables, 2, seeds=5, settings=1, effect=effect, controls=controls)
    spread = np.sqrt(1 + 1 / controls) * np.hypot(1.5, 100 * np.sqrt(0.4 * 0.6 / SAMPLES))
    critical, shift = stats.t.ppf(0.975, 4), effect / spread * np.sqrt(5)
    power = stats.nct.sf(critical, 4, shift) + stats.nct.cdf(-critical, 4, shift)
    share = np.mean([table[0].better for table in found])
    assert abs(share - power) < 4 * np.sqrt(power * (1 - power) / tables)
    assert 0.3 < power < 0.95


def test_one_effect_among_chance_is_found_and_marked() -> None:
    tables = judged(60, 3, seeds=10, settings=6, effect=8.0)
    assert np.mean([table[0].better for table in tables]) > 0.9
    marked = [[row.best for row in table] for table in tables]
    assert np.mean([best[0] for best in marked]) > 0.9
    assert all(sum(best) <= 1 for best in marked)
    others = [row.differs for table in tables for row in table[1:]]
    assert np.mean(others) < 0.05


def test_the_sentence_counts_what_is_called_different_after_correction() -> None:
    """Found by its own p-value, and not once six were looked at."""
    for table in judged(TABLES, 1, settings=6, shared=True, controls=1):
        alone = [row for row in table if row.pair.t < 0.05]  # type: ignore[operator]
        if alone and not any(row.differs for row in table):
            break
    said = "None of 6 settings is distinguishable from random removal, corrected for 6 comparisons (Holm)."
    assert answer(table).startswith(said)
    assert "Highest, perhaps by chance: " in answer(table)
    assert "at most 5 % of such pages" in caveat(table)
    (shared,) = shared_control([row.setting for row in table])
    assert "share one random control" in shared


def test_a_setting_of_one_seed_is_neither_judged_nor_best_however_high() -> None:
    cells = sweep(np.random.default_rng(0), seeds=5, settings=2, effect=9.0)
    lone = copy.deepcopy(cells[0])
    lone["overrides"] = ["seed=0", "scorer.seeds=9"]
    lone["config"]["scorer"]["seeds"] = 9
    lone["arms"]["defended"]["adaptive"]["worst"] = 99.0
    table = compare(settings_of([*cells, lone]), MAIN)
    assert [row.word for row in table] == ["best", "not distinguishable", "not judged: one seed"]
    assert "Not judged: 1 of one seed." in caveat(table)
    assert table[0].holm == pytest.approx(2 * table[0].pair.t)  # type: ignore[operator]


def test_the_same_gain_in_every_seed_is_not_judged() -> None:
    """Two seeds that gain one and the same test sample more: the interval has no width, and is none."""
    cells = [result(seed, 0.2) for seed in (0, 1)]
    (row,) = compare(settings_of(cells), MAIN)
    assert (row.holm, row.word) == (None, "not judged: no spread")
    assert answer([row]).startswith("No setting can be judged")


def test_grounds_are_not_held_against_each_other() -> None:
    """The highest on each data set is the best there, though the other's is higher."""
    cells = []
    for name, effect in (("a", 9.0), ("b", 12.0)):
        for cell in sweep(np.random.default_rng(5), seeds=5, settings=1, effect=effect):
            cell["name"] = cell["config"]["name"] = name
            cell["config"]["data"] = cell["config"]["data"] | {"path": f"{name}.npz"}
            cells.append(cell)
    table = compare(settings_of(cells), MAIN)
    assert [row.word for row in table] == ["best", "best"]
    assert "Best of a: " in answer(table)
