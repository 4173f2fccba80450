"""Tables: what is read, what is refused, and that nothing of validation and test leaks into the encoding."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from defense.config.choices import Harm, Source
from defense.data.csvfile import read_cells
from defense.data.load import load
from defense.data.splits import Dataset
from defense.errors import InputError
from tests.conftest import data

ROWS = 60


def people(rows: int = ROWS, *, seed: int = 0) -> pd.DataFrame:
    """Return a table with a number, two kinds of categories, a group and a target."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 60, rows),
            "job": rng.choice(["clerk", "smith", "?"], rows),
            "member": np.arange(rows) % 3 == 0,
            "sex": np.where(np.arange(rows) % 2, "f", "m"),
            "income": np.where(np.arange(rows) % 4 < 2, "low", "high"),
        }
    )


def loaded(folder: Path, train: pd.DataFrame, test: pd.DataFrame | None = None, **changes: Any) -> Dataset:
    """Return the dataset of tables that are written into `folder`."""
    train.to_csv(folder / "train.csv", index=False)
    sizes: dict[str, Any] = {"test_size": 10}
    if test is not None:
        test.to_csv(folder / "test.csv", index=False)
        sizes = {"test_path": str(folder / "test.csv"), "test_size": None}
    settings: dict[str, Any] = {
        "source": Source.table,
        "harm": Harm.none,
        "path": str(folder / "train.csv"),
        "target": "income",
        "sensitive": "sex",
        "validation_size": 20,
        **sizes,
    }
    return load(data(**settings | changes), seed=0)


def test_columns_are_encoded_by_hand_the_same(tmp_path: Path) -> None:
    table, test = people(), people(8, seed=1)
    found = loaded(tmp_path, table, test, columns=["age", "job", "member"])
    train = table.iloc[found.train.ids.numpy()]
    low, high = train["age"].min(), train["age"].max()
    jobs, flags = sorted(train["job"].unique()), [False, True]
    for split, rows in ((found.train, train), (found.test, test)):
        age = ((rows["age"] - low) / (high - low)).clip(0, 1)
        one_hot = [rows["job"] == job for job in jobs] + [rows["member"] == flag for flag in flags]
        expected = np.stack([age, *one_hot], axis=1).astype(np.float32)
        assert split.images.take(torch.arange(len(rows)))[:, :, 0, 0].numpy() == pytest.approx(expected)
        assert split.labels.tolist() == [["high", "low"].index(value) for value in rows["income"]]
        assert split.groups is not None
        assert split.groups.tolist() == [["f", "m"].index(value) for value in rows["sex"]]
    assert (found.class_names, found.group_names) == (["high", "low"], ["f", "m"])


def test_what_is_not_trained_on_does_not_reach_the_encoding(tmp_path: Path) -> None:
    table, test = people(), people(8, seed=1)
    usual = loaded(tmp_path, table, test)
    other = test.assign(age=[1000, *test["age"][1:]], job=["astronaut", *test["job"][1:]])
    changed = loaded(tmp_path, table, other)
    assert changed.train.digests == usual.train.digests
    first = changed.test.images.take(torch.tensor([0])).flatten()
    assert first[0] == 1  # cut off
    assert first[1:4].sum() == 0  # a job that nobody has in training


def test_a_missing_value_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    """The second, of which the first is left out."""
    table = people().assign(age=[20, None, *people()["age"][2:]], sex=["x", *people()["sex"][1:]])
    with pytest.raises(InputError, match="1 of 59 rows have no value in column age, the first is row 2 below"):
        loaded(tmp_path, table, groups=["f", "m"])


def test_rows_of_groups_that_are_not_compared_are_left_out(tmp_path: Path) -> None:
    table = people(90)
    table.loc[::3, "sex"] = "x"
    found = loaded(tmp_path, table, groups=["f", "m"])
    assert sum(len(split) for split in found.splits.values()) == 60
    assert found.group_names == ["f", "m"]


def test_the_sensitive_column_is_not_seen_unless_it_is_a_column(tmp_path: Path) -> None:
    usual = loaded(tmp_path, people()).shape[0]
    assert usual == loaded(tmp_path, people().drop(columns="sex"), sensitive=None).shape[0]
    assert loaded(tmp_path, people(), columns=["age"]).shape == (1, 1, 1)
    assert loaded(tmp_path, people(), columns=["age", "sex"]).shape == (3, 1, 1)


