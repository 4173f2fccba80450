"""Rows of a table as samples: numbers scaled, categories as one column each, fitted on the training rows alone.

A sample of d encoded columns has the shape (d, 1, 1), a channel for each, so that networks which standardise
their channels standardise columns. Numbers are brought to [0, 1] by the range that they have in training (what is
outside is cut off), categories are 0 and 1 (one that training lacks is 0 in all of them).
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_pandas_object
from torch import Tensor

from defense.data.collection import Collection, decoded, existing, number_samples
from defense.data.images import Images, TensorImages
from defense.errors import InputError
from defense.schema import Data

FEW = 20  # values of a column that groups are made of
TRUTHS = {  # as pandas reads them
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


class Rows:
    """Rows of a table as they were read: a source's, before it is known which of them are trained on."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table, self.shape = table, (table.shape[1], 1, 1)

    def __len__(self) -> int:
        return len(self.table)

    def take(self, indices: Tensor) -> Tensor:
        """Raise TypeError: what is not encoded has no numbers."""
        raise TypeError("rows are encoded before a model sees them")

    def subset(self, indices: Tensor) -> Rows:
        """Return the rows at `indices`, in that order."""
        return Rows(self.table.iloc[indices.numpy()])

    def to(self, device: torch.device) -> Rows:
        """Return the same rows."""
        return self

    def digest(self) -> str:
        """Return a hash of the columns and what is in them."""
        text = repr([(name, str(kind)) for name, kind in self.table.dtypes.items()]).encode()
        return hashlib.sha256(text + hash_pandas_object(self.table, index=False).to_numpy().tobytes()).hexdigest()


def table(spec: Data) -> Collection:
    """Return the rows of a CSV file in UTF-8, and of others for validation and test where they are named.

    `data.target` is the column of the classes, named by its values in order; `data.sensitive` is the column of the
    groups that fairness objectives compare, `data.groups` those of its values that are: rows of others are left
    out; `data.columns` are those that the model sees, null: all others. A column that is text in training is text
    in all files.

    Raises InputError where a column is not there or of another kind, a value is missing, or there are not two
    groups.
    """
    if spec.target is None:
        raise InputError("data.target", None, "expected the name of the column of the classes")
    if spec.sensitive == spec.target:
        raise InputError("data.sensitive", spec.sensitive, "is data.target; expected another column")
    others = [part for part in ("validation", "test") if file_of(part, spec)[1] is not None]
    train = read("train", spec)
    texts = list(train.select_dtypes(exclude="number"))
    tables = {"train": train} | {part: flagged(read(part, spec, texts), train) for part in others}
    tables = {part: compared(rows, spec) for part, rows in tables.items()}
    columns = columns_of(tables["train"], spec)
    numeric = numbers_of(tables["train"][columns])
    for part, rows in tables.items():
        check_columns(rows, columns, part, spec)
        check_cells(rows, columns, part, spec)
        check_kinds(rows, numeric, columns, part)
    class_names = in_order(tables["train"][spec.target])
    if len(class_names) > len(tables["train"]) / 2:
        said = f"has {len(class_names)} values in {len(tables['train'])} rows; expected the column of the classes"
        raise InputError("data.target", spec.target, said)
    group_names = [] if spec.sensitive is None else groups_in(tables["train"][spec.sensitive], spec)
    parts, groups = {}, {}
    for part, kept in tables.items():
        rows = kept.reset_index(drop=True)
        labels = coded(rows[spec.target], class_names, "data.target", part)
        parts[part] = (Rows(rows[columns]), labels, labels)
        if spec.sensitive is not None:
            groups[part] = coded(rows[spec.sensitive], group_names, "data.sensitive", part)
    collection = number_samples(parts, [str(name) for name in class_names], groups=groups)
    return collection.encoded_by(encoder, [str(name) for name in group_names])


def file_of(part: str, spec: Data) -> tuple[str, str | None]:
    """Return the field that names the file of a part, and its value."""
    name = "path" if part == "train" else f"{part}_path"
    return f"data.{name}", getattr(spec, name)


