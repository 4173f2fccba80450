"""A table is the same in a CSV file, a TSV file and a Parquet file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.config.choices import Harm, Source
from defense.data.load import load
from defense.data.parquet import read_parquet
from defense.data.splits import Dataset
from defense.errors import InputError
from tests.conftest import data, run_in
from tests.data.test_table import people

FORMS = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
    ".PQ": lambda table, path: table.to_parquet(path, index=False),
}


def typed() -> pd.DataFrame:
    """Return a table with every type that pandas stores in a column, and a name for each row."""
    table, rng = people(), np.random.default_rng(3)
    more = {
        "job": table["job"].replace("?", "cook").astype("category"),
        "height": rng.random(len(table)) * 3,
        "small": rng.random(len(table)).astype(np.float32),
        "count": pd.array(rng.integers(-5, 900, len(table)), dtype="Int64"),
        "who": [f"person {number}" for number in rng.permutation(len(table))],
    }
    return table.assign(**more)


def loaded(path: Path, **changes: Any) -> Dataset:
    own = {"target": "income", "sensitive": "sex", "ids": "who", "validation_size": 20, "test_size": 10}
    usual = {"source": Source.table, "harm": Harm.none, "path": str(path)}
    return load(data(**usual | own | changes), seed=0)


@pytest.mark.parametrize("ending", FORMS)
def test_the_kind_of_file_changes_nothing(tmp_path: Path, ending: str) -> None:
    table = typed()
    FORMS[".csv"](table, tmp_path / "usual.csv")
    FORMS[ending](table, tmp_path / f"table{ending}")
    usual, found = loaded(tmp_path / "usual.csv"), loaded(tmp_path / f"table{ending}")
    assert found.train.digests == usual.train.digests
    assert found.test.digests == usual.test.digests
    assert found.names_of(found.train.ids.numpy()) == table["who"].iloc[found.train.ids.numpy()].tolist()
    assert found.class_names == ["high", "low"]


@pytest.mark.parametrize("target", ["member", "job", "age"])
def test_classes_are_of_any_type(tmp_path: Path, target: str) -> None:
    table = typed().assign(age=np.arange(60) % 3)
    for ending in (".csv", ".parquet"):
        FORMS[ending](table, tmp_path / f"table{ending}")
    settings: dict[str, Any] = {"target": target, "sensitive": None, "drop": ["sex"]}
    found = [loaded(tmp_path / f"table{ending}", **settings) for ending in (".csv", ".parquet")]
    assert found[0].class_names == found[1].class_names
    assert found[0].train.labels.tolist() == found[1].train.labels.tolist()


def test_the_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    table = typed().sample(frac=1, random_state=0)
    table.to_parquet(tmp_path / "shuffled.parquet")
    assert list(read_parquet(str(tmp_path / "shuffled.parquet"), "data.path")) == list(table)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a missing value": (
        {"height": [None, *(number / 7 for number in range(59))]},
        "1 of 60 rows have no value in column height, the first is row 1 below the header",
    ),
    "days": (
        {"since": [datetime.date(2020, 1, 1) + datetime.timedelta(day) for day in range(60)]},
        "column since has dates or times in 60 rows, as 2020-01-01",
    ),
    "lists": (
        {"vector": [[number, 1.5] for number in range(60)]},
        "column vector has 60 values in 60 rows, as [0.0, 1.5]: too many to be categories; data.drop=[vector]",
    ),
    "numbers of rows": ({"height": range(60)}, "column height has 60 whole numbers in 60 rows, 0 to 59"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_csv_file_is_refused_for_a_parquet_file_is_too(tmp_path: Path, kind: str) -> None:
    columns, said = REFUSED[kind]
    typed().assign(**columns).to_parquet(tmp_path / "table.parquet", index=False)
    with pytest.raises(InputError) as caught:
        loaded(tmp_path / "table.parquet")
    assert said in str(caught.value).replace("'", "")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("broken.parquet", b"PAR1 no table PAR1", "not a readable Parquet file"),
        ("empty.parquet", b"", "not a readable Parquet file"),
        ("table.csv", None, "a Parquet file; expected its name to end in .parquet"),
    ],
)
def test_a_file_that_is_not_as_it_is_named_is_said(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    if content is None:
        typed().to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        loaded(tmp_path / name)
    assert str(caught.value).startswith(f"data.path={tmp_path / name}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", [["a", "a"], ["a", " a "]])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, columns: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table([[1, 2], [3, 4]], names=columns), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="has two columns named a; expected a name for each"):
        loaded(tmp_path / "twice.parquet")


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    typed().head(0).to_parquet(tmp_path / "empty.parquet", index=False)
    with pytest.raises(InputError, match="no row in it"):
        loaded(tmp_path / "empty.parquet")


def test_a_run_calls_rows_of_a_parquet_file_by_their_ids(tmp_path: Path) -> None:
    typed().to_parquet(tmp_path / "people.parquet")
    sizes = ["data.train_size=30", "data.validation_size=12", "data.test_size=12", "train.epochs=1"]
    run_in(
        tmp_path / "run", "task=detect", "scorer=loss", "data=table", f"data.path={tmp_path / 'people.parquet'}",
        "data.target=income", "data.ids=who", "data.harm=symmetric", f"store={tmp_path / 'store'}", *sizes,
    )  # fmt: skip
    scores = pd.read_parquet(tmp_path / "run/scores.parquet")
    assert scores["name"].tolist() == typed()["who"].iloc[scores["id"]].tolist()


@pytest.mark.extra("transformers")
def test_texts_are_read_from_every_kind_of_table(tmp_path: Path, encoder: str) -> None:
    rows = {"label": np.arange(20) % 2, "who": [f"text, {number}" for number in range(20)]}
    table = pd.DataFrame(rows | {"text": [f'word{number}, "good"\nbad' for number in range(20)]})
    plain = table.assign(text=table["text"].str.replace("\n", " "))
    own = {"target": "label", "text": ["text"], "tokenizer": encoder, "length": 6, "ids": "who", "sensitive": None}
    own |= {"source": Source.text, "validation_size": 4, "test_size": 4}
    plain.to_csv(tmp_path / "usual.tsv", index=False, sep="\t", quoting=3)
    usual = loaded(tmp_path / "usual.tsv", **own)
    for ending in (".csv", ".parquet"):
        FORMS[ending](table, tmp_path / f"texts{ending}")
        found = loaded(tmp_path / f"texts{ending}", **own)
        assert found.train.digests == usual.train.digests
        assert found.names_of(found.test.ids.numpy()) == [f"text, {each}" for each in found.test.ids.tolist()]


@pytest.mark.extra("transformers")
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_text_that_is_missing_is_named_by_its_row(tmp_path: Path, encoder: str, ending: str) -> None:
    table = pd.DataFrame({"label": [0, 1, 0], "text": ["good", None, "bad"]})
    FORMS[ending](table, tmp_path / f"texts{ending}")
    own = {"source": Source.text, "target": "label", "text": ["text"], "tokenizer": encoder, "ids": None}
    with pytest.raises(InputError, match="row 2 has nothing in column 'text'"):
        loaded(tmp_path / f"texts{ending}", **own)