MISSING = people().assign(age=[None, *people()["age"][1:]])


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        (
            people(),
            {"target": "wealth"},
            "data.target=wealth: no such column in .*it has age, job, member",
        ),
        (people(), {"target": None}, "data.target=null: expected the name of the column of the classes"),
        (people(), {"sensitive": "race"}, "data.sensitive=race: no such column"),
        (people(), {"columns": ["age", "shoe"]}, "data.columns=shoe: no such column"),
        (people().assign(sex="f"), {}, "data.sensitive=sex: has the one value f; expected two groups"),
        (people(), {"sensitive": "age"}, "data.sensitive=age: has .. values; expected 20 at most, or data.groups"),
        (people(), {"groups": ["f", "z"]}, "data.groups=z: no such value in column sex; it has f, m"),
        (
            MISSING,
            {},
            "train.csv: 1 of 60 rows have no value in column age, the first is row 1 below the header",
        ),
        (people(), {"columns": []}, r"data.columns=\[\]: expected columns, each once; null takes all others"),
        (people(), {"columns": ["age", "age"]}, "data.columns=.*: expected columns, each once"),
        (people(), {"columns": ["age", "income"]}, "data.columns=income: is data.target, which is to be"),
        (people(), {"sensitive": "income"}, "data.sensitive=income: is data.target; expected another column"),
        (
            people().assign(age=np.arange(ROWS) / 7),
            {"target": "age", "columns": ["job"]},
            "data.target=age: has 60 values in 60 rows; expected the column of the classes",
        ),
        (people(0), {}, "data.path=.*train.csv: no row in it; expected samples"),
        (
            people().assign(age=[np.inf, *people()["age"][1:]]),
            {},
            "data.columns=age: the train rows have the value inf",
        ),
        (
            people().assign(age=["n/a", *people()["age"][1:]]),
            {},
            "train.csv: 1 of 60 rows have no value in column age but n/a, the first is row 1 below the header",
        ),
        (people().rename(columns={"member": "job"}), {}, "train.csv: has two columns named job; expected a name"),
        (people(), {"path": "nowhere.csv"}, "data.path=nowhere.csv: no such path; expected a CSV file"),
        (people(), {"path": None}, "data.path=null: expected a CSV file with a header"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, table: pd.DataFrame, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, table, **changes)