def read(part: str, spec: Data, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return one CSV file as it is; raises InputError where that is not what it is.

    texts: columns whose cells stay as they stand there, 01 and TRUE too; pandas says what others are.
    """
    field, path = file_of(part, spec)
    text = decoded(str(existing(path, field, "a CSV file with a header")), field, "a CSV file with a header")
    usual: dict[str, Any] = {"skipinitialspace": True, "index_col": False}
    cells: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
    cells["dtype"] = dict.fromkeys(texts, str)
    cells["low_memory"] = False  # else the kind of a long column is decided piece by piece, and 1 is not "1"
    try:
        # rows longer than the header are no more than a warning to pandas, and cut off
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            found = pd.read_csv(io.StringIO(text), **cells, **usual)
        header = pd.read_csv(io.StringIO(text), header=None, nrows=1, dtype=str, **usual)
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' errors of parsing are ValueErrors
        raise InputError(field, path, f"not a readable CSV file ({error})") from error
    if header.iloc[0].duplicated().any():
        twice = header.iloc[0][header.iloc[0].duplicated()].iloc[0]
        raise InputError(field, path, f"has two columns named {twice}; expected a name for each")
    if found.empty:
        raise InputError(field, path, "no row in it; expected samples below a line of column names")
    for name, column in (("target", spec.target), ("sensitive", spec.sensitive)):
        if column is not None and column not in found:
            raise InputError(f"data.{name}", column, f"no such column in {path}; it has {', '.join(found)}")
    for column in spec.columns or []:
        if column not in found:
            raise InputError("data.columns", column, f"no such column in {path}; it has {', '.join(found)}")
    return found


def flagged(rows: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with true and false for their texts in columns where training has nothing else."""
    rows = rows.copy()
    for name in train.select_dtypes("bool"):
        if name in rows:
            rows[name] = rows[name].map(lambda cell: TRUTHS.get(cell, cell))
    return rows


def compared(rows: pd.DataFrame, spec: Data) -> pd.DataFrame:
    """Return the rows of the groups that are compared; all where none are named."""
    if spec.groups is None or spec.sensitive is None:
        return rows
    column = rows[spec.sensitive].astype(str)
    absent = sorted(set(spec.groups) - set(column))
    if absent:
        found = ", ".join(sorted(column.unique())[:FEW])
        raise InputError("data.groups", absent[0], f"no such value in column {spec.sensitive}; it has {found}")
    return rows[column.isin(spec.groups)]  # each keeps its number in the file, for errors


def columns_of(train: pd.DataFrame, spec: Data) -> list[str]:
    """Return the columns that the model sees: those named, or all but the target and the sensitive one."""
    if spec.columns is None:
        return [name for name in train if name not in (spec.target, spec.sensitive)]
    if not spec.columns or len(set(spec.columns)) < len(spec.columns):
        raise InputError("data.columns", spec.columns, "expected columns, each once; null takes all others")
    if spec.target in spec.columns:
        raise InputError("data.columns", spec.target, "is data.target, which is to be foretold; expected others")
    return list(spec.columns)


def check_columns(rows: pd.DataFrame, columns: list[str], part: str, spec: Data) -> None:
    """Raise InputError for the first column that the model sees and the file of a part lacks."""
    lacking = [name for name in columns if name not in rows]
    if lacking:
        valid = f"expected all that the model sees: {', '.join(columns)}, or other data.columns"
        raise InputError(*file_of(part, spec), f"no column {lacking[0]} in it; {valid}")


def check_kinds(rows: pd.DataFrame, numeric: list[str], columns: list[str], part: str) -> None:
    """Raise InputError for the first of `numeric` that holds anything else, or other that is mostly numbers."""
    for name in columns:
        values = pd.to_numeric(rows[name], errors="coerce").replace([np.inf, -np.inf], np.nan)
        other = rows[name][values.isna()]
        where = f"the {part} rows have the value {other.iloc[0]} in it" if len(other) else ""
        if name in numeric and len(other):
            raise InputError("data.columns", name, f"{where}; expected finite numbers alone")
        if name not in numeric and 0 < len(other) < len(rows) / 2 and rows[name].nunique() > FEW:
            raise InputError("data.columns", name, f"{where} among numbers; expected one of both")


def check_cells(rows: pd.DataFrame, columns: list[str], part: str, spec: Data) -> None:
    """Raise InputError for the first column that is looked at and lacks a value."""
    assert spec.target is not None
    for name in dict.fromkeys([*columns, spec.target, *([spec.sensitive] if spec.sensitive else [])]):
        missing = rows[name].isna()
        if missing.any():
            said = f"{int(missing.sum())} of {len(rows)} rows have no value in column {name}, the first is row"
            valid = "fill them in, or choose other data.columns"
            first = f"{missing.idxmax() + 1} below the header"
            raise InputError(*file_of(part, spec), f"{said} {first}; {valid}")


def groups_in(column: pd.Series, spec: Data) -> list[object]:
    """Return the values of the sensitive column in order; raises InputError where they are one, or too many."""
    found = in_order(column)
    if len(found) < 2:
        said = f"has the one value {found[0]}; expected two groups to compare"
        raise InputError("data.sensitive", spec.sensitive, said)
    if len(found) > FEW:
        said = f"has {len(found)} values; expected {FEW} at most, or data.groups that names those to compare"
        raise InputError("data.sensitive", spec.sensitive, said)
    return found


def in_order(column: pd.Series) -> list[object]:
    """Return the values of a column: numbers by size, others as text in that of the alphabet."""
    by_size = pd.api.types.is_numeric_dtype(column)
    return sorted(column.unique(), key=None if by_size else str)


def coded(column: pd.Series, names: list[object], field: str, part: str) -> Tensor:
    """Return the place of each value in `names` int64 (n,); raises InputError for one that is not there."""
    known = pd.Index(names)
    numbers = known.dtype.kind in "iuf"  # one text makes a column of texts of the numbers beside it
    codes = known.get_indexer(pd.to_numeric(column, errors="coerce") if numbers else column)
    if (codes < 0).any():
        value = column.iloc[int(np.argmax(codes < 0))]
        raise InputError(field, column.name, f"the {part} rows have the value {value}, which training has not")
    return torch.from_numpy(codes.astype(np.int64))


def encoder(train: Images) -> Callable[[Images], Images]:
    """Return the encoding that is fitted on the training rows, for the rows of every part.

    scikit-learn's OneHotEncoder of what is text or true and false, MinMaxScaler of numbers.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

    assert isinstance(train, Rows)
    numeric = numbers_of(train.table)
    others = [name for name in train.table if name not in numeric]
    transformer = ColumnTransformer(
        [
            ("numbers", MinMaxScaler(clip=True), numeric),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), others),
        ]
    )

    def typed(rows: Images) -> pd.DataFrame:
        assert isinstance(rows, Rows)
        # other files may have text beside true and false
        return rows.table.astype(dict.fromkeys(others, str))

    transformer.fit(typed(train))

    def encoded(rows: Images) -> TensorImages:
        values = torch.from_numpy(np.asarray(transformer.transform(typed(rows)), dtype=np.float32))
        return TensorImages(values[:, :, None, None])

    return encoded


def numbers_of(table: pd.DataFrame) -> list[str]:
    """Return the columns of numbers; true and false are categories."""
    return list(table.select_dtypes("number"))
