"""Scores that somebody else has made: a table with a score for every training sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from defense.data.collection import existing
from defense.data.csvfile import read_csv
from defense.data.splits import Dataset
from defense.errors import InputError

FIELD = "scorer.path"
COLUMNS = ("id", "score")


def read_scores(path: str | None, data: Dataset) -> Tensor:
    """Return the score of every training sample, float64 (n,), in the order of the split.

    path: a CSV or Parquet file with the columns `id`, the name or the id that tables of a run have for a sample,
    and `score`, a number. Samples of other parts of the data are left out. Raises InputError for a sample that is
    missing, there twice or unknown, and for a score that is not finite.
    """
    table = read_table(path)
    scores, called = table["score"], table["id"]
    twice = called[called.duplicated()]
    if len(twice):
        raise InputError(FIELD, path, f"has sample {twice.iloc[0]} twice; expected one score for each")
    bad = ~np.isfinite(scores.to_numpy())
    if bad.any():
        raise InputError(FIELD, path, f"the score of sample {called[bad].iloc[0]} is no finite number")
    ids = data.train.ids.tolist()
    names, everyone = names_in(data, called)
    unknown = called[~called.isin(everyone)]
    if len(unknown):
        said = f"sample {unknown.iloc[0]} is not in the data; expected names or ids, as {names[0]}"
        raise InputError(FIELD, path, said)
    by_name = pd.Series(scores.to_numpy(), index=called).reindex(names)
    missing = by_name.index[by_name.isna()]
    if len(missing):
        said = f"has no score of {len(missing)} of {len(ids)} training samples, the first is {missing[0]}"
        raise InputError(FIELD, path, f"{said}; expected one for each")
    return torch.tensor(by_name.to_numpy(dtype=float))


def names_in(data: Dataset, called: pd.Series) -> tuple[list[str], set[str]]:
    """Return what the file calls the training samples, and what it may call any sample: by name, or else by id."""
    ids = data.train.ids.numpy()
    if data.names is not None and called.isin(set(data.names)).all():
        return data.names_of(ids), set(data.names)
    drawn = torch.cat([split.ids for split in data.splits.values()]).tolist()
    everyone = drawn if data.names is None else data.names.index
    return [str(each) for each in ids], {str(each) for each in everyone}


def read_table(path: str | None) -> pd.DataFrame:
    """Return the columns id, as text, and score, NaN if it is no number; raises InputError if one is missing."""
    file = existing(path, FIELD, "a .csv or .parquet file with the columns id and score")
    if file.suffix == ".parquet":
        try:
            found = pd.read_parquet(file)
        except Exception as error:  # of pyarrow, which has many
            raise InputError(FIELD, path, f"not a readable Parquet file ({type(error).__name__})") from error
    else:
        found = read_csv(path, FIELD, COLUMNS)
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        has = ", ".join(map(str, found.columns))
        raise InputError(FIELD, path, f"has no column {missing[0]}, but {has}; expected id and score")
    scores = pd.to_numeric(found["score"], errors="coerce").astype(float)
    return pd.DataFrame({"id": found["id"].astype(str), "score": scores})
