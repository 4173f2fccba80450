"""Whether treatments helped, over many runs: seeds folded, and every setting beside its random control."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.arms import arm_in_words, has, lookup, metrics, spoken, training_on, trusted_of, weight_of
from defense.reporting.compare import BASELINE, Comparison, Metric, compare, judged, real, tally
from defense.reporting.comparisons import (
    Columns,
    comparison_section,
    differences,
    interval_columns,
    knob,
    knobs_shown,
    mean_cell,
    numbers_of,
    table_section,
    tested_columns,
)
from defense.reporting.exports import Text
from defense.reporting.facts import about_runs, attacked, command_of, made_of
from defense.reporting.frame import WORST, Setting, frame, mcnemar_of, settings_of, tidy
from defense.reporting.page import Page, Section
from defense.reporting.reading import FOLDER, LABEL, MCNEMAR, Result
from defense.reporting.statistics import ALPHA, FEWEST, deviation, p_value, points
from defense.reporting.verdicts import answer, caveat, shared_control
from defense.tasks.defend.cells import cell, numbers, shares, spans
from defense.tasks.defend.landscape import BUDGET, group_charts
from defense.tasks.descent import descents
from defense.tasks.health import flagged_cells, untold
from defense.tasks.metagradient import rough
from defense.tasks.selection import one_sided

MAIN = Metric(WORST, "adaptive accuracy at worst")
OTHERS = (  # beside the accuracy after each attack of the suite
    Metric("clean", "clean accuracy"),
    Metric("transfer", "accuracy under the attacks frozen at the baseline"),
    Metric("triggered", "accuracy with the planted trigger"),
)
ABOUT = (
    "Accuracy on test under adaptive attack at worst, in percent, means over seeds. In brackets the 95 % interval "
    "of the difference, paired by seed. p: Student's paired t test, after Holm's correction for all rows. "
    "Intervals are not corrected: one may leave zero out in a row that is not distinguishable. Best: the highest "
    "accuracy, if it is better than its control; no test compares it with the next one."
)
ABOUT_RUNS = (
    "One row a run; its name leads to its own page. In brackets the 95 % interval over test samples. p: McNemar's "
    "exact test of defended against control on the same test samples. Both cover the choice of test samples, not "
    "the luck of retraining, and judge nothing here. Own seconds: of the stages that the run computed itself. All "
    "seconds: of every stage that it rests on."
)


def defending_page(results: Sequence[Result], title: str) -> Page:
    """Return the page of task=defend: every setting judged, charts, other metrics, tests, every run."""
    settings = settings_of(results)
    rows = compare(settings, MAIN)
    trusted = beside_trusted(settings)
    cells = frame(settings, results, numbers_of_run)
    data = settings_data(rows, trusted, cells)
    sections = [
        comparison_section("settings", "Every setting", rows, ABOUT, data=data),
        *choices(settings),
        *descents(settings),
        *group_charts(settings),
        metrics_section(settings),
        tests_section(rows, trusted, data),
        cells_section(cells),
    ]
    headline = [untold(results), answer(rows), trusted_answer(trusted), flagged_cells(results), rough(results)]
    notes = [
        next_step(rows),
        caveat(rows),
        *shared_control(settings),
        luck_of_draws(results),
        clean_changes(settings),
    ]
    return Page(
        f"{title}: does treating the lowest scores help?",
        " ".join(filter(None, headline)),
        command_of(results),
        sections,
        made_of(results),
        notes=list(filter(None, [*notes, *about_runs(settings, attacked), *one_sided(settings)])),
    )


def numbers_of_run(result: Result) -> dict[str, Any]:
    """Return the numbers of one run by column: accuracies in percent, gain in points, McNemar's p, selection."""
    arms, gain = result["arms"], result.get("gain_over_control", {})
    return {
        **{f"{arm}.{path}": lookup(arms[arm], path) for arm in arms for path in paths_of(arms[arm])},
        "gain": points(lookup(arms["defended"], WORST) - lookup(arms["control"], WORST)),
        "gain_low": gain.get("low"),
        "gain_high": gain.get("high"),
        MCNEMAR: mcnemar_of(result),
        **{f"selection.{name}": value for name, value in result["selection"].items()},
    }


def paths_of(arm: dict[str, Any]) -> list[str]:
    """Return the dotted names of the accuracies of an arm, and of other metrics that it has."""
    return list(dict.fromkeys([*metrics(arm), *(metric.path for metric in OTHERS if has(arm, metric.path))]))


