"""A sweep in two tidy tables of plain numbers: one row a run, and one row a setting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from defense.config.choices import Task
from defense.errors import InputError
from defense.reporting.reading import objective_of
from defense.reporting.settings import WORST, Setting, Value
from defense.reporting.significance import mcnemar
from defense.reporting.statistics import points
from defense.reporting.sweeps import FOLDER, LABEL, MCNEMAR, Result, identity
from defense.reporting.tables import lookup, metrics

SAMPLES = "per_sample.parquet"  # of a run: what each arm gets right


def cells_table(settings: Sequence[Setting], results: Sequence[Result]) -> pd.DataFrame:
    """Return one row a result: where it is, what was swept, every accuracy in percent, McNemar's p-value, costs.

    inconclusive: why nothing can be said about it.
    setting: the number of its setting, from 1. counted: False of a run found twice, which counts once.
    seconds_own: of the stages that it computed itself; seconds_all: of all its stages, whoever computed them.
    """
    keys = {key_of(setting.runs[0]): number for number, setting in enumerate(settings)}
    kept = {id(run) for setting in settings for run in setting.runs}
    rows = []
    for result in results:
        number = keys[key_of(result)]
        setting = settings[number]
        gain = result.get("gain_over_control", {})
        rows.append(
            {
                "setting": number + 1,
                FOLDER: result.get(FOLDER),
                LABEL: result.get(LABEL),
                "name": result["name"],
                "seed": result["seed"],
                **described(setting),
                "counted": id(result) in kept,
                **{
                    f"{arm}.{metric}": lookup(result["arms"][arm], metric)
                    for arm in setting.arms
                    for metric in metrics(result["arms"][arm])
                },
                "gain": points(
                    lookup(result["arms"]["defended"], WORST) - lookup(result["arms"]["control"], WORST)
                ),
                "gain_low": gain.get("low"),
                "gain_high": gain.get("high"),
                "inconclusive": result.get("health", {}).get("reason"),
                MCNEMAR: mcnemar_of(result),
                **{f"selection.{name}": value for name, value in result["selection"].items()},
                **costs(result),
                "device": result["device"],
            }
        )
    return tidy(pd.DataFrame(rows))


def key_of(result: Result) -> str:
    """Return what runs of one setting share."""
    return json.dumps(identity(result), sort_keys=True)


def described(setting: Setting) -> dict[str, Value]:
    """Return what a setting is, by column: its scorer, objective, treatment, and whatever else was swept."""
    config = setting.runs[0]["config"]
    objective = objective_of(config)
    return {
        "scorer": setting.row,
        "objective": " + ".join(objective["weights"]) if objective else None,
        "treatment": config["treatment"]["name"],
        **{name: value for name, value in setting.knobs.items() if name not in ("name", "treatment")},
    }


def costs(result: Result) -> dict[str, float]:
    """Return the seconds of the stages of one run: those that it computed itself, and all."""
    seconds, reused = result["seconds"], set(result["reused"])
    own = sum(value for stage, value in seconds.items() if stage not in reused)
    return {"seconds_own": float(own), "seconds_all": float(sum(seconds.values()))}


def mcnemar_of(result: Result) -> float:
    """Return the p-value of McNemar's test on what defended and control get right; NaN if no run has left that.

    There is none beside the mean of several random draws. A result that knows it is taken at its word, as those of
    cells.parquet are.
    """
    if MCNEMAR in result:
        return float(result[MCNEMAR])
    if "controls" in result:
        return float("nan")
    found = per_sample(result[FOLDER]) if FOLDER in result and result["task"] == Task.defend.value else None
    return float("nan") if found is None else mcnemar(found["defended"], found["control"])


def with_mcnemar(result: Result) -> Result:
    """Return a result that knows the p-value of `mcnemar_of`."""
    return result | {MCNEMAR: mcnemar_of(result)}


def per_sample(folder: Path) -> dict[str, np.ndarray] | None:
    """Return what each arm gets right under adaptive attack at worst, bool (n,), the same samples in one order.

    None where a run has left no such table. Raises InputError where it is another table.
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


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without columns in which nothing is, each of one type: of several kinds it is text."""
    columns: dict[str, Any] = {}
    for name in table.columns:
        column = table[name]
        if column.isna().all():
            continue
        kinds = {type(value) for value in column.dropna()} - {float, int, np.float64, np.int64}
        several = kinds and column.dropna().map(type).nunique() > 1 and name != FOLDER
        columns[name] = column.map(str, na_action="ignore") if several else column.infer_objects()
    return pd.DataFrame(columns)
