"""Whether treatments helped, over many runs: seeds folded, and every setting beside its random control."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from defense.reporting.cells import cells_table
from defense.reporting.charts import Gain, forest, shared_limits
from defense.reporting.comparing import COMPARED
from defense.reporting.descent import descents
from defense.reporting.exports import Text
from defense.reporting.health import flagged_cells, untold
from defense.reporting.judging import Compared, Judgement, answer, caveat, judge
from defense.reporting.metagradient import rough
from defense.reporting.page import Page, Section
from defense.reporting.paper import ABOUT, printed
from defense.reporting.settings import Setting, attacked, facts_of, one_sided, settings_of
from defense.reporting.statistics import judged, p_value
from defense.reporting.sweeps import Result, command_of, made_of
from defense.reporting.tables import arm_in_words, header, lookup, metrics, spoken, trusted_of
from defense.tasks.defend.landscape import ground_charts
from defense.tasks.defend.tables import cells_section, settings_section, settings_table
from defense.tasks.defend.trusting import trusted_answer

DETAILED = 12  # settings: more of them have a row each, and their own pages
WORST = "adaptive.worst"
EXPLAINED = {  # columns of a summary
    "seeds": "A row of fewer seeds than others, as of failed cells, has other means beside it.",
    "AUC": "AUC: of finding the samples that are known to be harmed.",
    "trusted": "trusted: trained on the validation samples too, with nothing treated.",
    "transfer, defended - control (95 %)": "transfer: under the attack that was made at the baseline.",
    "triggered": "triggered: on test pictures with the planted trigger, defended.",
    "proxy": "proxy: the model that the scores were taken at, where it is another.",
}


def defending_page(results: Sequence[Result], title: str) -> Page:
    """Return the page of task=defend: every setting judged, charts, a summary by what was swept, every cell."""
    settings = settings_of(results)
    judgements = judge(settings)
    cells = cells_table(settings, results)
    table = settings_section(judgements, settings_table(judgements, cells))
    sections = [table, *choices(settings), *descents(settings)]
    if len(settings) > 1:
        columns = dict.fromkeys(setting.column for setting in settings)
        limits = shared_limits([setting.gain() for setting in settings])
        sections += [
            summary(number, column, [judged for judged in judgements if judged.setting.column == column], limits)
            for number, column in enumerate(columns, start=1)
        ]
    sections += [*ground_charts(settings), cells_section(cells)]
    if len(settings) <= DETAILED:
        rows = sum(judgement.holm is not None for judgement in judgements)
        sections += [arms(number, judgement, rows) for number, judgement in enumerate(judgements, start=1)]
    higher, flagged = trusted_answer(settings), flagged_cells(results)
    said = " ".join(filter(None, (untold(results), answer(judgements), higher, flagged, rough(results))))
    notes = [caveat(judgements), luck_of_draws(results), clean_changes(settings)]
    notes = list(filter(None, [*notes, *facts_of(settings, attacked), *one_sided(settings)]))
    return Page(title, said, command_of(results), sections, made_of(results), notes=notes)


def luck_of_draws(results: Sequence[Result]) -> str:
    """Return how far apart random draws of one run are, over all runs that have several; nothing if none has."""
    draws = {
        json.dumps(found, sort_keys=True): [lookup(each, WORST) for each in found.values()]
        for found in (result["controls"] for result in results if "controls" in result)
    }
    if not draws:
        return ""
    apart = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in draws.values()])))
    return (
        f"Luck of the draw: random draws of one run have a standard deviation of {apart:.1f} points under "
        f"adaptive attack ({len(draws)} runs with draws of their own). Gains are over the mean of a run's draws."
    )


def clean_changes(settings: Sequence[Setting], *, shown: int = 5) -> str:
    """Return which settings change clean accuracy against their control, judged as gains are, at most `shown`."""
    changed = [row for row in Compared.all(settings, "clean") if row.differs]
    if not changed:
        return ""
    told = "; ".join(f"{row.setting.name} {row.pair.difference}" for row in changed[:shown])
    more = f" and {len(changed) - shown} more" if len(changed) > shown else ""
    return (
        f"Clean accuracy differs from the control's in {len(changed)} of {len(settings)} settings: {told}{more}."
    )


def summary(number: int, column: str, judgements: Sequence[Judgement], limits: tuple[float, float]) -> Section:
    """Return one row per scorer, the highest gain first, and the gains with their intervals as a chart."""
    ranked = sorted(judgements, key=lambda judgement: -judgement.pair.difference.mean)
    seeds = sorted({len(judgement.setting.runs) for judgement in ranked})
    over = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]]))) + (" seeds" if seeds != [1] else " seed")
    trusted = trusted_of({arm for judgement in ranked for arm in judgement.setting.arms})
    table = [cells(judgement, trusted) for judgement in ranked]
    idle = {"seeds"} if len(seeds) == 1 else set()  # those of cells that failed are missing in some rows alone
    shown = [name for name in table[0] if name not in idle and any(row[name] != "-" for row in table)]
    rows = [tuple(row[name] for name in shown) for row in table]
    chart = forest(
        [Gain(judged.setting.row, judged.pair.difference, judged.differs) for judged in ranked],
        xlabel="defended - control, points of adaptive accuracy",
        limits=limits,
    )
    text = (
        f"Accuracy on test under adaptive attack at worst, in percent, means over {over}; in brackets the 95 % "
        "interval of the paired difference over seeds."
    )
    said = " ".join([text, *(sentence for name, sentence in EXPLAINED.items() if name in shown)])
    heading = column or "All settings"
    caption = f"{heading}: accuracy on test under adaptive attack at worst, in percent: {ABOUT}."
    found = printed(ranked, ())
    return Section(
        f"summary_{number}", heading, said, shown, rows, chart, collapsed=True, paper=found, caption=caption
    )


def cells(judgement: Judgement, trusted: Sequence[str] = ()) -> dict[str, str]:
    """Return the row of one setting, by column; '-' where there is nothing to say. trusted: arms of the table."""
    setting = judgement.setting
    aucs = [run["selection"]["auc"] for run in setting.runs if run["selection"]["auc"] is not None]
    means = {arm: f"{np.mean(setting.values(arm, WORST)):.1f}" for arm in setting.arms}
    stamped = setting.values("defended", "triggered") if "triggered" in setting.runs[0]["arms"]["defended"] else []
    return {
        "scorer": setting.row,
        "seeds": str(len(setting.runs)),
        "AUC": f"{np.mean(aucs):.3f}" if aucs else "-",
        **{arm: means[arm] for arm in COMPARED},
        **{arm_in_words(arm): means.get(arm, "-") for arm in trusted},
        "defended - control (95 %)": str(setting.gain()),
        "p, Holm": p_value(judgement.holm),
        **{
            f"defended - {arm_in_words(arm)} (95 %)": str(setting.gain(over=arm)) if arm in means else "-"
            for arm in trusted
        },
        "clean, defended - control (95 %)": str(setting.gain("clean")),
        "transfer, defended - control (95 %)": str(setting.gain("transfer")),
        "triggered": f"{np.mean(stamped):.1f}" if stamped else "-",
        "proxy": means.get("proxy", "-"),
    }


def arms(number: int, judgement: Judgement, rows: int) -> Section:
    """Return the table of arms of one setting, with its verdict over seeds; one of `rows` that have a p-value."""
    setting = judgement.setting
    names = setting.arms
    table = []
    for metric in metrics(setting.runs[0]["arms"]["baseline"]):
        means = [f"{np.mean(setting.values(arm, metric)):.1f}" for arm in names]
        table.append((spoken(metric), *means, str(setting.gain(metric))))
    verdict = judged(setting.gain(), rival=setting.rival, p=judgement.holm, rows=rows)
    if setting.inconclusive:
        verdict = f"{setting.gain()} points over random, {judgement.word}"
    return Section(f"arms_{number}", setting.label, verdict, header(names), table, collapsed=rows > 1)


def choices(settings: Sequence[Setting]) -> list[Section]:
    """Return what every setting with an automatic treatment chose, seed by seed; no section of none."""
    automatic = [setting for setting in settings if setting.is_automatic]
    rows = []
    for setting in automatic:
        found = Counter(chosen(run) for run in setting.runs)
        for what, count in found.most_common():
            rows.append(
                (setting.name, what, Text(f"{count} of {len(setting.runs)}", value=count / len(setting.runs)))
            )
    text = (
        "Of treatment.budget=auto: what did best on held-out validation, seed by seed. Where no candidate beat "
        "its random control and the untreated data there, nothing was treated."
    )
    head = ("setting", "chosen", "seeds")
    return [Section("chosen", "What was chosen", text, head, rows)] if rows else []


def chosen(result: Result) -> str:
    """Return what one run with an automatic treatment chose: 'remove 0.2', 'reweight', 'nothing'."""
    table = pd.DataFrame(result["candidates"])
    (pick,) = table[table["chosen"]].to_dict("records")
    if pick["treatment"] == "none":
        return "nothing"
    return str(pick["treatment"]) if pick["treatment"] == "reweight" else f"{pick['treatment']} {pick['budget']:g}"