def beside_trusted(settings: Sequence[Setting]) -> dict[str, list[Comparison]]:
    """Return, by trusted arm, the settings that have it, each beside it; judged as beside the random control."""
    arms = trusted_of({arm for setting in settings for arm in setting.arms})
    return {arm: compare([one for one in settings if arm in one.arms], MAIN, over=arm) for arm in arms}


def trusted_answer(trusted: dict[str, list[Comparison]]) -> str:
    """Return how settings compare with training on trusted samples, a sentence for each such arm."""
    return " ".join(filter(None, (beside(arm, rows) for arm, rows in trusted.items())))


def beside(arm: str, rows: Sequence[Comparison]) -> str:
    """Return in how many settings the defended arm is better and worse than one trusted arm."""
    conclusive = real([row for row in rows if not row.setting.inconclusive])
    if not conclusive:
        return ""
    if len(conclusive) == 1:
        (row,) = conclusive
        reached = f"{training_on(arm)} reaches {row.setting.mean(arm):.1f} %"
        return f"{reached}: {row.setting.name} gains {row.difference} points over it ({row.word})."
    higher, (better, worse) = sum(row.gain < 0 for row in conclusive), tally(conclusive)
    return (
        f"{training_on(arm)} is higher in {higher} of {len(conclusive)} settings. By more than chance, {better} "
        f"settings are better than such training and {worse} worse."
    )


def luck_of_draws(results: Sequence[Result]) -> str:
    """Return the spread between random draws of one run, over all runs that have several; nothing if none has."""
    draws = {
        json.dumps(controls, sort_keys=True): [lookup(each, WORST) for each in controls.values()]
        for controls in (result["controls"] for result in results if "controls" in result)
    }
    if not draws:
        return ""
    apart = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in draws.values()])))
    return (
        f"Luck of the draw: random draws of one run have a standard deviation of {apart:.1f} points under "
        f"adaptive attack ({len(draws)} runs with draws of their own). Gains are over the mean of a run's draws."
    )


def clean_changes(settings: Sequence[Setting], *, shown: int = 5) -> str:
    """Return which settings change clean accuracy against their control, at most `shown`, and the largest drop."""
    rows = compare(settings, OTHERS[0])
    changed = [row for row in rows if row.differs]
    told = "; ".join(f"{row.setting.name} {row.difference}" for row in changed[:shown])
    more = f" and {len(changed) - shown} more" if len(changed) > shown else ""
    text = f" in {len(changed)} of {len(settings)} settings: {told}{more}." if changed else " in no setting."
    last = min(rows, key=lambda row: row.gain)
    text = f"Clean accuracy differs from the control's by more than chance{text}"
    if last.gain < 0 and last not in changed:
        text += f" Largest drop: {last.setting.name} {last.difference}, {last.word}."
    return text if any(row.holm is not None for row in rows) else ""


def next_step(rows: Sequence[Comparison]) -> str:
    """Return what to run next: more seeds if they may decide, larger budgets if the best is the largest."""
    tested = judged(rows)
    if not tested:
        return "Next: more seeds, as in seed=range(5)."
    count = sum(not row.differs and row.difference.differs_from_zero for row in tested if row.difference)
    steps = []
    if count:
        left = "1 interval leaves" if count == 1 else f"{count} intervals leave"
        steps.append(f"more seeds, as {left} zero out before correction and not after it")
    budgets = [value for row in rows if isinstance(value := row.setting.knobs.get(BUDGET), float)]
    best = [row.setting.knobs.get(BUDGET) for row in rows if row.best]
    if best and len(set(budgets)) > 1 and best[0] == max(budgets):
        steps.append("larger budgets, as the best is the largest of the grid")
    return f"Next: {'; '.join(steps)}." if steps else ""


def other_metrics(settings: Sequence[Setting]) -> list[Metric]:
    """Return the accuracies that settings have beside the main one: after each attack but the last, and OTHERS."""
    after = dict.fromkeys(path for setting in settings for path in attacks_of(setting))
    return [*(Metric(path, spoken(path)) for path in after), *OTHERS]


def attacks_of(setting: Setting) -> list[str]:
    """Return the accuracies of a setting after each attack but the last, which is the one at worst."""
    paths = [path for path in metrics(setting.runs[0]["arms"][BASELINE]) if path.startswith("adaptive.")]
    return [path for path in paths if path != WORST][:-1]


