"""Whether treatments helped, over many runs: seeds folded, and every setting beside its random control."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from defense.choices import AUTO
from defense.reporting.figures import forest
from defense.reporting.health import flagged_cells
from defense.reporting.reading import is_rival, objective_of, proxy_of
from defense.reporting.sheet import Part, Sheet
from defense.reporting.statistics import Mean, judged, paired_difference
from defense.reporting.sweeps import Result, column_of, command_of, group, made_of, row_of, swept
from defense.reporting.tables import RIVALS, arms_of, header, lookup, metrics, spoken

DETAILED = 12  # settings: more of them have a row each, and their own pages
WORST = "adaptive.worst"
EXPLAINED = {  # columns of a summary
    "seeds": "A row of fewer seeds than others, as of failed cells, has other means beside it.",
    "AUC": "AUC: of finding the samples that are known to be harmed.",
    "the same, transfer": "transfer: under the attack that was made at the baseline.",
    "triggered": "triggered: on test pictures with the planted trigger, defended.",
    "proxy": "proxy: the model that the scores were taken at, where it is another.",
}
OBJECTIVE, BALANCE = "objective", "treatment.balance="  # of a sweep: what belongs to the row beside the scorer


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone."""

    label: str  # what they were run with
    row: str  # the scorer
    column: str  # what else was swept
    runs: list[Result]

    @property
    def arms(self) -> list[str]:
        """The names of the arms, in the order of every table; without a proxy that no score comes from."""
        names = arms_of(self.runs[0]["arms"])
        return [name for name in names if name != "proxy" or proxy_of(self.runs[0]["config"])]

    def values(self, arm: str, metric: str) -> list[float]:
        """Return an accuracy, in percent, by run; none where there is no such arm."""
        return [lookup(run["arms"][arm], metric) for run in self.runs if arm in run["arms"]]

    def gain(self, metric: str = WORST) -> Mean:
        """Return defended - control in points, paired by seed."""
        return paired_difference(self.values("defended", metric), self.values("control", metric))

    @property
    def method(self) -> str:
        """The method of the scorer."""
        return str(self.runs[0]["config"]["scorer"]["method"])

    @property
    def is_rival(self) -> bool:
        """Whether the scorer is chance or perfect knowledge."""
        return is_rival(self.runs[0]["config"])

    @property
    def rival(self) -> str:
        """What the control is called."""
        spec = self.runs[0]["config"]["treatment"]
        return "the random control" if spec["budget"] == AUTO else RIVALS[spec["name"]]


def defending_sheet(results: Sequence[Result], title: str) -> Sheet:
    """Return the page of task=defend: a summary where there are several settings, and the arms of each."""
    settings = [
        Setting(name, row(runs[0], results), column_of(runs[0], results, but=(OBJECTIVE, BALANCE)), runs)
        for name, runs in group(results)
    ]
    parts = []
    if len(settings) > 1:
        columns = dict.fromkeys(setting.column for setting in settings)
        parts += [
            summary(number, column, [setting for setting in settings if setting.column == column])
            for number, column in enumerate(columns, start=1)
        ]
    if len(settings) <= DETAILED:
        parts += [arms(number, setting) for number, setting in enumerate(settings, start=1)]
    said = " ".join(filter(None, (answer(settings), flagged_cells(results))))
    return Sheet(title, said, command_of(results), parts, made_of(results))


def row(result: Result, results: Sequence[Result]) -> str:
    """Return the scorer with what else was swept and decides which samples are treated: 'ip, utility'."""
    parts = swept(result, results)
    more = [part.removeprefix(f"{OBJECTIVE}=") for part in parts if part.startswith(OBJECTIVE)]
    more = more if objective_of(result["config"]) else []
    more += [part.removeprefix("treatment.") for part in parts if part.startswith(BALANCE)]
    return ", ".join([row_of(result, results), *more])


