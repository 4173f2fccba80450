"""Folders of the package datasets: the columns that are found or named, and what is refused."""

from __future__ import annotations

import io
import socket
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
from tests.conftest import TINY, data, run_in

pytestmark = pytest.mark.extra("datasets")
NAMES = ["cat", "dog", "hen"]
COUNT = 30


def png(shade: int, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("L", (5, 4), shade).save(stream, form)
    return stream.getvalue()


def rows(count: int = COUNT, first: int = 0, **columns: Any) -> Any:
    """Return a Dataset of grey pictures, each of the shade of its number, and their labels."""
    import datasets

    numbers = range(first, first + count)
    own = {"picture": [{"bytes": png(4 * number), "path": None} for number in numbers]}
    own |= {"label": [number % 3 for number in numbers], "who": [f"scan {number}" for number in numbers]}
    kinds = {
        "picture": datasets.Image(),
        "label": datasets.ClassLabel(names=NAMES),
        "who": datasets.Value("string"),
    }
    given = own | {name: values for name, (values, _) in columns.items() if values is not None}
    features = kinds | {name: kind for name, (_, kind) in columns.items()}
    kept = {name: values for name, values in given.items() if features[name] is not None}
    return datasets.Dataset.from_dict(kept, datasets.Features({name: features[name] for name in kept}))


def loaded(folder: Path, found: Any, **changes: Any) -> Dataset:
    found.save_to_disk(str(folder / "stored"))
    usual = {"validation_size": 6, "test_size": 6, "image_size": 4, "harm": Harm.none}
    return load(data(source=Source.huggingface, path=str(folder / "stored"), **usual | changes), seed=0)


def shades(dataset: Dataset, part: str) -> list[int]:
    images = dataset.splits[part].images
    return [round(float(x.mean()) * 255 / 4) for x in images.take(torch.arange(len(images)))]


def test_one_dataset_is_divided_and_columns_are_found_by_their_type(tmp_path: Path) -> None:
    found = loaded(tmp_path, rows())
    assert found.class_names == NAMES
    assert found.shape == (3, 4, 4)
    for part, split in found.splits.items():
        assert shades(found, part) == split.ids.tolist()
        assert split.labels.tolist() == [id % 3 for id in split.ids.tolist()]
        assert found.names_of(split.ids.numpy()) == [str(id) for id in split.ids.tolist()]


@pytest.mark.parametrize("word", ["validation", "valid", "val"])
def test_a_dict_has_parts(tmp_path: Path, word: str) -> None:
    import datasets

    parts = {"test": rows(9, 40), "train": rows(), word: rows(6, 50), "unsupervised": rows(3)}
    stored = datasets.DatasetDict(parts)
    found = loaded(tmp_path, stored, ids="who", validation_size=None, test_size=None)
    assert shades(found, "train") == [*range(30)]
    assert shades(found, "validation") == [*range(50, 56)]
    assert shades(found, "test") == [*range(40, 49)]
    assert found.names_of(found.test.ids.numpy()) == [f"scan {number}" for number in range(40, 49)]


def test_a_picture_becomes_the_pixels_of_one_in_a_folder(tmp_path: Path) -> None:
    rng, files = np.random.default_rng(0), []
    for number in range(12):
        file = tmp_path / f"pictures/train/{'ab'[number % 2]}/{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7, 4), dtype=np.uint8), mode="RGBA").save(file)
        files.append(file)
    import datasets

    order = sorted(files)
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {"image": [str(file) for file in order], "label": ["ab".index(file.parent.name) for file in order]}
    sizes = {"validation_size": 4, "test_size": 4}
    ours = loaded(tmp_path, datasets.Dataset.from_dict(columns, kinds), **sizes)
    settings = {"source": Source.image_folder, "path": str(tmp_path / "pictures"), "harm": Harm.none}
    theirs = load(data(**settings, image_size=4, **sizes), seed=0)
    for part, split in theirs.splits.items():
        everything = torch.arange(len(split))
        assert torch.equal(ours.splits[part].images.take(everything), split.images.take(everything))
        assert torch.equal(ours.splits[part].labels, split.labels)


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("int64", [0, 1, 2], ["0", "1", "2"]),
        ("string", ["owl", "bat", "emu"], ["bat", "emu", "owl"]),
        ("bool", [True, False, True], ["0", "1"]),
    ],
)
def test_labels_may_be_numbers_or_words(tmp_path: Path, kind: str, values: list[Any], names: list[str]) -> None:
    import datasets

    found = loaded(tmp_path, rows(label=(values * 10, datasets.Value(kind))), target="label")
    assert found.class_names == names
    expected = [names.index(str(int(value) if kind == "bool" else value)) for value in values]
    assert found.train.labels.tolist() == [expected[id % 3] for id in found.train.ids.tolist()]


def test_a_format_for_torch_changes_nothing(tmp_path: Path) -> None:
    usual = loaded(tmp_path / "a", rows())
    formatted = loaded(tmp_path / "b", rows().with_format("torch"))
    assert formatted.train.digests == usual.train.digests


def broken(number: int = 7) -> Any:
    import datasets

    pictures = [{"bytes": png(4 * row) if row != number else b"no picture", "path": None} for row in range(COUNT)]
    return rows(picture=(pictures, datasets.Image()))


