"""The orders of many runs in one tidy table: a row for each run and damping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from defense.reporting.reading import is_rival
from defense.reporting.statistics import Mean, Paired, compared, holm, mean_interval
from defense.reporting.sweeps import Grid, row_of, swept

Result = dict[str, Any]
ALL = "all"  # of a gain: over everything
MATRIX = "matrix"  # definite, or indefinite: whether an eigenvalue of H + lambda I is below zero
METRICS = ("spearman", "kendall", "overlap")


@dataclass(frozen=True)
class Gain:
    """What a scorer has over ip, somewhere: of Spearman's rho and of the overlap; p after Holm's correction."""

    scorer: str
    factor: str
    level: str
    spearman: Paired
    overlap: Paired
    p: float | None


@dataclass(frozen=True)
class Orders:
    """All runs of a page.

    table: seed, scorer, damping, a column for each factor that was swept, and the numbers of `order_result`.
    """

    results: Sequence[Result]  # each run once
    table: pd.DataFrame
    factors: Sequence[str]  # damping comes last, where there are several
    rivals: frozenset[str]

    @classmethod
    def of(cls, results: Sequence[Result]) -> Orders:
        """Return the table of `results`; raises InputError where a seed is found twice in runs that differ."""
        grid: Grid[Result] = Grid.of(results, lambda result: result)
        once = [result for seeds in grid.cells.values() for result in seeds.values()]
        rows = [row for result in once for row in rows_of_result(result, results)]
        table = pd.DataFrame(rows)
        known = ("seed", "scorer", "damping", *METRICS, "angle", "lowest", "auc", "reference_auc", "seconds")
        names = [name for name in table.columns if name not in (*known, "reference_seconds", "harmful", "others")]
        table[names] = table[names].fillna("-")
        several = table["damping"].nunique() > 1
        indefinite = table["lowest"] + table["damping"] < 0
        table[MATRIX] = np.where(table["lowest"].isna(), "-", np.where(indefinite, "indefinite", "definite"))
        rivals = {row_of(result, results) for result in results if is_rival(result["config"])}
        return cls(once, table, [*names, *(["damping"] if several else [])], frozenset(rivals))

    @property
    def reference(self) -> str:
        """What scores are compared with, in words."""
        kinds = dict.fromkeys(result["config"]["order"]["reference"] for result in self.results)
        return "exact influence" if list(kinds) == ["hessian"] else f"influence by {', '.join(kinds)}"

    @property
    def grounds(self) -> list[str]:
        """The factors, and whether the matrix that is inverted is definite, where both occur."""
        return [*self.factors, *([MATRIX] if self.table[MATRIX].nunique() > 1 else [])]

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns of the table as arrays: a page asks for hundreds of means."""
        return {str(name): self.table[name].to_numpy() for name in self.table}

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return sorted(self.table["seed"].unique())

    @property
    def scorers(self) -> list[str]:
        """The scorers in order of appearance, chance and perfect knowledge last."""
        return sorted(dict.fromkeys(self.table["scorer"]), key=lambda scorer: scorer in self.rivals)

    @property
    def main(self) -> str:
        """The scorer that the page is about: ip, or the first there is."""
        return "ip" if "ip" in self.scorers else self.scorers[0]

    def levels(self, factor: str) -> list[Any]:
        """Return the levels of a factor: numbers by size, others in order of appearance."""
        found = list(dict.fromkeys(self.table[factor]))
        return sorted(found) if all(isinstance(level, int | float) for level in found) else found

    def by_seed(self, metric: str, scorer: str, place: Mapping[str, Any] | None = None) -> np.ndarray:
        """Return the mean of a metric over all else by seed, at levels of factors; seeds that lack it are out."""
        values = self.columns[metric]
        kept = (self.columns["scorer"] == scorer) & ~np.isnan(values)
        for factor, level in (place or {}).items():
            kept &= self.columns[factor] == level
        seeds, groups = np.unique(self.columns["seed"][kept], return_inverse=True)
        return np.bincount(groups, values[kept]) / np.bincount(groups) if len(seeds) else np.empty(0)

    def mean(self, metric: str, scorer: str, place: Mapping[str, Any] | None = None) -> Mean | None:
        """Return the mean over seeds of `by_seed`, with its interval; None where there is nothing."""
        values = self.by_seed(metric, scorer, place)
        return mean_interval(values) if len(values) else None

    def gains(self) -> list[Gain]:
        """Return what every other scorer has over ip, over all and at every level of every factor."""
        if "ip" not in self.scorers:
            return []
        others = [scorer for scorer in self.scorers if scorer != "ip" and scorer not in self.rivals]
        places = [("", ALL), *((factor, level) for factor in self.grounds for level in self.levels(factor))]
        found = [
            (
                scorer,
                factor,
                level,
                *(self.paired(metric, scorer, factor, level) for metric in ("spearman", "overlap")),
            )
            for scorer in others
            for factor, level in places
        ]
        kept = [row for row in found if row[3] is not None]
        corrected = holm([row[3].t for row in kept])
        return [
            Gain(scorer, factor, shown(level), spearman, overlap, p)
            for (scorer, factor, level, spearman, overlap), p in zip(kept, corrected, strict=True)
        ]

    def paired(self, metric: str, scorer: str, factor: str, level: Any) -> Paired | None:
        """Return scorer - ip, paired by seed and all else; None where both were not run."""
        keys = ["seed", *(name for name in self.factors if name != "damping"), "damping"]
        rows = self.table[self.table[factor] == level] if factor else self.table
        own, ip = (rows[rows["scorer"] == name].set_index(keys)[metric] for name in (scorer, "ip"))
        own, ip = own.align(ip, join="inner")
        if not len(own):
            return None
        first, second = (values.groupby("seed").mean().to_numpy() for values in (own, ip))
        return compared(first, second)


def rows_of_result(result: Result, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the rows of one result, one for each damping."""
    order = result["order"]
    names = {other["name"] for other in results}
    place = ({"name": result["name"]} if len(names) > 1 else {}) | dict(
        factor_of(part)
        for part in swept(result, results)
        if not part.startswith(("scorer", "experiment=", "store="))
    )
    common = {
        "auc": order["auc"],
        "lowest": order["lowest_eigenvalue"],
        **{kind: order["angles"].get(kind, {}).get("mean") for kind in ("harmful", "others")},
        "seconds": order["seconds"]["score"],
        "reference_seconds": order["seconds"]["reference"],
    }
    return [
        {
            "seed": result["seed"],
            "scorer": row_of(result, results),
            **place,
            "damping": found["damping"],
            **{metric: found[metric] for metric in METRICS},
            "angle": found["angle"],
            "reference_auc": found["auc"],
            **{name: np.nan if value is None else value for name, value in common.items()},
        }
        for found in order["dampings"]
    ]


def factor_of(override: str) -> tuple[str, Any]:
    """Return the name of what was swept and its level, a number where it is one: 'train.epochs=20', epochs 20.

    Of a group in folders, as +experiment/paper/order=cnn, the last folder is the name.
    """
    name, _, level = override.lstrip("+").partition("=")
    try:
        return name.rpartition("/")[2], int(level) if level.isdigit() else float(level)
    except ValueError:
        return name.rpartition("/")[2], level


def shown(level: Any) -> str:
    """Return a level as it is printed."""
    return f"{level:g}" if isinstance(level, int | float) else str(level)
