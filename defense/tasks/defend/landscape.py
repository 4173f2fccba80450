"""Where the settings of a sweep stand: accuracy against budget, and robust against clean accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from defense.reporting.arms import arm_in_words, trusted_of
from defense.reporting.charts import Axis, Spot, budget_curves, tradeoff
from defense.reporting.frame import WORST, Setting, by
from defense.reporting.page import Section
from defense.reporting.reading import effect_of
from defense.reporting.statistics import Mean, mean_interval, paired_difference

BUDGET = "treatment.budget"
LINES = 8  # in one chart: more of them, each with its band, could not be told apart


def group_charts(settings: Sequence[Setting]) -> list[Section]:
    """Return the charts of every comparison group that has several settings; two groups never share one."""
    several = [group for group in by(settings, lambda setting: setting.group).values() if len(group) > 1]
    budgets = [section for group in several for section in by_budget(group)]
    numbered = [replace(section, name=f"budget_{number}") for number, section in enumerate(budgets, start=1)]
    return numbered + [by_accuracies(number, group) for number, group in enumerate(several, start=1)]


def by_budget(settings: Sequence[Setting]) -> list[Section]:
    """Return accuracy against budget, for each of what else was swept; of many scorers in several charts."""
    spending = [one for one in settings if not one.is_automatic and not effect_of(one.config["treatment"]).weighs]
    sections = []
    for facet, group in by(spending, other_knobs).items():
        if len({budget_of(setting) for setting in group}) < 2:
            continue
        references = {arm: by(group, lambda one: str(budget_of(one))) for arm in arms_beside(group)}
        beside = {
            arm: {float(budget): by_seed(arm, own) for budget, own in groups.items()}
            for arm, groups in references.items()
        }
        names = list(dict.fromkeys(setting.row for setting in group))
        for first in range(0, len(names), LINES):
            own = names[first : first + LINES]
            lines, gains = lines_of(group, own)
            which = f" ({own[0]} to {own[-1]})" if len(names) > LINES else ""
            heading = f"Accuracy against budget{', ' + facet if facet else ''}{which}"
            chart = budget_curves(lines, beside, gains)
            sections.append(Section("budget", heading, about_budgets(beside), chart=chart, html_only=True))
    return sections


def other_knobs(setting: Setting) -> str:
    """Return what was swept beside the budget, in words."""
    others = [f"{name}={value}" for name, value in setting.knobs.items() if name != BUDGET and value is not None]
    return ", ".join(others)


Lines = dict[str, dict[float, Mean]]  # by row, then by budget


def lines_of(settings: Sequence[Setting], rows: Sequence[str]) -> tuple[Lines, Lines]:
    """Return the accuracy and the gain of some rows, against budget."""
    lines: Lines = {row: {} for row in rows}
    gains: Lines = {row: {} for row in rows}
    for setting in settings:
        if setting.row in lines:
            defended, control = (setting.values(arm, WORST) for arm in ("defended", "control"))
            lines[setting.row][budget_of(setting)] = mean_interval(defended)
            gains[setting.row][budget_of(setting)] = paired_difference(defended, control)
    return lines, gains


def about_budgets(arms: Iterable[str]) -> str:
    """Return the meaning of the lines and bands of a chart of budgets."""
    *others, last = map(arm_in_words, arms)
    return (
        f"Above: means over seeds of the defended arm, and dashed of {', '.join(others)} and {last}. Below: the "
        "gain over the control, paired by seed. Bands are 95 % intervals over seeds. Those above include the luck "
        "of a seed's split and first weights, which all arms share. Those below do not. The table is corrected "
        "for the number of comparisons, bands are not."
    )


def arms_beside(settings: Sequence[Setting]) -> list[str]:
    """Return the arms that some settings are drawn beside: baseline, control, and trusted ones that all have."""
    trusted = trusted_of(set.intersection(*(set(setting.arms) for setting in settings)))
    return ["baseline", "control", *trusted]


def budget_of(setting: Setting) -> float:
    """Return the budget of a setting that is not automatic."""
    return float(setting.config["treatment"]["budget"])


def by_seed(arm: str, settings: Sequence[Setting], metric: str = WORST) -> Mean:
    """Return the mean of an arm over seeds, each counted once: if settings differ in one, their mean."""
    seeds: dict[int, list[float]] = {}
    for setting in settings:
        for run, value in zip(setting.runs, setting.values(arm, metric), strict=True):
            seeds.setdefault(run["seed"], []).append(value)
    return mean_interval([sum(values) / len(values) for values in seeds.values()])


def by_accuracies(number: int, settings: Sequence[Setting]) -> Section:
    """Return robust against clean accuracy of one comparison group, beside the arms that settings share."""
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
        "Each mark is the mean over seeds of a setting's defended arm. The frame may cut its 95 % intervals. "
        "Stars are other arms; the control is the mean over all settings. A dashed line joins the Pareto front, "
        "if it has several marks: no other mark is higher in both. See the table of settings for significance."
    )
    return Section(
        f"tradeoff_{number}",
        f"Robust and clean accuracy{where}",
        text,
        chart=tradeoff(places, references, Axis("clean accuracy, %"), Axis("adaptive accuracy at worst, %")),
        html_only=True,
    )
