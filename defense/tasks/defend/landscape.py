"""Where the settings of a sweep stand: accuracy against budget, and robust against clean accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from defense.config.choices import AUTO
from defense.reporting.charts import Axis, Spot, budget_curves, tradeoff
from defense.reporting.page import Section
from defense.reporting.reading import effect_of
from defense.reporting.settings import WORST, Setting
from defense.reporting.statistics import Mean, mean_interval
from defense.reporting.tables import arm_in_words, trusted_of

BUDGET = "treatment.budget"
LINES = 8  # in one chart: more of them, each with its band, could not be told apart


def ground_charts(settings: Sequence[Setting]) -> list[Section]:
    """Return the charts of every ground that has several settings; two grounds never share one."""
    grounds: dict[str, list[Setting]] = {}
    for setting in settings:
        grounds.setdefault(setting.ground, []).append(setting)
    several = [alike for alike in grounds.values() if len(alike) > 1]
    curves = [curve for alike in several for curve in by_budget(alike)]
    numbered = [
        Section(f"budget_{number}", heading, text, chart=chart, html_only=True)
        for number, (heading, text, chart) in enumerate(curves, start=1)
    ]
    return numbered + [by_accuracies(number, alike) for number, alike in enumerate(several, start=1)]


def by_budget(settings: Sequence[Setting]) -> list[tuple[str, str, str]]:
    """Return heading, text and chart of accuracy against budget, for each of what else was swept."""
    facets: dict[str, list[Setting]] = {}
    for setting in settings:
        spec = setting.runs[0]["config"]["treatment"]
        if spec["budget"] != AUTO and not effect_of(spec).weighs:
            knobs = setting.knobs.items()
            others = [f"{name}={value}" for name, value in knobs if name != BUDGET and value is not None]
            facets.setdefault(", ".join(others), []).append(setting)
    found = []
    for facet, alike in facets.items():
        budgets = {budget_of(setting) for setting in alike}
        if len(budgets) < 2:
            continue
        lines: dict[str, dict[float, Mean]] = {}
        gains: dict[str, dict[float, Mean]] = {}
        for setting in alike:
            budget = budget_of(setting)
            name = setting.label if budget in lines.get(setting.row, {}) else setting.row  # as on another device
            lines.setdefault(name, {})[budget] = mean_interval(setting.values("defended", WORST))
            gains.setdefault(name, {})[budget] = setting.gain()
        references = {
            arm: {budget: by_seed(arm, [s for s in alike if budget_of(s) == budget]) for budget in budgets}
            for arm in arms_beside(alike)
        }
        text = (
            f"Above, means over seeds of the defended arm, and dashed of {told(references)}; below, the gain "
            "over the control, paired by seed. Bands are 95 % intervals over seeds. Those above hold the luck of "
            "a seed's split and first weights, which all arms share. Those below do not, but nor are they "
            "corrected for how many there are: the table of settings is."
        )
        names = list(lines)
        for first in range(0, len(names), LINES):
            own = names[first : first + LINES]
            chart = budget_curves(
                {name: lines[name] for name in own}, references, {name: gains[name] for name in own}
            )
            which = f" ({own[0]} to {own[-1]})" if len(names) > LINES else ""
            found.append((f"Accuracy against budget{', ' + facet if facet else ''}{which}", text, chart))
    return found


def arms_beside(settings: Sequence[Setting]) -> list[str]:
    """Return the arms that some settings are drawn beside: baseline, control, and trusted ones that all have."""
    trusted = trusted_of(set.intersection(*(set(setting.arms) for setting in settings)))
    return ["baseline", "control", *trusted]


def told(arms: Iterable[str]) -> str:
    """Return 'baseline, control and trusted'."""
    *others, last = map(arm_in_words, arms)
    return f"{', '.join(others)} and {last}"


def budget_of(setting: Setting) -> float:
    """Return the budget of a setting that is not automatic."""
    return float(setting.runs[0]["config"]["treatment"]["budget"])


def by_seed(arm: str, settings: Sequence[Setting], metric: str = WORST) -> Mean:
    """Return the mean of an arm over seeds, each counted once: where settings differ in one, their mean."""
    seeds: dict[int, list[float]] = {}
    for setting in settings:
        for run, value in zip(setting.runs, setting.values(arm, metric), strict=True):
            seeds.setdefault(run["seed"], []).append(value)
    return mean_interval([sum(values) / len(values) for values in seeds.values()])


def by_accuracies(number: int, settings: Sequence[Setting]) -> Section:
    """Return robust against clean accuracy of all settings of one ground, beside the arms that they share."""
    places = [
        Spot(
            setting.row,
            ", ".join(f"{name}={value}" for name, value in setting.knobs.items() if value is not None),
            mean_interval(setting.values("defended", "clean")),
            mean_interval(setting.values("defended", WORST)),
        )
        for setting in settings
    ]
    references = {
        arm: Spot(arm, arm, by_seed(arm, settings, "clean"), by_seed(arm, settings))
        for arm in arms_beside(settings)
    }
    where = f", {settings[0].place}" if settings[0].place else ""
    text = (
        "Each mark is the mean over seeds of a setting's defended arm, with 95 % intervals; those of few seeds "
        "may leave the picture. The control is the mean over all settings. No other setting is higher in both "
        "accuracies than the settings that the dashed line joins; whether by more than chance the table says."
    )
    return Section(
        f"tradeoff_{number}",
        f"Robust against clean accuracy{where}",
        text,
        chart=tradeoff(places, references, Axis("clean accuracy, %"), Axis("adaptive accuracy at worst, %")),
        html_only=True,
    )
