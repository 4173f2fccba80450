"""Settings of a sweep beside their random control, by any measure: differences, judgements, the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from defense.choices import Harm, TreatmentName
from defense.reporting.exports import Text
from defense.reporting.settings import Setting
from defense.reporting.significance import Paired, compared, holm
from defense.reporting.statistics import ALPHA, p_value

T = TypeVar("T")
COMPARED = ("baseline", "control", "defended")


@dataclass(frozen=True)
class Compared:
    """One setting by one measure: defended beside control and baseline, paired by seed."""

    setting: Setting
    measure: str  # the name that the arms of a result have it under
    sign: int  # -1 where lower is better
    control: Paired  # defended - control
    baseline: Paired  # defended - baseline
    holm: float | None = None  # of control.t, corrected over all rows of the measure

    @classmethod
    def all(cls, settings: Sequence[Setting], measure: str, *, lower_is_better: bool = False) -> list[Compared]:
        """Return every setting compared by one measure."""
        sign = -1 if lower_is_better else 1
        rows = [
            cls(
                setting,
                measure,
                sign,
                compared(setting.values("defended", measure), setting.values("control", measure)),
                compared(setting.values("defended", measure), setting.values("baseline", measure)),
            )
            for setting in settings
        ]
        corrected = holm([row.control.t for row in rows])
        return [replace(row, holm=p) for row, p in zip(rows, corrected, strict=True)]

    @property
    def differs(self) -> bool:
        """Whether the setting is called better or worse than its control."""
        return self.holm is not None and self.holm < ALPHA

    @property
    def gain(self) -> float:
        """Defended - control, above zero where it is one for the better."""
        return self.sign * self.control.difference.mean

    @property
    def word(self) -> str:
        """The judgement in a word or two."""
        if self.holm is None:
            return "not judged"
        return ("better" if self.gain > 0 else "worse") if self.differs else "not distinguishable"


def answer_of(rows: Sequence[Compared], what: str) -> str:
    """Return how many settings are better and worse than random by one measure, and the extremes."""
    real = [row for row in rows if not row.setting.is_rival] or list(rows)
    judged = [row for row in real if row.holm is not None]
    heading = what[0].upper() + what[1:]
    if not judged:
        known = ", ".join(f"{row.setting.name} {row.control.difference.mean:+.1f}" for row in real[:3])
        return f"{heading}: not judged, for that takes several seeds, as in seed=range(5) ({known} over random)."
    better, worse = (sum(row.differs and (row.gain > 0) is good for row in judged) for good in (True, False))
    best, last = max(judged, key=lambda row: row.gain), min(judged, key=lambda row: row.gain)
    said = f"{heading}: {better} of {len(judged)} settings {'is' if better == 1 else 'are'} better than random"
    said += f", {worse} worse, the others not distinguishable; best {told(best)}"
    return f"{said}, last {told(last)}." if last is not best else f"{said}."


def told(row: Compared) -> str:
    """Return 'ip, remove +1.2 (0.3 to 2.1; better)'."""
    found = row.control.difference
    ends = f"{found.low:+.1f} to {found.high:+.1f}; " if found.judgeable else ""
    return f"{row.setting.name} {found.mean:+.1f} ({ends}{row.word})"


def knobs_shown(settings: Sequence[Setting]) -> list[str]:
    """Return the names of what was swept beside the scorer and differs between `settings`."""
    names = dict.fromkeys(name for setting in settings for name in setting.knobs)
    return [name for name in names if len({setting.knobs.get(name) for setting in settings}) > 1]


def row_of_table(row: Compared, knobs: Sequence[str]) -> dict[str, str]:
    """Return the cells of one setting, by column; '-' where there is nothing to say."""
    setting, gain, base = row.setting, row.control.difference, row.baseline.difference
    tone = row.word if row.holm is not None else "unjudged"
    return {
        "scorer": setting.row,
        **{name: "-" if (value := setting.knobs.get(name)) is None else str(value) for name in knobs},
        "seeds": str(len(setting.runs)),
        **{arm: f"{np.mean(setting.values(arm, row.measure)):.1f}" for arm in COMPARED},
        "defended - control (95 %)": Text(str(gain), value=gain.mean),
        "judgement": Text(row.word, tone=tone),
        "p, Holm": p_value(row.holm),
        "defended - baseline (95 %)": Text(str(base), value=base.mean),
        "AUC": selected(setting, "auc", "{:.3f}"),
        "precision": selected(setting, "precision", "{:.2f}"),
    }


def selected(setting: Setting, name: str, form: str) -> str:
    """Return the mean over seeds of how well what is treated matches the known noise; '-' of unknown noise."""
    known = [run["selection"][name] for run in setting.runs if run["selection"][name] is not None]
    return form.format(float(np.mean(known))) if known else "-"


def compared_table(rows: Sequence[Compared], knobs: Sequence[str]) -> pd.DataFrame:
    """Return the rows as plain numbers."""
    return pd.DataFrame(
        [
            {
                "scorer": row.setting.row,
                **{name: str(row.setting.knobs.get(name)) for name in knobs},
                "seeds": len(row.setting.runs),
                **{arm: np.mean(row.setting.values(arm, row.measure)) for arm in COMPARED},
                "gain": row.control.difference.mean,
                "gain_low": row.control.difference.low,
                "gain_high": row.control.difference.high,
                "p_t": row.control.t,
                "p_holm": row.holm,
                "p_wilcoxon": row.control.wilcoxon,
                "judgement": row.word,
                "gain_over_baseline": row.baseline.difference.mean,
                "gain_over_baseline_low": row.baseline.difference.low,
                "gain_over_baseline_high": row.baseline.difference.high,
            }
            for row in rows
        ]
    )


def settings_by(items: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Return items under what they share, in order of appearance."""
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def grounds_of(settings: Sequence[Setting]) -> list[str]:
    """Return one line for every ground: data and harm, model, budget, how many samples there are of each part."""
    said = []
    for own in settings_by(settings, lambda setting: setting.ground).values():
        config, sizes = own[0].runs[0]["config"], own[0].runs[0]["sizes"]
        data, model = config["data"], str(config["model"]["_target_"]).rpartition(".")[2]
        network = "logistic" if config["model"].get("hidden") == [] else model
        labels = f" ({data['train_labels']})" if data["train_labels"] else ""
        harm = f", {data['harm']} harm in {100 * data['harm_rate']:g} %" if data["harm"] != Harm.none.value else ""
        budgets = dict.fromkeys(treated(each.runs[0]["config"]["treatment"]) for each in own)
        counts = ", ".join(f"{sizes[part]} {part}" for part in ("train", "validation", "test"))
        place = own[0].place or data["source"]
        seeds = len({run["seed"] for each in own for run in each.runs})
        said.append(
            f"{place}{labels}, {network}{harm}: {counts} samples; {', '.join(budgets)}; "
            f"{len(own)} settings, {seeds} seeds."
        )
    return said


def treated(spec: Mapping[str, Any]) -> str:
    """Return what a treatment does to how many: 'remove 5 %', 'reweight'."""
    name = str(spec["name"])
    return name if name == TreatmentName.reweight.value else f"{name} {100 * spec['budget']:g} %"
