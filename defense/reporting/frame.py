"""Many results as settings, which are runs that differ in their seed alone, and as one tidy table."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from defense.config.choices import AUTO, Task, TreatmentName
from defense.config.dotted import last_name, named
from defense.errors import InputError
from defense.reporting.arms import arms_of, has, lookup
from defense.reporting.reading import (
    FOLDER,
    LABEL,
    MCNEMAR,
    Result,
    effect_of,
    is_rival,
    objective_of,
    proxy_of,
    read,
)
from defense.reporting.statistics import mcnemar

Value = str | int | float | bool | None
T = TypeVar("T")
NAMED_BY_FILE = ("objective=", "data=", "model=", "+experiment/")  # overrides that a page calls by their value
OBJECTIVE, BALANCE = "objective", "treatment.balance="  # of a sweep: parts of a row beside the scorer
TREATMENT, DISCRETE = "treatment=", "treatment.discrete="  # if a descent stands beside scores: these, too
GROUP = ("data", "model", "train", "threat", "evaluation", "evade")  # settings that make accuracies comparable
OTHER_ARMS = ("trusted", "trusted_weights", "controls")  # of evaluation: the arms, and their number
OPTIMIZE = TreatmentName.optimize.value
NAMES = ("source", "name", "recipe", "_target_")  # the name of a group of settings, the first there is
WORST = "adaptive.worst"
SAMPLES = "per_sample.parquet"  # of a run: which samples each arm gets right


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone."""

    label: str  # the overrides that they share
    scorer: str  # the scorer with its swept settings
    row: str  # the scorer with all that decides which samples are treated
    column: str  # everything else that was swept, in words
    where: str  # everything that was swept beside the scorer, in words
    place: str  # swept settings of its comparison group, in words
    runs: list[Result]
    knobs: dict[str, Value] = field(default_factory=dict)  # everything that was swept beside the row, by name
    mark: str = ""  # the end of its row if an earlier setting has its name

    @property
    def arms(self) -> list[str]:
        """The arms that all runs have, in the order of every table; without a proxy that no score comes from."""
        names = arms_of(set.intersection(*(set(run["arms"]) for run in self.runs)))
        return [name for name in names if name != "proxy" or proxy_of(self.config)]

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the first run."""
        config: dict[str, Any] = self.runs[0]["config"]
        return config

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        return [run["seed"] for run in self.runs]

    @property
    def name(self) -> str:
        """The row and the column."""
        return ", ".join(filter(None, (self.row, self.column)))

    @property
    def group(self) -> str:
        """The settings that its accuracies depend on beside the treatment: one group is comparable."""
        own = {name: self.config.get(name) for name in GROUP}
        suite = {name: value for name, value in (own["evaluation"] or {}).items() if name not in OTHER_ARMS}
        return json.dumps(own | {"evaluation": suite}, sort_keys=True)

    def has(self, path: str, arm: str = "baseline") -> bool:
        """Return whether an arm has a number in all runs: gaps are of data with groups alone."""
        return all(has(run["arms"].get(arm), path) for run in self.runs)

    def values(self, arm: str, path: str) -> list[float]:
        """Return a number of an arm, by run; raises KeyError if a run has no such arm."""
        return [lookup(run["arms"][arm], path) for run in self.runs]

    def mean(self, arm: str, path: str = WORST) -> float:
        """Return the mean over seeds of a number of an arm."""
        return float(np.mean(self.values(arm, path)))

    @property
    def is_rival(self) -> bool:
        """Whether the scorer is chance or perfect knowledge."""
        return is_rival(self.config)

    @property
    def method(self) -> str:
        """The method of the scorer."""
        return str(self.config["scorer"]["method"])

    @property
    def inconclusive(self) -> str:
        """Why nothing can be said about half of its runs or more; nothing if something can."""
        reasons = [reason for run in self.runs if (reason := run.get("health", {}).get("reason"))]
        return str(max(reasons, key=reasons.count)) if reasons and 2 * len(reasons) >= len(self.runs) else ""

    @property
    def is_automatic(self) -> bool:
        """Whether the treatment was chosen on held-out validation."""
        return bool(self.config["treatment"]["budget"] == AUTO)

    @property
    def control(self) -> str:
        """The random control in words: 'random removal'."""
        return "the random control" if self.is_automatic else effect_of(self.config["treatment"]).control


def settings_of(results: Sequence[Result]) -> list[Setting]:
    """Return the settings of many results: by comparison group, then by column, as they appear.

    The same run found twice counts once. Runs that differ in versions or device are apart, and numbered.
    """
    names, shared = knobs_of(results), shared_overrides(results)
    descends = any(result["config"]["treatment"]["name"] == OPTIMIZE for result in results)
    own = (BALANCE, *((TREATMENT, DISCRETE) if descends else ()))  # of a row: a descent competes with removal
    settings = []
    for label, runs in group(results):
        first = runs[0]
        settings.append(
            Setting(
                label,
                scorer_of(first, shared),
                row_of(first, shared, own),
                column_of(first, shared, but=(OBJECTIVE, *own)),
                column_of(first, shared),
                column_of(first, shared, but=(OBJECTIVE, "treatment", "attack")),
                runs,
                {name: value_of(first, name) for name in names},
            )
        )
    settings = [numbered(setting, settings[:place]) for place, setting in enumerate(settings)]
    order = [list(dict.fromkeys(getattr(each, name) for each in settings)) for name in ("group", "column")]
    return sorted(settings, key=lambda each: (order[0].index(each.group), order[1].index(each.column)))


def numbered(setting: Setting, earlier: Sequence[Setting]) -> Setting:
    """Return a setting, numbered from 2 if earlier ones have its name, as of another device."""
    same = sum((one.row, one.where) == (setting.row, setting.where) for one in earlier)
    mark = f" ({same + 1})" if same else ""
    return replace(setting, row=f"{setting.row}{mark}", scorer=f"{setting.scorer}{mark}", mark=mark)


Shared = dict[str, set[str]]  # by the name of a run: the overrides that all of its name share


def shared_overrides(results: Sequence[Result]) -> Shared:
    """Return the overrides that all results of one name share."""
    parts = by(results, lambda result: result["name"])
    return {name: set.intersection(*(set(one["overrides"]) for one in own)) for name, own in parts.items()}


def swept(result: Result, shared: Shared) -> list[str]:
    """Return the overrides of one result that not all of its name share, without its seed."""
    return [
        part for part in result["overrides"] if part not in shared[result["name"]] and not part.startswith("seed=")
    ]


def named_by_sweep(result: Result, shared: Shared) -> str:
    """Return a run by its swept overrides and its seed."""
    return " ".join([*swept(result, shared), f"seed={result['seed']}"])


def scorer_of(result: Result, shared: Shared) -> str:
    """Return the scorer of a result with its swept settings: 'ip', 'ip proxy=adversarial'.

    A proxy that no score comes from is left out.
    """
    config = result["config"]
    own = [part.removeprefix("scorer.") for part in swept(result, shared) if part.startswith("scorer.")]
    own = [part.removeprefix("arguments.") for part in own if not part.startswith("_target_=")]
    if proxy_of(config) is None:
        own = [part for part in own if not part.startswith("proxy=")]
    return " ".join([config["scorer"]["name"], *(part for part in own if not part.endswith("=null"))])


def row_of(result: Result, shared: Shared, own: tuple[str, ...]) -> str:
    """Return the scorer with what else was swept and decides which samples are treated: 'ip, utility'."""
    parts = swept(result, shared)
    more = [part.removeprefix(f"{OBJECTIVE}=") for part in parts if part.startswith(OBJECTIVE)]
    more = [last_name(part) if part.startswith(f"{OBJECTIVE}._target_=") else part for part in more]
    more = more if objective_of(result["config"]) else []
    more += [part.removeprefix(TREATMENT).removeprefix("treatment.") for part in parts if part.startswith(own)]
    return ", ".join([scorer_of(result, shared), *more])


def column_of(result: Result, shared: Shared, *, but: tuple[str, ...] = ()) -> str:
    """Return what else was swept, the name of the run first if there are several: 'digits, utility'.

    but: names of overrides to leave out.
    """
    others = [
        part.partition("=")[2] if part.startswith(NAMED_BY_FILE) else part
        for part in swept(result, shared)
        if not part.startswith(("scorer", "experiment=", "store=", *but))
    ]
    return ", ".join([result["name"], *others] if len(shared) > 1 else others)


def knobs_of(results: Sequence[Result]) -> list[str]:
    """Return the names of what was swept beside the scorer, the seed and the parts of a row; the name first."""
    shared = shared_overrides(results)
    names = dict.fromkeys(part.partition("=")[0] for result in results for part in swept(result, shared))
    aside = ("scorer", "experiment", "store", OBJECTIVE, BALANCE.rstrip("="), "name")
    several = ["name"] if len(shared) > 1 else []
    return [*several, *(name for name in names if not name.startswith(aside))]


def value_of(result: Result, name: str) -> Value:
    """Return the value of a setting by its dotted name, or the name of a group of settings; None if unread."""
    if name == "name":
        return str(result["name"])
    given = dict(part.partition("=")[::2] for part in result["overrides"])
    value: Any = read(result["config"])
    for part in name.lstrip("+~").split("."):
        if not isinstance(value, dict) or part not in value:
            return given.get(name)
        value = value[part]
    if isinstance(value, dict):
        own = [str(value[name]).rpartition(".")[2] for name in NAMES if name in value]
        return given.get(name, own[0] if own else "default")
    return value if isinstance(value, Value) else str(value)


def identity(result: Result) -> dict[str, Any]:
    """Return everything that two runs of one seed must share to be the same run."""
    return {**read(result["config"]), "versions": result["versions"], "device": result["device"]}


def key_of(result: Result) -> str:
    """Return the key that runs of one setting share."""
    return json.dumps(identity(result), sort_keys=True)


def group(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """Return the results that differ in nothing but their seed, under the overrides that they share.

    The same run found twice counts once: a seed is one observation however often it was repeated. So do runs that
    differ in settings that their scorer does not read. Runs that differ in versions or device are apart, and
    numbered if their command was the same.
    """
    groups: dict[str, dict[str, Result]] = defaultdict(dict)
    for result in results:
        groups[key_of(result)][str(result["seed"])] = result
    labels = [label(next(iter(seeds.values()))) for seeds in groups.values()]
    numbered = [
        f"{name} ({labels[:i].count(name) + 1})" if labels.count(name) > 1 else name
        for i, name in enumerate(labels)
    ]
    return [(name, list(seeds.values())) for name, seeds in zip(numbered, groups.values(), strict=True)]


def label(result: Result) -> str:
    """Return the overrides that a run was started with, without its seed."""
    return " ".join(part for part in result["overrides"] if not part.startswith(("seed=", "store="))) or "default"


def by(items: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """Return items by a key that they share, in order of appearance."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def described(setting: Setting) -> dict[str, Value]:
    """Return a setting by column: its scorer, objective, treatment, and everything else that was swept."""
    objective, treatment = objective_of(setting.config), setting.config["treatment"]
    terms = [named(term, objective.get("_target_")) for term in objective["weights"]] if objective else []
    return {
        "scorer": setting.row,
        "objective": " + ".join(terms) or None,
        "treatment": named(treatment["name"], treatment.get("_target_")),
        **{name: value for name, value in setting.knobs.items() if name not in ("name", "treatment")},
    }


