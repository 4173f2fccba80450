"""Pictures that a table lists: the rows of their files, their parts and their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from defense.config.choices import Harm, Source, Unreadable
from defense.data.load import load
from defense.data.splits import Dataset
from defense.errors import InputError
from tests.conftest import TINY, computed_in, data, run_in

COUNT = 30


def listed(folder: Path, **columns: Any) -> pd.DataFrame:
    """Write grey pictures, each of the shade of its row, and return the table of them."""
    files = [f"scans/of  day {row % 4}/{row}.png" for row in range(COUNT)]
    for row, name in enumerate(files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (5, 4), 8 * row).save(folder / name)
    own = {"file": files, "label": ["cat", "dog", "hen"] * (COUNT // 3)}
    return pd.DataFrame(own | columns)


def loaded(folder: Path, table: pd.DataFrame, ending: str = ".csv", **changes: Any) -> Dataset:
    path = folder / f"list{ending}"
    write = {".csv": table.to_csv, ".tsv": table.to_csv, ".parquet": table.to_parquet}[ending]
    write(path, index=False, **({"sep": "\t"} if ending == ".tsv" else {}))
    usual = {"file": "file", "target": "label", "image_size": 4, "harm": Harm.none}
    sizes = {"validation_size": 6, "test_size": 6}
    return load(data(source=Source.image_table, path=str(path), **usual | sizes | changes), seed=0)


def shades(dataset: Dataset, part: str) -> list[int]:
    images = dataset.splits[part].images
    return [round(float(x.mean()) * 255 / 8) for x in images.take(torch.arange(len(images)))]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_a_row_is_the_picture_that_it_names(tmp_path: Path, ending: str) -> None:
    table = listed(tmp_path)
    found = loaded(tmp_path, table, ending)
    assert found.class_names == ["cat", "dog", "hen"]
    assert found.shape == (3, 4, 4)
    for part, split in found.splits.items():
        assert shades(found, part) == split.ids.tolist()
        assert split.labels.tolist() == [id % 3 for id in split.ids.tolist()]
        assert found.names_of(split.ids.numpy()) == table["file"].iloc[split.ids.numpy()].tolist()


def test_a_column_splits_the_rows(tmp_path: Path) -> None:
    table = listed(tmp_path, split=["test", "train", "train", "valid", "train"] * 6, who=range(100, 100 + COUNT))
    found = loaded(tmp_path, table, validation_size=None, test_size=None, ids="who")
    for part, word in (("train", "train"), ("validation", "valid"), ("test", "test")):
        rows = table.index[table["split"] == word].tolist()
        assert shades(found, part) == rows
        assert found.names_of(found.splits[part].ids.numpy()) == [str(100 + row) for row in rows]


def test_parts_may_be_tables_of_their_own(tmp_path: Path) -> None:
    table = listed(tmp_path)
    (tmp_path / "other").mkdir()
    apart = table.iloc[24:].assign(file=[f"../{name}" for name in table["file"][24:]])
    apart.to_csv(tmp_path / "other/test.csv", index=False)
    found = loaded(tmp_path, table[:24], test_path=str(tmp_path / "other/test.csv"), test_size=None)
    assert shades(found, "test") == [*range(24, 30)]
    assert len(found.train) == 18


def test_a_file_that_cannot_be_read_is_named_and_may_be_left_out(tmp_path: Path) -> None:
    table = listed(tmp_path)
    table.loc[3, "file"] = "scans/gone.png"
    with pytest.raises(
        InputError, match=r"1 of 30 pictures cannot be read: scans/gone\.png \(No such file or dir"
    ):
        loaded(tmp_path, table)
    found = loaded(tmp_path, table, unreadable=Unreadable.skip)
    assert sum(map(len, found.splits.values())) == COUNT - 1
    assert found.left_out == ["scans/gone.png (No such file or directory)"]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no file column": ({}, {"file": "picture"}, "data.file=picture: no such column in {path}; it has file, label"),
    "no target": ({}, {"target": None}, "data.target=null: expected the name of a column"),
    "no ids": ({}, {"ids": "who"}, "data.ids=who: no such column in {path}; it has file, label"),
    "ids twice": ({"who": ["a"] * COUNT}, {"ids": "who"}, "data.ids=who: the name a is there twice in {path}"),
    "a label missing": (
        {"label": [*["cat", "dog"] * 14, None, "cat"]},
        {},
        "data.path={path}: row 29 below the header has nothing in column label; expected one",
    ),
    "a file missing": (
        {"file": ["x.png", *[None] * 29]},
        {},
        "data.path={path}: row 2 below the header has nothing in column file; expected one",
    ),
    "a file twice": (
        {"file": "x.png"},
        {},
        "data.file=file: {folder}/x.png is there twice; expected each file once",
    ),
    "a word in split": (
        {"split": ["train"] * 29 + ["fold 2"]},
        {},
        "data.path={path}: column split has 'fold 2' in 1 rows; expected train, validation or test",
    ),
    "no train in split": ({"split": "test"}, {}, "data.path={path}, column split: no train in it; it has test"),
    "split and a table": (
        {"split": "train"},
        {"test_path": "{path}"},
        "data.path={path}: has a column split; expected it, or data.validation_path and data.test_path",
    ),
    "two spellings": (
        {"label": ["cat", "Cat", "dog"] * 10},
        {},
        "data.path={path}: column label has cat (10 rows) and Cat (10 rows): one class in two spellings",
    ),
    "one of a class": (
        {"label": ["cat", "dog"] * 14 + ["hen", "cat"]},
        {},
        "data.path={path}, column label: one sample has the label hen; expected two at least",
    ),
    "no size": ({}, {"image_size": None}, "data.image_size=null: expected the side, in pixels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_one_line(tmp_path: Path, kind: str) -> None:
    columns, changes, said = REFUSED[kind]
    path = tmp_path / "list.csv"
    changes = {name: path if value == "{path}" else value for name, value in changes.items()}
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, listed(tmp_path).assign(**columns), **changes)
    assert str(caught.value).startswith(said.format(path=path, folder=tmp_path))
    assert "\n" not in str(caught.value)


def test_a_run_names_its_samples_by_their_files_and_sees_that_one_has_changed(tmp_path: Path) -> None:
    table = listed(tmp_path)
    table.to_csv(tmp_path / "list.csv", index=False)
    usual = [word for word in TINY if not word.startswith("data.")]
    words = [
        *usual, "data=image_table", f"data.path={tmp_path / 'list.csv'}", "data.image_size=4", "task=detect",
        "data.validation_size=6", "data.test_size=6", "data.harm=symmetric", "scorer=loss", "model.hidden=[4]",
        f"store={tmp_path / 'store'}",
    ]  # fmt: skip
    run_in(tmp_path / "run", *words)
    scores = pd.read_parquet(tmp_path / "run/scores.parquet")
    assert scores["name"].tolist() == table["file"].iloc[scores["id"]].tolist()
    run_in(tmp_path / "same", *words)
    assert computed_in(tmp_path / "same") == set()
    Image.fromarray(np.full((4, 4), 77, dtype=np.uint8)).resize((9, 9)).save(tmp_path / scores["name"].iloc[0])
    run_in(tmp_path / "changed", *words)
    assert "train_baseline" in computed_in(tmp_path / "changed")
