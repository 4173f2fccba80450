"""Settings of a sweep beside their random control, by any measure: differences, judgements, the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from defense.reporting.exports import Text
from defense.reporting.judging import Compared, by_luck, tally, why_unjudged
from defense.reporting.settings import Setting
from defense.reporting.statistics import Mean, deviation, mean_interval, p_value

T = TypeVar("T")
COMPARED = ("baseline", "control", "defended")


def answer_of(rows: Sequence[Compared], what: str) -> str:
    """Return how many settings are better and worse than random by one measure, and the extremes."""
    real = [row for row in rows if not row.setting.is_rival]
    aside = " and ".join(dict.fromkeys(row.setting.row for row in rows if row.setting.is_rival)) if real else ""
    real = real or list(rows)
    judged = [row for row in real if row.holm is not None]
    heading = what[0].upper() + what[1:]
    if not judged:
        known = ", ".join(f"{row.setting.name} {row.pair.difference.mean:+.1f}" for row in real[:3])
        return f"{heading}: not judged. {why_unjudged(real)} ({known} over random)."
    better, worse = tally(judged)
    best, last = max(judged, key=lambda row: row.gain), min(judged, key=lambda row: row.gain)
    left = f" ({aside} not counted)" if aside else ""
    rest = ", the others not distinguishable" if better + worse < len(judged) else ""
    said = (
        f"{heading}: {better} of {len(judged)} settings{left} {'is' if better == 1 else 'are'} better than random"
    )
    said += f", {worse} worse{rest}; best {best.told}"
    said = f"{said}, last {last.told}." if last is not best else f"{said}."
    return " ".join(filter(None, (said, by_luck(rows) if aside else "")))


def knobs_shown(settings: Sequence[Setting]) -> list[str]:
    """Return the names of what was swept beside the scorer and differs between `settings`."""
    names = dict.fromkeys(name for setting in settings for name in setting.knobs)
    return [name for name in names if len({setting.knobs.get(name) for setting in settings}) > 1]


def knob(setting: Setting, name: str) -> str:
    """Return what a setting was run with, as a cell; '-' where it does not read it."""
    return "-" if (value := setting.knobs.get(name)) is None else str(value)


def row_of_table(row: Compared, knobs: Sequence[str]) -> dict[str, str]:
    """Return the cells of one setting, by column; '-' where there is nothing to say."""
    setting, gain, base = row.setting, row.pair.difference, row.baseline.difference
    tone = row.word if row.holm is not None else "unjudged"
    return {
        "scorer": setting.row,
        **{name: knob(setting, name) for name in knobs},
        "seeds": str(len(setting.runs)),
        **{arm: f"{np.mean(setting.values(arm, row.measure)):.1f}" for arm in COMPARED},
        "defended - control (95 %)": Text(str(gain), value=gain.mean),
        "judgement": Text(row.word, tone=tone),
        "p, Holm": p_value(row.holm),
        "defended - baseline (95 %)": Text(str(base), value=base.mean),
        "AUC": selected(setting, "auc", "{:.3f}"),
        "precision": selected(setting, "precision", "{:.2f}"),
    }


def selected(setting: Setting, name: str, form: str) -> Text:
    """Return how well what is treated matches the known noise, with its interval; '-' of unknown noise."""
    found = matched(setting, name)
    if found is None:
        return Text("-")
    ends = " to ".join(form.format(end) for end in (found.low, found.high))
    return Text(form.format(found.mean) + (f" ({ends})" if found.judgeable else ""), value=found.mean)


def matched(setting: Setting, name: str) -> Mean | None:
    """Return the mean over seeds of a measure of the selection, within [0, 1]; None of unknown noise."""
    known = [run["selection"][name] for run in setting.runs if run["selection"].get(name) is not None]
    if not known:
        return None
    found = mean_interval(known)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def noise_found(settings: Sequence[Setting]) -> list[str]:
    """Return, for every ground, how many of the samples that each setting treats have a wrong label."""
    said = []
    for place, own in settings_by(settings, lambda setting: setting.place).items():
        shares = {setting.row: matched(setting, "precision") for setting in own}
        known = {row: mean.mean for row, mean in shares.items() if mean is not None}
        if len(known) == len(own):  # rows that differ in nothing else
            told = ", ".join(
                f"{row} {100 * round(known[row], 2):.0f} %" for row in sorted(known, key=known.__getitem__)[::-1]
            )
            said.append(f"Wrong labels among those treated{f', {place}' if place else ''}: {told}.")
    return said


def compared_table(rows: Sequence[Compared], knobs: Sequence[str]) -> pd.DataFrame:
    """Return the rows as plain numbers."""
    return pd.DataFrame([numbers_of(row, knobs) for row in rows])


def numbers_of(row: Compared, knobs: Sequence[str]) -> dict[str, object]:
    """Return one row as plain numbers, by column."""
    known = {name: matched(row.setting, name) for name in ("auc", "precision")}
    return {
        "scorer": row.setting.row,
        **{name: knob(row.setting, name) for name in knobs},
        "seeds": len(row.setting.runs),
        **{arm: np.mean(row.setting.values(arm, row.measure)) for arm in COMPARED},
        **{f"{arm}_std": deviation(row.setting.values(arm, row.measure)) for arm in COMPARED},
        **row.pair.difference.columns("gain"),
        "p_t": row.pair.t,
        "p_holm": row.holm,
        "p_wilcoxon": row.pair.wilcoxon,
        "judgement": row.word,
        **row.baseline.difference.columns("gain_over_baseline"),
        **{
            column: value
            for name, mean in known.items()
            if mean is not None
            for column, value in mean.columns(name).items()
        },
    }


def settings_by(items: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Return items under what they share, in order of appearance."""
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
