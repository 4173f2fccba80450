"""Tables: CSV or Parquet files whose columns are numbers and categories, checked before any row is a sample.

What a column is, its training rows say; what they leave open is refused in one line that names the setting which
says it: `data.drop`, `data.categories`, `data.numbers`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pandas as pd

from defense.config.schema import Data
from defense.data.cells import (
    Tables,
    check_known,
    check_spelling,
    coded,
    compared,
    file_of,
    groups_in,
    in_order,
    typed,
)
from defense.data.collection import Collection, number_samples
from defense.data.csvfile import read_cells
from defense.data.kinds import Column, Kind, feature, label
from defense.data.names import check_names
from defense.data.outliers import without_outliers
from defense.data.refusals import override, refuse
from defense.data.rows import Rows, encoded
from defense.errors import InputError

log = logging.getLogger(__name__)


def table(spec: Data) -> Collection:
    """Return the rows of a CSV or Parquet file, and of others for validation and test if they are named.

    `data.target` is the column of the classes, named by its values in order; `data.sensitive` is the column of the
    groups that fairness objectives compare, `data.groups` those of its values that are: rows of others are left
    out; `data.columns` are those that the model sees, null: all others, without those in `data.drop`; `data.ids`
    is the column of the names of the samples, null: their rows in the file. What a column is in training, it is
    in all files.

    Raises InputError if a column is not there or of another kind, a value is missing, a name is there twice, or
    there are not two groups.
    """
    if spec.target is None:
        raise InputError("data.target", None, "expected the name of the column of the classes")
    if spec.sensitive == spec.target:
        raise InputError("data.sensitive", spec.sensitive, "is data.target; expected another column")
    parts = [part for part in ("train", "validation", "test") if part == "train" or file_of(part, spec)[1]]
    texts: Tables = {part: read(part, spec) for part in parts}
    names = columns_of(texts["train"], spec)
    for part, rows in texts.items():
        check_columns(rows, names, part, spec)
    texts = compared(texts, spec)
    columns = columns_in(texts["train"], names, spec)
    tables = {part: typed(rows, columns, part, spec) for part, rows in texts.items()}
    for column in columns:
        check_spelling(tables, column, spec)
    seen = [column for column in columns if column.name in names]
    for column in seen:
        check_known(tables, column, spec)
    numeric = [column.name for column in seen if column.kind is Kind.number]
    tables["train"] = without_outliers(tables["train"], numeric, spec.outliers, "data.path", spec.path)
    return collected(tables, names, {part: names_in(rows, part, spec) for part, rows in texts.items()}, spec)


def names_in(rows: pd.DataFrame, part: str, spec: Data) -> pd.Series:
    """Return the names of the samples of a part: the cells of `data.ids`, or the rows that they have in the file.

    rows: those that are samples, by their row in the file. Raises InputError if a name is missing or there twice.
    """
    if spec.ids is None:
        return rows.index.astype(str).to_series()
    check_names(rows[spec.ids], "data.ids", spec.ids, str(file_of(part, spec)[1]))
    return rows[spec.ids]


def collected(tables: Tables, names: list[str], called: Mapping[str, pd.Series], spec: Data) -> Collection:
    """Return the typed rows as samples with their labels and groups, to be encoded.

    names: of the columns that the model sees; called: the names of the samples, by part.
    """
    target = str(spec.target)
    class_names = in_order(tables["train"][target])
    if len(class_names) > len(tables["train"]) / 2:
        said = f"has {len(class_names)} values in {len(tables['train'])} rows; expected the column of the classes"
        raise InputError("data.target", target, said)
    group_names = [] if spec.sensitive is None else groups_in(tables["train"][spec.sensitive], spec)
    parts, groups = {}, {}
    for part, kept in tables.items():
        rows = kept.reset_index(drop=True)
        labels = coded(rows[target], class_names, "data.target", part)
        parts[part] = (Rows(rows[names]), labels, labels)
        if spec.sensitive is not None:
            groups[part] = coded(rows[spec.sensitive], group_names, "data.sensitive", part)
    collection = number_samples(parts, [str(name) for name in class_names], groups=groups, names=called)
    files = {part: file_of(part, spec) for part in tables}
    origins = {part: (field, f"{path}, column {target}") for part, (field, path) in files.items()}
    named = [str(name) for name in group_names]
    return replace(collection, encoder=partial(encoded, spec=spec), group_names=named, origins=origins)


def rows_of_table(spec: Data) -> pd.DataFrame:
    """Return the rows of the training file in order of id, all of its columns as text; NaN if a cell is empty."""
    return compared({"train": read("train", spec)}, spec)["train"].reset_index(drop=True)


def read(part: str, spec: Data) -> pd.DataFrame:
    """Return the cells of one file as text; raises InputError if a column that is named is not in it."""
    field, path = file_of(part, spec)
    labels = {"target": spec.target, "sensitive": spec.sensitive}
    found = read_cells(path, field, [name for name in labels.values() if name is not None])
    single = {**labels, "ids": spec.ids}
    named = [(f"data.{setting}", column) for setting, column in single.items() if column is not None]
    named += [("data.columns", column) for column in spec.columns or []]
    if part == "train":
        for setting in ("drop", "categories", "numbers"):
            named += [(f"data.{setting}", column) for column in getattr(spec, setting) or []]
    for setting, column in named:
        if column not in found:
            raise InputError(setting, column, f"no such column in {path}; it has {', '.join(found)}")
    return found


def columns_of(train: pd.DataFrame, spec: Data) -> list[str]:
    """Return the columns that the model sees: those named, or all but the target and the sensitive one.

    Neither those in `data.drop` nor that in `data.ids` are among them.
    """
    if spec.columns is not None and (not spec.columns or len(set(spec.columns)) < len(spec.columns)):
        raise InputError("data.columns", spec.columns, "expected columns, each once; null takes all others")
    for setting in ("columns", "drop", "numbers"):
        if spec.target in (getattr(spec, setting) or []):
            raise InputError(
                f"data.{setting}", spec.target, "is data.target, which is to be foretold; expected others"
            )
    named = [name for name in train if name not in (spec.target, spec.sensitive)]
    found = [name for name in spec.columns or named if name not in (spec.drop or [])]
    if not found:
        raise InputError("data.drop", spec.drop, "leaves no column that the model sees; expected fewer")
    found = [name for name in found if name != spec.ids]
    if not found:
        raise InputError("data.ids", spec.ids, "is the one column that the model sees; expected another")
    return found


def check_columns(rows: pd.DataFrame, names: list[str], part: str, spec: Data) -> None:
    """Raise InputError for the first column that the model sees and the file of a part lacks."""
    lacking = [name for name in names if name not in rows]
    if lacking:
        valid = f"expected all that the model sees: {', '.join(names)}, or {override(spec, 'drop', lacking)}"
        raise InputError(*file_of(part, spec), f"no column {lacking[0]} in it; {valid}")


def columns_in(train: pd.DataFrame, names: list[str], spec: Data) -> list[Column]:
    """Return the columns that are used, each with its kind; raises InputError for all refused ones at once."""
    features = [feature(train[name], spec) for name in names]
    labels = [label(train[name], spec) for name in (spec.target, spec.sensitive) if name is not None]
    refuse([column.complaint for column in features + labels if column.complaint], spec)
    columns = features + [column for column in labels if column.name not in names]
    remarks = [column.remark for column in columns if column.remark]
    if remarks:
        log.info("; ".join(remarks))
    return columns