def frame(
    settings: Sequence[Setting], results: Sequence[Result], numbers: Callable[[Result], Result]
) -> pd.DataFrame:
    """Return one tidy table of results, one row a run: its setting, its folder, what was swept, its numbers.

    setting: the number of its setting, from 1. counted: False of a run found twice, which counts once.
    inconclusive: why nothing can be said about it. numbers: the function that returns the numbers of a result, by
    column. seconds_own: of the stages that it computed itself; seconds_all: of all its stages.
    """
    places = {key_of(setting.runs[0]): number for number, setting in enumerate(settings)}
    kept = {id(run) for setting in settings for run in setting.runs}
    rows = []
    for result in results:
        number = places[key_of(result)]
        rows.append(
            {
                "setting": number + 1,
                FOLDER: result.get(FOLDER),
                LABEL: result.get(LABEL),
                "name": result["name"],
                "seed": result["seed"],
                **described(settings[number]),
                "counted": id(result) in kept,
                **numbers(result),
                "inconclusive": result.get("health", {}).get("reason"),
                **costs(result),
                "device": result["device"],
            }
        )
    return tidy(pd.DataFrame(rows))


def costs(result: Result) -> dict[str, float]:
    """Return the seconds of the stages of one run: those that it computed itself, and all."""
    seconds, reused = result["seconds"], set(result["reused"])
    own = sum(value for stage, value in seconds.items() if stage not in reused)
    return {"seconds_own": float(own), "seconds_all": float(sum(seconds.values()))}


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without empty columns, each column of one type: a column of several kinds is text."""
    columns: dict[str, Any] = {}
    for name in table.columns:
        column = table[name]
        if column.isna().all():
            continue
        kinds = {type(value) for value in column.dropna()} - {float, int, np.float64, np.int64}
        several = kinds and column.dropna().map(type).nunique() > 1 and name != FOLDER
        columns[name] = column.map(str, na_action="ignore") if several else column.infer_objects()
    return pd.DataFrame(columns)


def mcnemar_of(result: Result) -> float:
    """Return the p-value of McNemar's test between the defended arm and the control; NaN without their samples.

    There is none beside the mean of several random draws. A result that has it is trusted, as of cells.parquet.
    """
    if MCNEMAR in result:
        return float(result[MCNEMAR])
    if "controls" in result or FOLDER not in result or result["task"] != Task.defend.value:
        return float("nan")
    right = per_sample(result[FOLDER])
    return float("nan") if right is None else mcnemar(right["defended"], right["control"])


def with_mcnemar(result: Result) -> Result:
    """Return a result with the p-value of `mcnemar_of`."""
    return result | {MCNEMAR: mcnemar_of(result)}


def per_sample(folder: Path) -> dict[str, np.ndarray] | None:
    """Return whether each arm is right under adaptive attack at worst, bool (n,), the same samples in one order.

    None if a run has left no such table. Raises InputError if it is another table.
    """
    file = folder / SAMPLES
    if not file.exists():
        return None
    try:
        table = pd.read_parquet(file, columns=["id", "arm", WORST]).pivot(index="id", columns="arm", values=WORST)
        if table.isna().any(axis=None):
            raise ValueError("arms of different samples")
        return {arm: table[arm].to_numpy(dtype=bool) for arm in ("control", "defended")}
    except (ValueError, KeyError, OSError) as error:
        raise InputError("PATH", file, f"not what a run of this version leaves ({error})") from error