def metrics_section(settings: Sequence[Setting]) -> Section:
    """Return the other accuracies of every arm, a row a setting and metric."""
    knobs = knobs_shown(settings)
    rows = [
        row
        for metric in other_metrics(settings)
        for row in compare([one for one in settings if shows(one, metric.path)], metric)
    ]
    arms = ["baseline", "control", "defended", *trusted_of({arm for one in settings for arm in one.arms}), "proxy"]
    many = len(settings) > 1
    columns: Columns = {
        **({"scorer": [row.setting.row for row in rows]} if many else {}),
        **{name: [knob(row.setting, name) for row in rows] for name in knobs},
        "metric": [row.metric.name for row in rows],
        "defended - control (95 %)": [row.metric.change(row.difference) for row in rows],
        **{arm_in_words(arm): [mean_cell(row, arm) for row in rows] for arm in arms},
    }
    text = (
        "Means over seeds, in percent; in brackets the 95 % interval of the difference, paired by seed. The last "
        "attack is the accuracy at worst, above. Of these, clean accuracy alone is judged, at the top."
    )
    facets = ("scorer", *knobs, "metric")
    return table_section(
        "metrics", "Other accuracies", text, columns, facets=facets, collapsed=many, html_only=many
    )


def shows(setting: Setting, path: str) -> bool:
    """Return whether a setting has an accuracy that is not the one at worst again."""
    return setting.has(path) and (not path.startswith("adaptive.") or path in attacks_of(setting))


def settings_data(
    rows: Sequence[Comparison], trusted: dict[str, list[Comparison]], cells: pd.DataFrame
) -> pd.DataFrame:
    """Return one row a setting as plain numbers: means with 95 % intervals over seeds, p-values, costs.

    Accuracies are adaptive at worst unless named otherwise, in percent; gains in points.
    """
    settings = [row.setting for row in rows]
    beside = {BASELINE: compare(settings, MAIN, over=BASELINE), **trusted}
    other = {metric.path: compare(settings, metric) for metric in OTHERS}
    table = []
    for number, row in enumerate(rows, start=1):
        own = cells[(cells["setting"] == number) & cells["counted"]]
        within = own.get(MCNEMAR, pd.Series(dtype=float)).dropna()
        found = {"setting": number, **numbers_of(row)}
        found |= {"mcnemar_seeds": len(within), "mcnemar_below": int((within < ALPHA).sum())}
        for arm, compared in beside.items():
            for one in compared:
                if one.setting is row.setting:
                    found |= tested_columns(f"gain_over_{arm}", one) | {f"judgement_over_{arm}": one.word}
        for path, compared in other.items():
            if gain := compared[number - 1].difference:
                found |= interval_columns(f"defended_{path}", row.setting.values("defended", path))
                found |= gain.columns(f"gain_{path}") | {
                    f"gain_{path}_std": deviation(differences(compared[number - 1]))
                }
        found["auc"] = mean_of(own, "selection.auc")
        found |= {name: mean_of(own, name) for name in ("seconds_own", "seconds_all")}
        table.append(found)
    return tidy(pd.DataFrame(table))


def mean_of(table: pd.DataFrame, column: str) -> float:
    """Return the mean of a column; NaN if there is none, or nothing in it."""
    return float(table[column].astype(float).mean()) if column in table else float("nan")


def tests_section(rows: Sequence[Comparison], trusted: dict[str, list[Comparison]], data: pd.DataFrame) -> Section:
    """Return the further tests and costs of every setting: other rivals, other tests, AUC, seconds."""
    knobs = knobs_shown([row.setting for row in rows])
    columns: Columns = {
        "scorer": [row.setting.row for row in rows],
        **{name: [knob(row.setting, name) for row in rows] for name in knobs},
        "p, t": numbers(data, "gain_p_t", p_value),
        "p, Wilcoxon": numbers(data, "gain_p_wilcoxon", p_value),
        "seeds of McNemar p < 0.05": shares(data, "mcnemar_below", "mcnemar_seeds"),
    }
    for arm in (BASELINE, *trusted):
        rival = "no treatment" if arm == BASELINE else arm_in_words(arm)
        words = data.get(f"judgement_over_{arm}", pd.Series("-", index=data.index)).fillna("-")
        columns |= {
            f"over {rival} (95 %)": spans(data, f"gain_over_{arm}"),
            f"against {rival}": [Text(word, tone=word) for word in words],
            f"p, Holm, {rival}": numbers(data, f"gain_over_{arm}_p_holm", p_value),
        }
    columns |= {
        "AUC": numbers(data, "auc", "{:.3f}"),
        "own seconds": numbers(data, "seconds_own"),
        "all seconds": numbers(data, "seconds_all"),
    }
    return table_section(
        "tests", "Other tests, and costs", about_tests(data, trusted), columns, html_only=True, collapsed=True
    )