def test_a_row_longer_than_the_header_is_said(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("age,sex,income\n" + "3,f,low,1\n4,m,high,2\n" * 30)
    with pytest.raises(
        InputError, match=r"data.path=.*long.csv: not a readable CSV file \(.*Expected 3 fields in line 2"
    ):
        loaded(tmp_path, people(), path=str(tmp_path / "long.csv"))


def test_other_files_are_of_the_same_kinds(tmp_path: Path) -> None:
    """Numbers where training has numbers; where it has categories, the same text may be read as a number."""
    with pytest.raises(InputError, match=r"data\.columns=age: the test rows have the value old in it"):
        loaded(tmp_path, people(), people(8).assign(age="old"))
    coded = people().assign(job=np.where(np.arange(ROWS) % 2, "1", "x"))
    found = loaded(tmp_path, coded, people(8).assign(job=1), columns=["job"])
    assert found.test.images.take(torch.arange(8)).flatten(1).tolist() == [[1, 0]] * 8


def test_a_missing_value_in_a_column_that_is_not_seen_does_not_matter(tmp_path: Path) -> None:
    assert len(loaded(tmp_path, MISSING, columns=["job"]).train) == 30


def test_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("age,sex,income\n3,f,hög\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"data.path=.*latin.csv: not in UTF-8: byte 0xf6 at position 20"):
        loaded(tmp_path, people(), path=str(tmp_path / "latin.csv"))


def test_a_workbook_is_told_from_text(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "book.csv", "w") as book:
        book.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(
        InputError, match=r"data.path=.*book.csv: a workbook or another archive; expected a CSV file"
    ):
        loaded(tmp_path, people(), path=str(tmp_path / "book.csv"))


def test_a_file_may_begin_with_a_mark_of_its_encoding_as_excel_writes_it(tmp_path: Path) -> None:
    usual = loaded(tmp_path, people())
    people().to_csv(tmp_path / "marked.csv", index=False, encoding="utf-8-sig")
    marked = loaded(tmp_path, people(), path=str(tmp_path / "marked.csv"))
    assert marked.train.digests == usual.train.digests


def test_classes_that_are_numbers_are_in_order_of_size(tmp_path: Path) -> None:
    table = people(90).assign(income=[2, 10, 9] * 30)
    assert loaded(tmp_path, table).class_names == ["2", "9", "10"]


def test_a_class_of_test_that_training_has_not_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.target=income: the test rows have the value odd, which training"):
        loaded(tmp_path, people(), people(8).assign(income="odd"))


def test_it_is_the_text_among_numbers_that_is_said(tmp_path: Path) -> None:
    """pandas makes texts of the numbers beside it."""
    train = people().assign(income=np.arange(ROWS) % 2)
    test = train.head(10).astype({"income": object})
    test.loc[5, "income"] = "x"
    with pytest.raises(InputError, match=r"data.target=income: the test rows have the value x, which training"):
        loaded(tmp_path, train, test)


def test_a_column_is_of_one_kind_however_long_it_is(tmp_path: Path) -> None:
    """Pandas would else decide for every 262,144 rows of three columns: 0, 1 and 2 as text and as numbers."""
    text = "age,sex,income\n" + "3,f,0\n3,m,1\n4,f,2\n" * 90_000 + "4,m,x\n"
    (tmp_path / "long.csv").write_text(text)
    found = read_cells(str(tmp_path / "long.csv"), "data.path", ["income"])
    assert found["income"].value_counts().to_dict() == {"0": 90_000, "1": 90_000, "2": 90_000, "x": 1}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_column_that_another_file_lacks_is_said(tmp_path: Path, part: str) -> None:
    (tmp_path / "other.csv").write_text(people(8).drop(columns="job").to_csv(index=False))
    changes = {f"{part}_path": str(tmp_path / "other.csv"), f"{part}_size": None}
    seen = r"all that the model sees: age, job, member, or 'data\.drop=\[job\]'"
    with pytest.raises(InputError, match=rf"data\.{part}_path=.*other\.csv: no column job in it; expected {seen}"):
        loaded(tmp_path, people(), **changes)
    assert loaded(tmp_path, people(), columns=["age", "member"], **changes).shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (["01", "02", "AB"], ["01", "02"], [[1, 0, 0], [0, 1, 0]]),
        (["FALSE", "TRUE", "odd"], ["TRUE", "FALSE"], [[0, 1, 0], [1, 0, 0]]),
        (["FALSE", "TRUE"], ["true", "False"], [[0, 1], [1, 0]]),
        (["FALSE", "TRUE"], ["TRUE", "odd"], [[0, 1], [0, 0]]),
    ],
)
def test_a_category_is_the_same_in_every_file(
    tmp_path: Path, train: list[str], test: list[str], expected: list[list[int]]
) -> None:
    """By itself, pandas would read the second file of each pair in another way than the first."""
    table, other = people().assign(job=np.resize(train, ROWS)), people(8).assign(job=np.resize(test, 8))
    found = loaded(tmp_path, table, other, columns=["job"])
    assert found.test.images.take(torch.arange(2)).flatten(1).tolist() == expected


@pytest.mark.parametrize(
    ("train", "test", "labels"),
    [
        (["01", "02", "AB"], ["02", "01"], [1, 0]),
        (["FALSE", "TRUE", "odd"], ["TRUE", "FALSE"], [1, 0]),
        (["FALSE", "TRUE"], ["true", "false"], [1, 0]),
    ],
)
@pytest.mark.parametrize("part", ["validation", "test"])
def test_classes_and_groups_are_the_same_in_every_file(
    tmp_path: Path, part: str, train: list[str], test: list[str], labels: list[int]
) -> None:
    other = people(8).assign(income=np.resize(test, 8), sex=np.resize(test, 8))
    other.to_csv(tmp_path / "other.csv", index=False)
    table = people().assign(income=np.resize(train, ROWS), sex=np.resize(train, ROWS))
    changes = {f"{part}_path": str(tmp_path / "other.csv"), f"{part}_size": None}
    split = loaded(tmp_path, table, **changes).splits[part]
    assert split.groups is not None
    assert (split.labels.tolist(), split.groups.tolist()) == (labels * 4, labels * 4)


def test_what_misses_in_a_category_of_another_file_is_said(tmp_path: Path) -> None:
    other = people(8).assign(job=["1", "", *["2"] * 6])
    with pytest.raises(InputError, match=r"test\.csv: 1 of 8 rows have no value in column job, the first"):
        loaded(tmp_path, people(), other)
    with pytest.raises(InputError, match=r"test\.csv: 1 of 8 rows have no value in column member"):
        loaded(tmp_path, people(), other.assign(job="1", member=[*[True] * 7, ""]))
