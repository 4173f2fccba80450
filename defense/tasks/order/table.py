"""The orders of many runs in one table: a row for each run and damping, means over seeds, comparisons with ip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from defense.errors import InputError
from defense.reporting.frame import Setting, identity, settings_of
from defense.reporting.reading import Result, differing
from defense.reporting.statistics import ALPHA, Mean, Paired, compared, holm, mean_interval

ALL = "all"  # a column of one level: over all settings
MATRIX = "matrix"  # a column: whether H + lambda I is definite or indefinite
UNKNOWN = "-"
Means = dict[tuple[Any, ...], dict[str, Mean | None]]  # by levels, then by metric


@dataclass(frozen=True)
class Form:
    """The heading of a measure, and the form in which its numbers are printed."""

    title: str  # {}: the name of the reference
    form: str
    scale: float = 1.0
    bounds: tuple[float, float] | None = None  # no interval leaves them; None: no interval is printed

    def text(self, value: Mean | float | None) -> str:
        """Return a number, or a mean with its interval if there is one: '+0.912 (+0.901 to +0.923)'."""
        if isinstance(value, Mean):
            if self.bounds is None or not value.judgeable:
                return self.text(value.mean)
            low, high = np.clip((value.low, value.high), *self.bounds)
            return f"{self.text(value.mean)} ({self.text(low)} to {self.text(high)})"
        return UNKNOWN if value is None or np.isnan(value) else format(self.scale * value, self.form)


AGREEMENT = ("spearman", "kendall", "overlap")
METRICS = {
    "spearman": Form("Spearman", "+.3f", bounds=(-1, 1)),
    "kendall": Form("Kendall", "+.3f", bounds=(-1, 1)),
    "overlap": Form("overlap, %", ".1f", 100, (0, 1)),
    "auc": Form("AUC", ".3f", bounds=(0, 1)),
    "reference_auc": Form("AUC of {}", ".3f", bounds=(0, 1)),
    "angle": Form("angle", ".0f"),
    "harmful": Form("wrong", ".0f"),
    "others": Form("others", ".0f"),
    "indefinite": Form("indefinite, %", ".0f", 100),
}
GAINS = {
    "spearman": Form("Spearman - ip", "+.3f", bounds=(-np.inf, np.inf)),
    "overlap": Form("overlap - ip, points", "+.1f", 100, (-np.inf, np.inf)),
}
NUMBERS = ("auc", "reference_auc", "harmful", "others", "lowest", "seconds", "reference_seconds")  # or None
LOWEST, SECONDS = Form("lowest eigenvalue", ".2g"), Form("seconds", ".2f")


@dataclass(frozen=True)
class Gain:
    """The difference between a scorer and ip over all settings, or at one level of a factor."""

    scorer: str
    place: str  # ALL, or 'factor=level'
    differences: Mapping[str, Paired]  # by metric of GAINS
    p: float | None  # of Spearman's rho, after Holm's correction

    @property
    def verdict(self) -> str:
        """The outcome for the scorer: better or worse than ip, or neither."""
        if self.p is None:
            return "not judged"
        if self.p >= ALPHA:
            return "not distinguishable"
        return "better" if self.differences["spearman"].difference.mean > 0 else "worse"

    @property
    def texts(self) -> list[str]:
        """The differences as they are printed, in the order of GAINS."""
        return [metric.text(self.differences[name].difference) for name, metric in GAINS.items()]


@dataclass(frozen=True)
class Orders:
    """All runs of a page."""

    results: Sequence[Result]  # each run once
    table: pd.DataFrame  # run (its place in `results`), seed, scorer, factors, damping, MATRIX, ALL, and numbers
    factors: Sequence[str]  # what was swept beside the scorer; damping comes last
    rivals: Collection[str]  # scorers that are chance or perfect knowledge

    @classmethod
    def of(cls, results: Sequence[Result]) -> Orders:
        """Return the table of `results`; raises InputError if two different runs have one place in it."""
        runs = [(setting, place_of(setting), run) for setting in settings_of(results) for run in setting.runs]
        rows: list[dict[str, Any]] = []
        known: dict[tuple[Any, ...], Result] = {}
        for number, (setting, place, run) in enumerate(runs):
            for row in rows_of(run):
                other = known.setdefault((*place.items(), run["seed"], row["damping"]), run)
                if other is not run:
                    differ = ", ".join(differing(identity(other), identity(run)))
                    why = f"two runs that differ in {differ}; expected one of them on a page"
                    raise InputError("PATH", f"{setting.name}, seed {run['seed']}", why)
                rows.append({"run": number, "seed": run["seed"], **place, **row})
        names = [*dict.fromkeys(name for _, place, _ in runs for name in place if name != "scorer")]
        rivals = {place["scorer"] for setting, place, _ in runs if setting.is_rival}
        table = tidy(pd.DataFrame(rows), names, rivals)
        factors = [name for name in (*names, "damping") if table[name].nunique() > 1]
        return cls([run for _, _, run in runs], table, factors, rivals)

    @property
    def reference(self) -> str:
        """The name of the influence that scores are compared with."""
        kinds = dict.fromkeys(result["config"]["order"]["reference"] for result in self.results)
        return "exact influence" if list(kinds) == ["hessian"] else f"influence by {', '.join(kinds)}"

    @property
    def grounds(self) -> list[str]:
        """The factors, and MATRIX if some matrices are indefinite and some are not."""
        return [*self.factors, *([MATRIX] if self.table[MATRIX].nunique() > 1 else [])]

    @property
    def scorers(self) -> list[str]:
        """The scorers in order of appearance, chance and perfect knowledge last."""
        return list(self.table["scorer"].cat.categories)

    @property
    def main(self) -> str:
        """The scorer of the headline: ip, or the first of all."""
        return "ip" if "ip" in self.scorers else self.scorers[0]

    def means(self, *groups: str, metrics: Collection[str] = METRICS) -> Means:
        """Return means over seeds by the levels of `groups`; each seed counts by its mean over all else."""
        seeds = self.table.groupby([*groups, "seed"], observed=True)[[*metrics]].mean()
        means: Means = {}
        for key, rows in seeds.groupby([*groups], observed=True):
            known = {name: rows[name].dropna().to_numpy() for name in metrics}
            means[key] = {name: mean_interval(values) if len(values) else None for name, values in known.items()}
        return means

    def correlations(self, *groups: str) -> dict[tuple[Any, ...], Mean]:
        """Return the means of Spearman's rho alone."""
        means = self.means(*groups, metrics=["spearman"])
        return {key: mean for key, row in means.items() if (mean := row["spearman"])}

    def gains(self) -> list[Gain]:
        """Return the differences between other scorers and ip, paired by seed, levels and damping."""
        keys = [*dict.fromkeys(["seed", *self.factors, "damping"])]
        others = self.table[~self.table["scorer"].isin(["ip", *self.rivals])]
        ip = self.table[self.table["scorer"] == "ip"][[*keys, *GAINS]]
        pairs = others.merge(ip, on=keys, suffixes=("", "_ip"))
        places = []
        for scorer, own in pairs.groupby("scorer", observed=True):
            for factor in (ALL, *self.grounds):
                for level, rows in own.groupby(factor, observed=True):
                    seeds = rows.groupby("seed")[[*GAINS, *(f"{name}_ip" for name in GAINS)]].mean()
                    differences = {name: compared(seeds[name], seeds[f"{name}_ip"]) for name in GAINS}
                    places.append((scorer, ALL if factor == ALL else f"{factor}={shown(level)}", differences))
        corrected = holm([differences["spearman"].t for _, _, differences in places])
        return [Gain(*place, p) for place, p in zip(places, corrected, strict=True)]


