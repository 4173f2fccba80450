"""Charts of sweeps: what they hold, and that what is drawn can be read."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from defense.cli.report import page_of
from defense.cli.results import find_results
from defense.reporting.charts import (
    Axis,
    Curve,
    Gain,
    Spot,
    curves,
    forest,
    front,
    inches,
    shared_limits,
    tradeoff,
    within,
    wrapped,
)
from defense.reporting.statistics import Mean, mean_interval
from tests.cli.test_report import swept
from tests.reporting.cells import grid


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    found = front(np.array(points))
    for (x, y), on in zip(points, found, strict=True):
        beaten = any((a >= x and b >= y) and (a > x or b > y) for a, b in points)
        assert on == (not beaten)


def test_every_mean_is_inside_the_limits() -> None:
    narrow = [mean_interval([1.0, 1.2, 0.9]), mean_interval([-4.0, -4.1]), mean_interval([7.0])]
    low, high = shared_limits(narrow)
    assert low < min(mean.low for mean in narrow[:2])
    assert high > 7.0
    wide = [*narrow, mean_interval([0.0, 90.0])]  # of two seeds: 12.7 times as wide as they are apart
    assert shared_limits(wide)[1] < wide[-1].high
    low, high = within([Mean(50.0, -200.0, 300.0, 2), Mean(52.0, 51.0, 53.0, 5)])
    assert 45 < low < 50
    assert 52 < high < 60


def test_a_forest_is_coloured_by_what_is_called_different() -> None:
    """Not by an interval that leaves zero out: after a correction that is not enough."""
    gain = mean_interval([3.0, 4.0, 5.0])
    pages = [forest([Gain("ip", gain, differs)], xlabel="x") for differs in (True, False)]
    counts = [page.count("#1d6f8a") for page in pages]
    assert counts[0] > counts[1]
    assert ["better, after correction" in page for page in pages] == [True, False]  # the legend has what is drawn


@pytest.mark.parametrize(
    ("models", "named"),
    [
        ([(1, 2), (2, 1)], True),
        ([(1, 1), (2, 2)], False),  # one beats the other
        ([(2, 2), (2, 2)], False),  # one place
        ([(2, 2)], False),
    ],
)
def test_a_front_is_named_if_it_is_a_line(models: list[tuple[float, float]], named: bool) -> None:
    spots = [Spot("ip", "all", mean_interval([x, x + 1]), mean_interval([y, y + 1])) for x, y in models]
    chart = tradeoff(spots, {}, Axis("clean accuracy, %"), Axis("robust accuracy, %"))
    assert (">Pareto front</text>" in chart) == named
    references = {"baseline": spots[0]}
    assert (">Pareto front</text>" in tradeoff(spots[1:], references, Axis("x"), Axis("y"))) == named


def test_both_accuracies_have_their_intervals() -> None:
    """Faint lines: one to the sides and one up, of those models alone that have intervals."""
    one, several = mean_interval([50.0]), mean_interval([50.0, 52.0])
    for x, y in product((one, several), repeat=2):
        chart = tradeoff([Spot("ip", "all", x, y)], {}, Axis("x"), Axis("y"))
        ends = re.findall(r'd="M (\S+) (\S+) \nL (\S+) (\S+) \n"[^>]*stroke-opacity: 0.3', chart)
        lines = [[abs(float(a) - float(c)) > 1, abs(float(b) - float(d)) > 1] for a, b, c, d in ends]
        assert lines == [[x.judgeable, False], [False, y.judgeable]]


@given(st.text("abcimW ,=_.0", max_size=80), st.floats(0.3, 5))
def test_texts_are_broken_into_lines_that_fit(text: str, room: float) -> None:
    lines = wrapped(text, room)
    assert inches(lines) <= room
    assert re.sub(r"\s", "", lines) == re.sub(r"\s", "", text)
    assert lines == text or inches(text) > room


def test_letters_are_as_wide_as_matplotlib_draws_them() -> None:
    for text in ("ip_ensemble", "treatment.budget=0.1, train.epochs=20", "WWW", "iii"):
        drawn = TextPath((0, 0), text, size=9, prop=FontProperties(family="DejaVu Sans")).get_extents().width / 72
        assert inches(text, size=9) == pytest.approx(drawn, abs=0.05)


def test_numbers_that_would_touch_are_left_out() -> None:
    line: Curve = dict.fromkeys([1000.0, 1010.0, 4000.0, 1e6], 1.0)
    chart = curves({"ip": line}, Axis("samples", log=True), Axis("seconds"))
    assert [number for number in re.findall(r">([\d,]+)</text>", chart) if "," in number] == [
        "1,000",
        "4,000",
        "1,000,000",
    ]


def test_the_same_input_gives_the_same_chart() -> None:
    lines: dict[str, Curve] = {"ip": {1: mean_interval([3.0, 4.0]), 8: 2.0}, "loss": {1: 1.0, 8: 2.0}}
    assert curves(lines, Axis("x", log=True), Axis("y")) == curves(lines, Axis("x", log=True), Axis("y"))


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = grid(tmp_path_factory.mktemp("sweeps") / "sweep")
    return {section.name: section.chart for section in page_of(find_results([folder])).sections if section.chart}


def test_a_line_of_a_forest_names_its_setting(sections: dict[str, str]) -> None:
    assert ">loss, treatment.budget=0.05</text>" in sections["settings"]


def test_budgets_have_a_line_for_every_scorer_and_bands_beside_them(sections: dict[str, str]) -> None:
    chart = sections["budget_1"]
    for name in ("ip", "loss", "random", "baseline", "control"):
        assert f">{name}</text>" in chart
    assert chart.count("opacity: 0.1") == 8  # bands: three scorers twice, baseline and control
    assert ">0.05</text>" in chart


def test_robust_and_clean_accuracy_share_a_chart_with_the_front(sections: dict[str, str]) -> None:
    chart = sections["tradeoff_1"]
    for name in ("Pareto front", "baseline", "control", "ip", "treatment.budget=0.1"):
        assert f">{name}</text>" in chart


def test_more_lines_than_can_be_told_apart_are_several_charts() -> None:
    cells = [
        swept(seed, 1.0 + seed, f"s{number}", f"treatment.budget={budget}", budget=budget)
        for seed in (0, 1)
        for number in range(10)
        for budget in (0.1, 0.2)
    ]
    sections = [section for section in page_of(cells).sections if section.name.startswith("budget")]
    assert [section.heading for section in sections] == [
        "Accuracy against budget (s0 to s7)",
        "Accuracy against budget (s8 to s9)",
    ]
    assert ">s8</text>" not in sections[0].chart
    assert ">s8</text>" in sections[1].chart


def test_no_chart_of_budgets_where_none_was_swept_or_chosen_by_itself(tmp_path: Path) -> None:
    cells = [swept(seed, 1.0 + seed, scorer) for seed in (0, 1) for scorer in ("ip", "loss")]
    assert not [section for section in page_of(cells).sections if section.name.startswith("budget")]
    cells = [
        swept(0, 1.0, "ip", f"treatment.budget={budget}", name="reweight", budget=budget) for budget in (0.1, 0.2)
    ]
    assert not [section for section in page_of(cells).sections if section.name.startswith("budget")]


def test_charts_of_two_data_sets_are_apart() -> None:
    cells = []
    for name in ("a", "b"):
        for scorer in ("ip", "loss"):
            cell = swept(0, 1.0, scorer)
            cell["name"] = name
            cell["config"]["data"] = cell["config"]["data"] | {"source": name}
            cells.append(cell)
    page = page_of(cells)
    assert [section.heading for section in page.sections if section.name.startswith("tradeoff")] == [
        "Robust and clean accuracy, a",
        "Robust and clean accuracy, b",
    ]
    assert [fact.partition(":")[0] for fact in page.notes[-2:]] == ["a", "b"]
