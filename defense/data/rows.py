"""Rows of a table as samples: numbers scaled, categories as one column each, fitted on the training rows alone.

A sample of d encoded columns has the shape (d, 1, 1), a channel for each, so that networks which standardise
their channels standardise columns. Numbers are brought to [0, 1] by the range that they have in training (numbers
outside are cut off), categories are 0 and 1 (one that training lacks is 0 in all of them). A column that is
constant in training is left out.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_pandas_object
from torch import Tensor

from defense.config.schema import Data
from defense.data.images import Images, TensorImages
from defense.data.refusals import override
from defense.errors import InputError

log = logging.getLogger(__name__)

ROUNDING = 1e-12  # of a number: a column that differs by no more is constant
CUT = 0.1  # of the rows of a part: more that are cut off are worth a line in the log


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


def encoded(parts: Mapping[str, Images], spec: Data) -> dict[str, Images]:
    """Return the rows of every part, encoded by scikit-learn as those of `train` tell: numbers before categories.

    OneHotEncoder of texts, MinMaxScaler of numbers. The log says which columns are left out, and what of another
    part is not as in training. Raises InputError if all columns are constant in training.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

    tables = {part: table_of(rows) for part, rows in parts.items()}
    train = tables["train"]
    varying = [name for name in train if not is_constant(train[name])]
    if not varying:
        raise InputError(
            "data.columns", ", ".join(train), "each has one value in all training rows; expected others"
        )
    constant = [name for name in train if name not in varying]
    if constant:
        log.info(constants(tables, constant, spec))
    for part in [part for part in tables if part != "train"]:
        for line in differences(tables[part], train[varying], part):
            log.info(line)
    numeric = [name for name in varying if pd.api.types.is_numeric_dtype(train[name])]
    others = [name for name in varying if name not in numeric]
    transformer = ColumnTransformer(
        [
            ("numbers", MinMaxScaler(clip=True), numeric),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), others),
        ]
    ).fit(train)
    values = {part: np.asarray(transformer.transform(table), dtype=np.float32) for part, table in tables.items()}
    return {part: TensorImages(torch.from_numpy(rows)[:, :, None, None]) for part, rows in values.items()}


def table_of(rows: Images) -> pd.DataFrame:
    """Return the table of rows; other samples are a defect."""
    assert isinstance(rows, Rows)
    return rows.table


def is_constant(column: pd.Series) -> bool:
    """Return whether a column has one value, or numbers that differ by rounding alone."""
    if not pd.api.types.is_numeric_dtype(column):
        return column.nunique() < 2
    numbers = column.to_numpy(dtype=np.float64)
    return bool(np.ptp(numbers) <= ROUNDING * np.abs(numbers).max())


def constants(tables: Mapping[str, pd.DataFrame], names: list[str], spec: Data) -> str:
    """Return a line for the log about columns that are constant in training, and their values in other parts."""
    told = []
    for name in names:
        value = tables["train"][name].iloc[0]
        others = {part: int((table[name] != value).sum()) for part, table in tables.items() if part != "train"}
        differ = [f"{count} of {part}" for part, count in others.items() if count]
        told.append(f"{name} ({value}{', not so in rows: ' + ' and '.join(differ) if differ else ''})")
    ways = f"{override(spec, 'drop', names)} does so without this line"
    return f"left out as constant: column {', '.join(told)}; {ways}"


def differences(rows: pd.DataFrame, train: pd.DataFrame, part: str) -> list[str]:
    """Return lines for the log about values that training lacks, one for each column."""
    said = []
    for name in train:
        if pd.api.types.is_numeric_dtype(train[name]):
            outside = ~rows[name].between(train[name].min(), train[name].max())
            many, told = outside.mean() > CUT, "beyond the training rows, cut off"
        else:
            outside = ~rows[name].isin(train[name].unique())
            many, told = outside.any(), "that training lacks, 0 in all of its columns"
        if many:
            found = f"{int(outside.sum())} of {len(rows)} {part} rows have a value {told}"
            said.append(f"column {name}: {found}, as {rows[name][outside].iloc[0]}")
    return said