def tidy(table: pd.DataFrame, names: Sequence[str], rivals: Collection[str]) -> pd.DataFrame:
    """Return a table with MATRIX and ALL, and with levels in the order in which a page has them.

    Numbers are in order of size, others of appearance; scorers that are `rivals` come last.
    """
    table = table.infer_objects().astype(dict.fromkeys(NUMBERS, float))
    table["indefinite"] = (table["lowest"] + table["damping"] < 0).where(table["lowest"].notna()).astype(float)
    table[MATRIX] = table["indefinite"].map({0: "definite", 1: "indefinite"})
    table[ALL] = ALL
    for name in ("scorer", MATRIX, *names):
        if not is_numeric_dtype(table[name]) or table[name].hasnans:
            texts = table[name].map(shown)
            last = rivals if name == "scorer" else ()
            table[name] = pd.Categorical(texts, sorted(texts.unique(), key=last.__contains__))
    return table


def place_of(setting: Setting) -> dict[str, Any]:
    """Return the scorer of a setting and its level of every factor; a factor in folders is called by the last.

    The row of a setting has the objective after the scorer, if that was swept; here it is a factor.
    """
    scorer, _, objective = setting.row.removesuffix(setting.mark).partition(", ")
    levels = {name.lstrip("+").rpartition("/")[2]: level for name, level in setting.knobs.items()}
    return {"scorer": scorer, **({"objective": objective} if objective else {}), **levels}


def rows_of(result: Result) -> list[dict[str, Any]]:
    """Return the numbers of one result, a row for each damping; None for what it lacks."""
    order, seconds = result["order"], result["order"]["seconds"]
    common = {
        **{kind: order["angles"].get(kind, {}).get("mean") for kind in ("harmful", "others")},
        **{"auc": order["auc"], "lowest": order["lowest_eigenvalue"]},
        **{"seconds": seconds["score"], "reference_seconds": seconds["reference"]},
    }
    return [{**row, "reference_auc": row["auc"], **common} for row in order["dampings"]]


def shown(level: Any) -> str:
    """Return a level as it is printed; UNKNOWN for None and NaN."""
    if pd.isna(level):
        return UNKNOWN
    if isinstance(level, bool | np.bool_):
        return str(level).lower()
    return f"{level:g}" if isinstance(level, Real) else str(level)