def test_a_picture_that_cannot_be_read_is_named_and_may_be_left_out(tmp_path: Path) -> None:
    said = (
        r"1 of 30 pictures cannot be read: row 7 of train \(no picture that Pillow knows\); mend them, or data\.u"
    )
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, broken())
    found = loaded(tmp_path / "again", broken(), unreadable=Unreadable.skip)
    assert sorted(id for split in found.splits.values() for id in split.ids.tolist()) == [
        id for id in range(COUNT) if id != 7
    ]
    assert found.left_out == ["row 7 of train (no picture that Pillow knows)"]


def columns(name: str) -> dict[str, Any]:
    """Return the columns of a Dataset that does not fit, by the name of its test."""
    import datasets

    label, image = datasets.ClassLabel(names=NAMES), datasets.Image()
    return {
        "two of pictures": {"mask": ([{"bytes": png(9), "path": None}] * COUNT, image)},
        "no picture": {"picture": (None, None)},
        "no class label": {"label": (None, datasets.Value("int64"))},
        "no label": {"label": ([-1, 0, 1] * 10, label)},
        "none": {"label": ([None, 0, 1] * 10, label)},
        "floats": {"label": ([0.5, 1.0, 2.0] * 10, datasets.Value("float64"))},
        "a class without samples": {"label": (None, datasets.ClassLabel(names=[*NAMES, "owl"]))},
        "ids twice": {"who": (["a", "b"] * 15, datasets.Value("string"))},
        "one of a class": {"label": ([2, *[0, 1] * 14, 0], label)},
    }.get(name, {})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two of pictures": (
        {},
        "data.image=null: 2 columns of type Image; expected the name of one, of picture (Image), label (Class",
    ),
    "no picture": (
        {},
        "data.image=null: 0 columns of type Image; expected the name of one, of label (ClassLabel)",
    ),
    "another type": ({"image": "who"}, "data.image=who: is of type Value; expected Image"),
    "no such picture": ({"image": "img"}, "data.image=img: no such column in train; it has picture, label, who"),
    "no class label": (
        {},
        "data.target=null: 0 columns of type ClassLabel; expected the name of one, of picture (Ima",
    ),
    "no such target": ({"target": "y"}, "data.target=y: no such column in train; it has picture, label, who"),
    "no such ids": ({"ids": "id"}, "data.ids=id: no such column in train; it has picture, label, who"),
    "no label": ({}, "data.target=label: 10 of 30 rows of train have no label; expected one in each, or no such"),
    "none": (
        {},
        "data.target=label: 10 of 30 rows of train have no label; expected one in each, or no such split",
    ),
    "floats": (
        {"target": "label"},
        "label of train=array of type float64 and shape (30,): expected one integer label per sample",
    ),
    "a class without samples": (
        {},
        "label of train=labels 0 to 2: no sample has label 3; expected a sample of each",
    ),
    "ids twice": ({"ids": "who"}, "data.ids=who: the name a is there twice in train of "),
    "one of a class": (
        {},
        "data.path={path}, label of train: one sample has the label hen; expected two at least",
    ),
    "no size": ({"image_size": None}, "data.image_size=null: expected the side, in pixels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_one_line(tmp_path: Path, kind: str) -> None:
    changes, said = REFUSED[kind]
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, rows(**columns(kind)), **changes)
    assert str(caught.value).startswith(said.format(path=tmp_path / "stored"))
    assert "\n" not in str(caught.value)


def test_parts_whose_classes_have_other_names_are_refused(tmp_path: Path) -> None:
    import datasets

    other = rows(9, label=(None, datasets.ClassLabel(names=NAMES[::-1])))
    with pytest.raises(InputError, match="the classes of test have other names than those of train"):
        loaded(tmp_path, datasets.DatasetDict({"train": rows(), "test": other}))
    with pytest.raises(InputError, match="no train in it; it has fit; expected train"):
        loaded(tmp_path / "b", datasets.DatasetDict({"fit": rows()}))
    stored = tmp_path / "c"
    rows(0).save_to_disk(str(stored), num_shards=1)
    with pytest.raises(InputError, match="train has no row; expected samples"):
        load(data(source=Source.huggingface, path=str(stored), image_size=4, harm=Harm.none), seed=0)


def test_a_name_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connects"))
    settings = {"source": Source.huggingface, "image_size": 4, "harm": Harm.none}
    with pytest.raises(InputError) as caught:
        load(data(path="cifar10", **settings), seed=0)
    said = "data.path=cifar10: no such folder; expected a folder that save_to_disk of the package datasets has"
    assert str(caught.value).startswith(said)
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(
        InputError, match=r"data\.path=cifar10: expected a folder that save_to_disk .*FileNotFound"
    ):
        load(data(path="cifar10", **settings), seed=0)


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defense.data.huggingface.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'read by datasets: pip install -e "\.\[vision\]"'):
        load(data(source=Source.huggingface, path="x", image_size=4, harm=Harm.none), seed=0)


def test_a_run_calls_its_samples_by_their_ids(tmp_path: Path) -> None:
    rows().save_to_disk(str(tmp_path / "stored"))
    usual = [word for word in TINY if not word.startswith("data.")]
    run_in(
        tmp_path / "run", *usual, "data=huggingface", f"data.path={tmp_path / 'stored'}", "data.ids=who",
        "data.image_size=4", "data.validation_size=6", "data.test_size=6", "task=detect", "data.harm=symmetric",
        "scorer=loss", "model.hidden=[4]", f"store={tmp_path / 'store'}",
    )  # fmt: skip
    scores = pd.read_parquet(tmp_path / "run/scores.parquet")
    assert scores["name"].tolist() == [f"scan {id}" for id in scores["id"]]
    assert scores["truth"].tolist() == [id % 3 for id in scores["id"]]
