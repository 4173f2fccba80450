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

from defense.errors import InputError
from defense.reporting.escaping import storable
from defense.reporting.frame import mcnemar_of
from defense.reporting.page import Failure
from defense.reporting.reading import COMMAND, FOLDER, LABEL, MCNEMAR, Result, check_result

ARCHIVE = "cells.parquet"  # beside the page
META, FORMAT = b"defense.cells", 1  # the key of the metadata, and the form of what is there
ARM, RUN, CONTENT = "arm", "run", "result"  # columns; run: the number of a result, from 0
FOUND = (COMMAND, FOLDER, LABEL, MCNEMAR)  # of a result: what its result.json does not hold
APART = ("config", "arms", "controls", "checks", "health", "points", "keys")  # of a result: no columns as they are
SETTINGS = "settings."  # the columns of settings begin so
IDENTITY = (RUN, "name", "task", "seed", ARM, "share", "damping", "target", "train", "validation", "scorer")
Row = dict[str, Any]
Units = Callable[[Result], list[Row]]


@dataclass(frozen=True)
class Cells:
    """The cells of a page: those that have finished or failed, and how many are missing, or of another sweep."""

    results: Sequence[Result]
    failures: Sequence[Failure] = ()
    missing: int = 0
    others: int = 0


def write_archive(cells: Cells, output: Path, units: Units) -> None:
    """Write cells.parquet into `output`; folders are noted as they lie from there. units: see `rows_of`."""
    rows = [row for number, result in enumerate(cells.results) for row in rows_of(result, number, output, units)]
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
    """Return the place of a column: the identity of a row first, then settings, numbers, and the whole result."""
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


def rows_of(result: Result, number: int, output: Path, units: Units) -> list[Row]:
    """Return the rows of one result: its identity, its settings, and the numbers of each row.

    units: the function that returns the numbers of each row, as an arm or a share, of a result.
    """
    folder, p_value = result.get(FOLDER), mcnemar_of(result)
    content = {name: value for name, value in result.items() if name not in FOUND}
    common = {
        **{RUN: number, "name": result["name"], "task": result["task"], "seed": result["seed"]},
        **{f"{SETTINGS}{name}": value for name, value in leaves(result["config"])},
        **{name: value for name, value in leaves(without(content)) if not is_table(value)},
        COMMAND: result.get(COMMAND),
        FOLDER: None if folder is None else beside(folder, output),
        LABEL: result.get(LABEL),
        MCNEMAR: None if math.isnan(p_value) else p_value,
        CONTENT: json.dumps(content),
    }
    return [{**common, **row} for row in units(result)]


def without(content: Result) -> Result:
    """Return a result without the parts that are no columns as they are."""
    return {name: value for name, value in content.items() if name not in APART}


def is_table(value: Any) -> bool:
    """Return whether a value is a list of rows; `result` holds them."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


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
