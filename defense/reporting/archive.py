"""The cells of a page in one file, cells.parquet: plain columns for other programs, and all to draw it again.

A row is an arm of a run, or whatever else its task has results of. The results themselves are in the column
`result`, as JSON; what no row can tell, as cells that failed, is in the metadata of the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from defense.config.choices import Task
from defense.errors import InputError
from defense.reporting.cells import mcnemar_of
from defense.reporting.escaping import storable
from defense.reporting.evading import said
from defense.reporting.gains import MEAN
from defense.reporting.page import Failure
from defense.reporting.reading import check_result
from defense.reporting.sweeps import COMMAND, FOLDER, LABEL, MCNEMAR, Result

ARCHIVE = "cells.parquet"  # beside the page
META, FORMAT = b"defense.cells", 1  # the key of the metadata, and the form of what is there
ARM, RUN, CONTENT = "arm", "run", "result"  # columns; run: the number of a result, from 0
FOUND = (COMMAND, FOLDER, LABEL, MCNEMAR)  # of a result: what its result.json does not hold
APART = ("config", "arms", "controls", "checks", "health", "points", "keys")  # of a result: no columns as they are
UNITS = {Task.order: "dampings", Task.speed: "works", Task.faithfulness: "targets"}  # lists whose entries are rows
SETTINGS = "settings."  # the columns of settings begin so
IDENTITY = (RUN, "name", "task", "seed", ARM, "share", "damping", "target", "train", "validation", "scorer")
Row = dict[str, Any]


@dataclass(frozen=True)
class Cells:
    """The cells of a page: those that have finished or failed, and how many are missing, or of another sweep."""

    results: Sequence[Result]
    failures: Sequence[Failure] = ()
    missing: int = 0
    others: int = 0


def write_archive(cells: Cells, output: Path) -> None:
    """Write cells.parquet into `output`; folders are noted as they lie from there."""
    rows = [row for number, result in enumerate(cells.results) for row in rows_of(result, number, output)]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: column([row.get(name) for row in rows]) for name in sorted(names, key=place_of)}
    filled = {name: values for name, values in columns.items() if is_kept(name, values)}
    meta = {"format": FORMAT, "missing": cells.missing, "others": cells.others}
    failures = [
        {"folder": beside(cell.folder, output), "overrides": cell.overrides, "error": cell.error, "log": cell.log}
        for cell in cells.failures
    ]
    table = pa.table(filled).replace_schema_metadata({META: json.dumps(meta | {"failures": failures})})
    part = output / f"{ARCHIVE}.{os.getpid()}.part"
    pq.write_table(table, part, compression="zstd")
    part.replace(output / ARCHIVE)


def place_of(name: str) -> int:
    """Return where a column stands: what identifies a row first, then settings, numbers, and the whole result."""
    if name in IDENTITY:
        return 0
    return 1 if name.startswith(SETTINGS) else 3 if name == CONTENT else 2


def is_kept(name: str, values: pa.Array) -> bool:
    """Return whether a column is of use: a setting is, whatever its value, others if they have one."""
    return name.startswith(SETTINGS) or values.null_count < len(values)


def read_archive(file: Path) -> Cells:
    """Return the cells in a file that `write_archive` made; raises InputError for any other file."""
    try:
        with pq.ParquetFile(file) as opened:
            meta = json.loads(opened.schema_arrow.metadata[META])
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}")
            wanted = [name for name in (RUN, CONTENT, *FOUND) if name in opened.schema_arrow.names]
            rows = opened.read(wanted).to_pylist()
        base = file.resolve().parent
        failures = [
            Failure(placed(cell["folder"], base), cell["overrides"], cell["error"], cell["log"])
            for cell in meta["failures"]
        ]
        first = {row[RUN]: row for row in reversed(rows)}
        results = [found_in(first[number], base) for number in sorted(first)]
        return Cells(results, failures, int(meta["missing"]), int(meta["others"]))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = f"expected a {ARCHIVE} that defense-report has written, or the folder of a sweep"
        raise InputError("PATH", file, f"not the cells of a page ({error!r}); {expected}") from error


def found_in(row: Row, base: Path) -> Result:
    """Return the result of a row, with what it was found with: its command, its folder, its p-value."""
    result: Result = json.loads(row[CONTENT])
    check_result(result)
    given = {name: row[name] for name in FOUND if row.get(name) is not None}
    if FOLDER in given:
        given[FOLDER] = placed(given[FOLDER], base)
    return result | {MCNEMAR: math.nan} | given


def placed(folder: str, base: Path) -> Path:
    """Return a folder that is noted as it lies from `base`."""
    return Path(os.path.normpath(base / folder))


def beside(folder: Path, output: Path) -> str:
    """Return a folder as it lies from `output`."""
    return Path(os.path.relpath(folder.resolve(), output.resolve())).as_posix()


def rows_of(result: Result, number: int, output: Path) -> list[Row]:
    """Return the rows of one result: what tells it from others, its settings, and the numbers of each row."""
    task, folder, p_value = Task(result["task"]), result.get(FOLDER), mcnemar_of(result)
    content = {name: value for name, value in result.items() if name not in FOUND}
    common = {
        **{RUN: number, "name": result["name"], "task": str(task), "seed": result["seed"]},
        **{f"{SETTINGS}{name}": value for name, value in leaves(result["config"])},
        **dict(leaves({name: value for name, value in without_units(content, task).items() if name not in APART})),
        COMMAND: result.get(COMMAND),
        FOLDER: None if folder is None else beside(folder, output),
        LABEL: result.get(LABEL),
        MCNEMAR: None if math.isnan(p_value) else p_value,
        CONTENT: json.dumps(content),
    }
    return [{**common, **row} for row in ROWS.get(task, scored(lambda result: [{}]))(result)]


def without_units(content: Result, task: Task) -> Result:
    """Return a result without the list whose entries are rows."""
    if task not in UNITS:
        return content
    own = {key: value for key, value in content[str(task)].items() if key != UNITS[task]}
    return content | {str(task): own}


def leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what nested dicts hold by dotted name; a list, or a dict without entries, as it is."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, content


def column(values: Sequence[Any]) -> pa.Array:
    """Return values of one type as they are, integers beside floats as floats, and any others as text.

    A text stays as it is, other values are written as JSON; so are integers that a column of numbers cannot hold.
    """
    kinds = {type(value) for value in values if value is not None}
    for fitting, kind in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64())):
        if kinds and kinds <= fitting:
            with suppress(OverflowError, pa.ArrowInvalid):
                return pa.array(values, kind)
    return pa.array([as_text(value) for value in values], pa.string())


def as_text(value: Any) -> str | None:
    """Return a value as text that a table can hold; None stays."""
    return None if value is None else storable(value) if isinstance(value, str) else json.dumps(value)


def health_of_arm(result: Result, arm: str | None) -> dict[str, Any]:
    """Return what is said of the health of a result, and of one arm; without arms of the model that was scored."""
    health = result.get("health", {})
    arms = health.get("arms", {})
    own = arms.get(arm, {}) if arm is not None else next(iter(arms.values()), {})
    return {name: value for name, value in health.items() if name != "arms"} | own


def by_arm(result: Result) -> list[Row]:
    """Return a row an arm: its numbers, what its checks found, and whether it has learned."""
    rows = []
    for arm, numbers in result["arms"].items():
        checks = {
            name: {key: found[key] for key in ("found", "of", "allowed", "flagged")}
            for name, found in result.get("checks", {}).get(arm, {}).items()
        }
        more = {"checks": checks, "health": health_of_arm(result, arm)}
        rows.append({ARM: arm, **dict(leaves(numbers)), **dict(leaves({k: v for k, v in more.items() if v}))})
    return rows


def by_share(result: Result) -> list[Row]:
    """Return a row an arm and share of moved points: accuracy by protocol and way, and its mean over shares."""
    health = dict(leaves({"health": health_of_arm(result, None)}))
    return [
        {
            ARM: arm,
            "share": share,
            **{way: found[said(share)] for way, found in ways.items()},
            **{f"{MEAN}.{way}": found[MEAN] for way, found in ways.items()},
            **health,
        }
        for arm, ways in result["arms"].items()
        for share in result["config"]["evade"]["shares"]
    ]


def by_damping(result: Result) -> list[Row]:
    """Return a row a damping: how alike the two orders are."""
    return [dict(leaves(found)) for found in result["order"]["dampings"]]


def by_work(result: Result) -> list[Row]:
    """Return a row a work and scorer, the run's own first: the seconds, and what it is beside the run's own."""
    own = result["config"]["scorer"]["name"]
    return [
        {"train": work["train"], "validation": work["validation"], "scorer": name, **numbers}
        for work in result["speed"]["works"]
        for name, numbers in ({own: {"seconds": work["seconds"]}} | work["rivals"]).items()
    ]


def by_target(result: Result) -> list[Row]:
    """Return a row a target: the rank correlation of what was foreseen with what retraining gives."""
    return [
        {"target": number, "spearman": value} for number, value in enumerate(result["faithfulness"]["targets"])
    ]


def scored(rows: Callable[[Result], list[Row]]) -> Callable[[Result], list[Row]]:
    """Return the function that adds the health of the model that was scored to every row."""
    return lambda result: [
        {ARM: None, **row, **dict(leaves({"health": health_of_arm(result, None)}))} for row in rows(result)
    ]


ROWS: dict[Task, Callable[[Result], list[Row]]] = {
    Task.defend: by_arm,
    Task.repair: by_arm,
    Task.evade: by_share,
    Task.faithfulness: scored(by_target),
    Task.order: scored(by_damping),
    Task.speed: scored(by_work),
}