def answer(settings: Sequence[Setting]) -> str:
    """Return how many settings are better than their control, how many worse, and what chance alone would do.

    Chance and perfect knowledge are not counted, unless there is nothing else.
    """
    aside = dict.fromkeys(setting.method for setting in settings if setting.is_rival)
    counted = [setting for setting in settings if not setting.is_rival]
    if not counted:
        aside, counted = {}, list(settings)
    judgeable = [setting for setting in counted if len(setting.runs) > 1]
    if not judgeable:
        return "One seed: the intervals that a judgement needs are over seeds, as in seed=range(5)."
    gains = [setting.gain() for setting in judgeable]
    better, worse = sum(gain.low > 0 for gain in gains), sum(gain.high < 0 for gain in gains)
    chance = ", 1 worse" if worse else ""
    if len(gains) > 1:
        chance = f", {worse} worse; were all as good as random, {0.05 * len(gains):.1f} would be called different"
        chance += ", not independently: scorers share their control" if share_control(judgeable) else ""
    said = f"settings ({' and '.join(aside)} not counted)" if aside else "settings"
    verb = "is" if better == 1 else "are"
    return f"{better} of {len(gains)} {said} {verb} better than the random control{chance}."


def share_control(settings: Sequence[Setting]) -> bool:
    """Return whether settings of one column have one control: one whose accuracies are all the same."""
    controls = [
        (setting.column, run["seed"], json.dumps(run["arms"]["control"], sort_keys=True))
        for setting in settings
        for run in setting.runs
    ]
    return len(set(controls)) < len(controls)


def summary(number: int, column: str, settings: Sequence[Setting]) -> Part:
    """Return one row per scorer, the highest gain first, and the gains with their intervals as a chart."""
    ranked = sorted(settings, key=lambda setting: -setting.gain().mean)
    seeds = sorted({len(setting.runs) for setting in settings})
    over = " to ".join(map(str, dict.fromkeys([seeds[0], seeds[-1]]))) + (" seeds" if seeds != [1] else " seed")
    table = [cells(setting) for setting in ranked]
    idle = {"seeds"} if len(seeds) == 1 else set()  # those of cells that failed are missing in some rows alone
    shown = [name for name in table[0] if name not in idle and any(row[name] != "-" for row in table)]
    rows = [tuple(row[name] for name in shown) for row in table]
    chart = forest(
        [(setting.row, setting.gain()) for setting in ranked],
        xlabel="defended - control, points of adaptive accuracy",
    )
    text = (
        f"Accuracy on test under adaptive attack at worst, in percent, means over {over}; in brackets the 95 % "
        "interval of the paired difference over seeds."
    )
    said = " ".join([text, *(sentence for name, sentence in EXPLAINED.items() if name in shown)])
    return Part(f"summary_{number}", column or "All settings", said, shown, rows, chart)


def cells(setting: Setting) -> dict[str, str]:
    """Return the row of one setting, by column; '-' where there is nothing to say."""
    aucs = [run["selection"]["auc"] for run in setting.runs if run["selection"]["auc"] is not None]
    means = {arm: f"{np.mean(setting.values(arm, WORST)):.1f}" for arm in setting.arms}
    stamped = setting.values("defended", "triggered") if "triggered" in setting.runs[0]["arms"]["defended"] else []
    return {
        "scorer": setting.row,
        "seeds": str(len(setting.runs)),
        "AUC": f"{np.mean(aucs):.3f}" if aucs else "-",
        **{arm: mean for arm, mean in means.items() if arm != "proxy"},
        "defended - control (95 %)": str(setting.gain()),
        "the same, clean": str(setting.gain("clean")),
        "the same, transfer": str(setting.gain("transfer")),
        "triggered": f"{np.mean(stamped):.1f}" if stamped else "-",
        "proxy": means.get("proxy", "-"),
    }


def arms(number: int, setting: Setting) -> Part:
    """Return the table of arms of one setting, with its verdict over seeds."""
    names = setting.arms
    rows = []
    for metric in metrics(setting.runs[0]["arms"]["baseline"]):
        means = [f"{np.mean(setting.values(arm, metric)):.1f}" for arm in names]
        rows.append((spoken(metric), *means, str(setting.gain(metric))))
    verdict = judged(setting.gain(), rival=setting.rival)
    return Part(f"arms_{number}", setting.label, verdict, header(names), rows)
