"""Scores of a file belong to the samples that it names, whatever its order; what is wrong in it is one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from defense.data.given_scores import read_scores
from defense.data.splits import Dataset
from defense.errors import InputError


def table_of(data: Dataset) -> pd.DataFrame:
    """Return a score for every training sample, in another order."""
    ids = data.train.ids.numpy()
    return pd.DataFrame({"id": ids, "score": ids / 7, "rank": 0}).sample(frac=1, random_state=0)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("own_names", [False, True])
def test_scores_go_to_their_samples(digits: Dataset, tmp_path: Path, ending: str, own_names: bool) -> None:
    table, path, data = table_of(digits), tmp_path / f"scores.{ending}", digits
    if own_names:
        assert digits.names is not None
        data = replace(digits, names="digit " + digits.names)
        table["id"] = data.names_of(table["id"].to_numpy())
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    np.testing.assert_array_equal(read_scores(str(path), data).numpy(), digits.train.ids.numpy() / 7)


def test_ids_are_found_beside_names_and_other_samples_are_left_out(digits: Dataset, tmp_path: Path) -> None:
    assert digits.names is not None
    data = replace(digits, names="digit " + digits.names)
    table = pd.concat([table_of(digits), pd.DataFrame({"id": digits.test.ids.numpy(), "score": 9.0})])
    table.to_csv(tmp_path / "scores.csv", index=False, sep=";")
    found = read_scores(str(tmp_path / "scores.csv"), data)
    np.testing.assert_array_equal(found.numpy(), digits.train.ids.numpy() / 7)


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "missing": (
        lambda table: table[3:],
        "has no score of 3 of 200 training samples, the first is [0-9]+; expected",
    ),
    "twice": (lambda table: pd.concat([table, table[:1]]), "has sample [0-9]+ twice; expected one score for each"),
    "unknown": (
        lambda table: table.replace({"id": {table["id"].iloc[0]: 5000}}),
        "sample 5000 is not in the data",
    ),
    "empty": (lambda table: table.assign(score=np.nan), "the score of sample [0-9]+ is no finite number"),
    "infinite": (lambda table: table.assign(score=np.inf), "the score of sample [0-9]+ is no finite number"),
    "text": (lambda table: table.assign(score="high"), "the score of sample [0-9]+ is no finite number"),
    "a column": (
        lambda table: table.rename(columns={"score": "value"}),
        "has no column score, but id, value, rank",
    ),
}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_a_line(digits: Dataset, tmp_path: Path, ending: str, name: str) -> None:
    change, line = BAD[name]
    table, path = change(table_of(digits)), tmp_path / f"scores.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    with pytest.raises(InputError, match=rf"scorer\.path=.*: {line}"):
        read_scores(str(path), digits)


def test_a_file_that_is_none(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scorer\.path=null: expected a \.csv or \.parquet file"):
        read_scores(None, digits)
    with pytest.raises(InputError, match=r"scorer\.path=.*: no such path"):
        read_scores(str(tmp_path / "none.csv"), digits)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"scorer\.path=.*: not a readable Parquet file \(Arrow"):
        read_scores(str(tmp_path / "broken.parquet"), digits)
