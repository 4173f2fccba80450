"""A name leads back to the very sample, whatever was drawn, left out or harmed on the way; no key holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from defense.config.choices import Harm, Source, Unreadable
from defense.config.schema import Data
from defense.data.load import held_out, load
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from tests.conftest import TINY, computed_in, data, run_in

COUNT = 60  # samples of each source; each shows its number: in a pixel, a cell, a word
SIZES = {"train_size": 30, "validation_size": 12, "test_size": 12}
ORDER = np.random.default_rng(0).permutation(COUNT)  # of the numbers in a file: a row is no number
CLASSES = ["cat", "dog", "hen"]


def npz(folder: Path, **names: Any) -> Data:
    """Arrays: the number of a picture is its first pixel."""
    pictures = np.full((COUNT, 4, 4), 255, dtype=np.uint8)
    pictures[:, 0, 0] = ORDER
    given = {"train_names": [f"picture {number}" for number in ORDER]} | names
    arrays = {name: np.array(array) for name, array in given.items() if array is not None}
    np.savez(folder / "my.npz", train_x=pictures, train_y=ORDER % 3, **arrays)
    return data(source=Source.npz, path=str(folder / "my.npz"), harm=Harm.none, **SIZES)


def pictures(folder: Path) -> Data:
    """Pictures in folders: the number is the shade; one cannot be read, and is left out."""
    for row, number in enumerate(ORDER):
        path = folder / "train" / CLASSES[number % 3] / f"{row} of {number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (int(number),) * 3).save(path)
    (folder / "train" / "cat" / "00.png").write_bytes(b"")
    own = {"image_size": 4, "unreadable": Unreadable.skip, "harm": Harm.none}
    return data(source=Source.image_folder, path=str(folder), **own, **SIZES)


def people(**changes: Any) -> pd.DataFrame:
    """A table whose column of numbers holds them; every fifth is of a group that is not compared."""
    columns = {"age": ORDER, "who": [f"p-{number:03d}" for number in ORDER]}
    columns |= {"sex": np.array(["f", "m", "f", "m", "x"])[ORDER % 5], "income": ORDER % 3}
    return pd.DataFrame(columns).assign(**changes)


def table(folder: Path, rows: pd.DataFrame | None = None, **changes: Any) -> Data:
    """A table, by default named by the column who."""
    (people() if rows is None else rows).to_csv(folder / "my.csv", index=False)
    own = {"target": "income", "ids": "who", "numbers": ["age"], "harm": Harm.none, **SIZES}
    return data(source=Source.table, path=str(folder / "my.csv"), **own | changes)


def grouped(folder: Path) -> Data:
    """A table of which rows are left out, without names: those of the file count."""
    sizes = {"train_size": 24, "validation_size": 9, "test_size": 9}
    return table(folder, people().drop(columns="who"), ids=None, sensitive="sex", groups=["f", "m"], **sizes)


def numbers_of(split: Split) -> list[float]:
    """Return the first value of each sample, by which its source tells its number."""
    return [float(x.flatten()[0]) for x in split.images.take(torch.arange(len(split)))]


def ranks(values: list[float], names: list[str], number: Callable[[str], int]) -> None:
    """Check that scaled values are in the order of the numbers that the names tell."""
    told = [number(name) for name in names]
    assert np.argsort(values).tolist() == np.argsort(told).tolist()
    assert len(set(told)) == len(told)


SOURCES: dict[str, tuple[Callable[[Path], Data], Callable[[str], int]]] = {
    "npz": (npz, lambda name: int(name.removeprefix("picture "))),
    "pictures": (pictures, lambda name: int(name.removesuffix(".png").rpartition(" of ")[2])),
    "table": (table, lambda name: int(name.removeprefix("p-"))),
    "groups": (grouped, lambda name: int(ORDER[int(name)])),
}


def parts_of(dataset: Dataset) -> dict[str, tuple[Split, list[str]]]:
    """Return every split with the names of its samples."""
    return {part: (split, dataset.names_of(split.ids.numpy())) for part, split in dataset.splits.items()}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("harm", [Harm.none, Harm.symmetric])
def test_a_name_leads_back_to_the_sample(tmp_path: Path, source: str, harm: Harm) -> None:
    make, number = SOURCES[source]
    dataset = held_out(load(replace(make(tmp_path), harm=harm), seed=3), 0.5, seed=3)
    parts = parts_of(dataset)
    assert set(parts) == {"train", "validation", "test", "choice"}
    for split, names in parts.values():
        ranks(numbers_of(split), names, number)
        assert [number(name) % 3 for name in names] == split.truth.tolist()
    some = torch.tensor([4, 1, 7])
    few = dataset.train.subset(some)
    assert dataset.names_of(few.ids.numpy()) == [parts["train"][1][row] for row in some]


def test_a_picture_is_named_by_its_path_below_the_folder(tmp_path: Path) -> None:
    dataset = load(pictures(tmp_path), seed=0)
    for split, names in parts_of(dataset).values():
        assert [np.asarray(Image.open(tmp_path / name))[0, 0, 0] for name in names] == pytest.approx(
            [255 * value for value in numbers_of(split)]
        )


@pytest.mark.parametrize("source", [Source.digits, Source.moons])
def test_a_source_without_names_calls_its_samples_by_their_rows(source: Source) -> None:
    dataset = load(data(source=source, harm=Harm.none, **SIZES | {"train_size": 40}), seed=0)
    for split, names in parts_of(dataset).values():
        assert names == [str(each) for each in split.ids.tolist()]
        if source is Source.digits:
            expected = [load_digits().images[int(name)].max() / 16 for name in names]
            found = split.images.take(torch.arange(len(split))).flatten(1).amax(1)
            assert found.tolist() == pytest.approx(expected)


def test_a_file_of_its_own_has_rows_and_names_of_its_own(tmp_path: Path) -> None:
    test = people()[:12].iloc[::-1]
    test.to_csv(tmp_path / "test.csv", index=False)
    spec = table(tmp_path, test_path=str(tmp_path / "test.csv"), test_size=None)
    assert parts_of(load(spec, seed=0))["test"][1] == test["who"].tolist()
    unnamed = replace(spec, ids=None, drop=["who"])
    assert parts_of(load(unnamed, seed=0))["test"][1] == [str(row) for row in range(12)]
    arrays = {"test_x": np.full((6, 4, 4), 255, dtype=np.uint8), "test_y": np.arange(6) % 3}
    numbered = replace(npz(tmp_path, **arrays, test_names=np.arange(6) + 100), test_size=None)
    assert parts_of(load(numbered, seed=0))["test"][1] == ["100", "101", "102", "103", "104", "105"]


def texts(folder: Path, encoder: str, ids: str | None = "who", **changes: Any) -> Data:
    """Texts of words; the number is that of the first word."""
    cells = {number: f" text {number} " for number in range(20)} | changes.pop("cells", {})
    rows = [f"{number % 2}\t{cells[number]}\tword{number} good" for number in ORDER[ORDER < 20].tolist()]
    (folder / "my.tsv").write_text("\n".join(["label\twho\ttext", *rows]) + "\n")
    own = {"target": "label", "text": ["text"], "tokenizer": encoder, "length": 4, "harm": Harm.none, "ids": ids}
    sizes = {"train_size": 8, "validation_size": 4, "test_size": 4}
    return data(source=Source.text, path=str(folder / "my.tsv"), **own | sizes | changes)


@pytest.mark.extra("transformers")
def test_a_name_leads_back_to_the_text(tmp_path: Path, encoder: str) -> None:
    first = 10  # the token of word0, see tests.texts
    for split, names in parts_of(load(texts(tmp_path, encoder), seed=0)).values():
        assert names == [f"text {token - first:.0f}" for token in numbers_of(split)]
    for split, names in parts_of(load(texts(tmp_path, encoder, ids=None), seed=0)).values():
        assert [float(ORDER[ORDER < 20][int(name)]) + first for name in names] == numbers_of(split)


@pytest.mark.extra("transformers")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ids": "whom"}, "data.ids=whom: no such column in {path}; it has label, who, text"),
        ({"cells": {3: ""}}, "data.ids=who: 1 of 20 samples in {path} have no name, the first is number "),
        (
            {"cells": {3: "text 4"}},
            "data.ids=who: the name text 4 is there twice in {path}; expected one for each",
        ),
    ],
)
def test_texts_without_a_name_each_are_refused(
    tmp_path: Path, encoder: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as error:
        load(texts(tmp_path, encoder, **changes), seed=0)
    assert str(error.value).startswith(said.format(path=tmp_path / "my.tsv"))


ROW_OF_7 = ORDER.tolist().index(7) + 1


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        (people(), {"ids": "whom"}, "data.ids=whom: no such column in {path}; it has age, who, sex, income"),
        (
            people(who=[None if number == 7 else f"p{number}" for number in ORDER]),
            {},
            f"data.ids=who: 1 of 60 samples in {{path}} have no name, the first is number {ROW_OF_7}; expected",
        ),
        (
            people(who=["twin" if number in (7, 9) else f"p{number}" for number in ORDER]),
            {},
            "data.ids=who: the name twin is there twice in {path}; expected one for each sample",
        ),
        (people(), {"columns": ["who"]}, "data.ids=who: is the one column that the model sees; expected another"),
    ],
)
def test_rows_without_a_name_each_are_refused(
    tmp_path: Path, rows: pd.DataFrame, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as error:
        load(table(tmp_path, rows, **changes), seed=0)
    assert str(error.value).startswith(said.format(path=tmp_path / "my.csv"))


def test_names_may_be_missing_or_alike_in_rows_that_are_left_out(tmp_path: Path) -> None:
    rows = people(who=[None if number % 5 == 4 else f"p-{number}" for number in ORDER])
    spec = replace(grouped(tmp_path), path=table(tmp_path, rows).path, ids="who")
    assert {name[:2] for _, names in parts_of(load(spec, seed=0)).values() for name in names} == {"p-"}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"train_names": ["a"] * COUNT}, "train_names=array of type <U1: the name a is there twice in "),
        ({"train_names": ["a", "", *map(str, range(58))]}, "train_names=array of type <U2: 1 of 60 samples in "),
        ({"train_names": ["a"]}, "train_names=1 names: expected 60, one per picture"),
        (
            {"train_names": np.arange(COUNT) / 2},
            r"train_names=array of type float64 and shape \(60,\): expected a",
        ),
        ({"train_names": np.array([b"\xe4"] * COUNT)}, "train_names=b'\\\\xe4': expected names in UTF-8"),
        (
            {"val_x": np.full((3, 4, 4), 255, dtype=np.uint8), "val_y": [0, 1, 2]}
            | {"val_names": [1, 2, 3], "validation_names": [1, 2, 3]},
            "data.path=.*: has val_names and validation_names, each for validation; expected one of them",
        ),
    ],
)
def test_arrays_that_do_not_name_each_sample_are_refused(
    tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        load(npz(tmp_path, **arrays), seed=0)


def test_no_digest_holds_a_name(tmp_path: Path) -> None:
    found = [load(npz(tmp_path, train_names=names), seed=0) for names in (None, [f"n{each}" for each in ORDER])]
    found += [load(table(tmp_path), seed=0), load(table(tmp_path, ids=None, drop=["who"]), seed=0)]
    digests = [[split.digests for split in dataset.splits.values()] for dataset in found]
    assert digests[0] == digests[1]
    assert digests[2] == digests[3]
    assert parts_of(found[0])["train"][1] != parts_of(found[1])["train"][1]


PLAIN = ["data.numbers=[age]", "data.harm=symmetric"]


def settings(spec: Data) -> list[str]:
    """Return the overrides of a small run on a table."""
    usual = [word for word in TINY if not word.startswith("data.")]
    own = [f"data.{name}_size={size}" for name, size in (("train", 30), ("validation", 12), ("test", 12))]
    return [*usual, "data=table", *own, f"data.path={spec.path}", "data.target=income", *PLAIN]


@pytest.mark.parametrize("task", ["defend", "detect", "repair", "evade"])
def test_reports_call_samples_by_name_and_no_stage_is_computed_again_for_it(tmp_path: Path, task: str) -> None:
    """What is treated is told by name, and the name leads to a row whose label is the known one."""
    rows = people(income=ORDER % 2).drop(columns="sex")
    arguments = [
        *settings(table(tmp_path, rows)),
        f"store={tmp_path / 'store'}",
        f"task={task}",
        "model.hidden=[4]",
    ]
    arguments += ["objective=utility"] if task == "repair" else []
    run_in(tmp_path / "unnamed", *arguments, "data.drop=[who]")
    run_in(tmp_path / "named", *arguments, "data.ids=who")
    assert computed_in(tmp_path / "named") == set()
    before, after = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("unnamed", "named"))
    assert after.columns[:2].tolist() == ["id", "name"]
    assert before.drop(columns="name").equals(after.drop(columns="name"))
    assert before["name"].tolist() == before["id"].astype(str).tolist()
    by_name = rows.set_index("who").loc[after["name"]]
    assert by_name["income"].tolist() == after["truth"].tolist()
    assert by_name["age"].tolist() == ORDER[after["id"]].tolist()
    if task == "defend":
        csv = pd.read_csv(tmp_path / "named/scores.csv")
        assert csv[csv["treated"]]["name"].tolist() == after[after["treated"]]["name"].tolist()
        lowest = after.sort_values("score", kind="stable")["name"].iloc[0]
        assert f'<span class="name">name {lowest}</span>' in (tmp_path / "named/report.html").read_text("utf-8")
        assert f"| {lowest} |" in (tmp_path / "named/report.md").read_text("utf-8")
    if task != "detect":
        samples = pd.read_parquet(tmp_path / "named/per_sample.parquet")
        assert samples["name"].tolist() == [f"p-{number:03d}" for number in ORDER[samples["id"]]]


def test_a_sources_own_name_still_calls_a_group_of_settings(tmp_path: Path) -> None:
    """Of a sweep over data, a cell without that override is called by its source, and not by a column of names."""
    from defense.reporting.frame import value_of

    found = run_in(tmp_path / "run", *TINY, "task=detect", f"store={tmp_path / 'store'}")
    assert value_of(found, "data") == "digits"