def about_tests(data: pd.DataFrame, trusted: Iterable[str]) -> str:
    """Return the meaning of the columns of further tests."""
    parts = ["p, t: of the gain over the control, before correction. Wilcoxon: the exact signed-rank test."]
    if (data["seeds"] < FEWEST).any():
        parts.append(f"With fewer than {FEWEST} seeds it cannot reach 0.05, however large the difference is.")
    if data["mcnemar_seeds"].any():
        parts.append("McNemar: in how many seeds defended and control differ on test samples.")
    if any(str(name).startswith("judgement_over_trusted") for name in data):
        parts.append("Trusted: trained on the validation samples too, nothing treated.")
        if any(weight_of(arm) != 1 for arm in trusted):
            parts.append("x3: if they weigh 3 times as much.")
    parts.append("Each comparison, as with no treatment, is corrected for its own rows.")
    if "auc" in data:
        parts.append("AUC: of finding the samples that are known to be harmed.")
    return " ".join([*parts, "Seconds are means over seeds: own of stages that a run computed itself."])


def cells_section(data: pd.DataFrame) -> Section:
    """Return one row a run, with the link to its own page."""
    arms = {str(name).removesuffix(f".{WORST}") for name in data if str(name).endswith(f".{WORST}")}
    names = list(data.columns)
    swept = names[names.index("scorer") + 1 : names.index("counted")]
    several = ["name"] if data["name"].nunique() > 1 else []
    knobs = [*several, *(name for name in swept if data[name].nunique() > 1)]
    columns: Columns = {
        "run": runs_of(data),
        **{name: [cell(value) for value in data[name]] for name in ("scorer", *knobs)},
        "seed": numbers(data, "seed", "{:.0f}"),
        "defended - control (95 %)": spans(data, "gain"),
        **{
            arm_in_words(arm): numbers(data, f"{arm}.{WORST}")
            for arm in ("baseline", "control", "defended", *trusted_of(arms))
        },
        "p, McNemar": numbers(data, MCNEMAR, p_value),
        **{metric.path: numbers(data, f"defended.{metric.path}") for metric in OTHERS},
        "own seconds": numbers(data, "seconds_own"),
        "all seconds": numbers(data, "seconds_all"),
    }
    again = int((~data["counted"]).sum())
    text = ABOUT_RUNS + (f" {again} of the runs repeat others and count once." if again else "")
    facets = ("scorer", *knobs, "seed")
    return table_section("cells", "Every run", text, columns, facets=facets, data=data, html_only=True)


def runs_of(data: pd.DataFrame) -> list[str]:
    """Return the names of runs, each with the link to its own page; '-' of a run without one."""
    if LABEL not in data:
        return ["-"] * len(data)
    pairs = zip(data[LABEL], data[FOLDER], strict=True)
    return [Text(label, href=folder) if folder else "-" for label, folder in pairs]


def choices(settings: Sequence[Setting]) -> list[Section]:
    """Return what every setting with an automatic treatment chose, seed by seed; no section of none."""
    rows = []
    for setting in (setting for setting in settings if setting.is_automatic):
        count = len(setting.runs)
        for what, times in Counter(chosen(run) for run in setting.runs).most_common():
            rows.append((setting.name, what, Text(f"{times} of {count}", value=times / count)))
    text = (
        "Of treatment.budget=auto: what did best on held-out validation, seed by seed. Where no candidate beat "
        "its random control and the untreated data there, nothing was treated."
    )
    head = ("setting", "chosen", "seeds")
    return [Section("chosen", "What was chosen", text, head, rows)] if rows else []


def chosen(result: Result) -> str:
    """Return the choice of one run with an automatic treatment: 'remove 0.2', 'reweight', 'nothing'."""
    table = pd.DataFrame(result["candidates"])
    (pick,) = table[table["chosen"]].to_dict("records")
    if pick["treatment"] == "none":
        return "nothing"
    return str(pick["treatment"]) if pick["treatment"] == "reweight" else f"{pick['treatment']} {pick['budget']:g}"
