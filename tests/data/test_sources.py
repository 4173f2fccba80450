from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from defense.config.choices import Harm, Source
from defense.config.schema import Data
from defense.data.load import load
from defense.data.sources import SOURCES
from defense.errors import InputError
from tests.conftest import data as default_data


def settings(**changes: Any) -> Data:
    """Return settings of a source that has a test split, without planted noise."""
    return default_data(**{"harm": Harm.none, "test_size": None} | changes)


def test_npz_with_other_labels_keeps_the_truth(npz: Path) -> None:
    spec = settings(source=Source.npz, path=str(npz), train_labels="train_y_noisy", validation_size=12)
    data = load(spec, seed=0)
    assert data.noise_known
    assert data.shape == (3, 8, 8)
    assert data.train.ids.tolist() == sorted(data.train.ids.tolist())
    expected = (data.train.ids % 3 + (data.train.ids < 12)) % 3
    assert torch.equal(data.train.labels, expected)
    assert torch.equal(data.train.truth, data.train.ids % 3)
    assert torch.equal(data.validation.labels, data.validation.ids % 3)
    assert data.test.ids.tolist() == list(range(60, 90))


@pytest.mark.parametrize("scale", [1, 255])
def test_floats_are_brought_to_the_unit_range(tmp_path: Path, scale: int) -> None:
    x = np.linspace(0, 1, 12 * 16).reshape(12, 4, 4)
    path = tmp_path / "floats.npz"
    np.savez(path, train_x=x * scale, train_y=np.arange(12) % 2, test_x=x * scale, test_y=np.arange(12) % 2)
    collection = SOURCES[Source.npz](settings(source=Source.npz, path=str(path)))
    np.testing.assert_allclose(collection.train.images.take(torch.arange(12))[:, 0], x, rtol=1e-6)


def test_medmnist_names(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", 20), ("val", 8), ("test", 10)):
        arrays[f"{part}_images"] = np.full((count, 4, 4), count, dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2)[:, None]
    path = tmp_path / "medmnist.npz"
    np.savez(path, **arrays)
    collection = SOURCES[Source.npz](settings(source=Source.npz, path=str(path)))
    assert collection.validation is not None
    assert collection.test is not None
    assert collection.validation.ids.tolist() == list(range(20, 28))
    assert collection.test.ids.tolist() == list(range(28, 38))
    assert float(collection.validation.images.take(torch.tensor([0])).max()) == pytest.approx(8 / 255)
    data = load(settings(source=Source.npz, path=str(path), validation_size=4), seed=0)
    assert len(data.train) == 20
    assert set(data.validation.ids.tolist()) <= set(range(20, 28))


X = np.full((8, 4, 4), 200, dtype=np.uint8)


def broken(**changes: Any) -> dict[str, np.ndarray]:
    arrays = {
        "train_x": np.full((8, 4, 4), 200, dtype=np.uint8),
        "train_y": np.arange(8) % 2,
        "test_x": np.full((4, 4, 4), 200, dtype=np.uint8),
        "test_y": np.arange(4) % 2,
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (broken(test_y=None), "no array 'test_y' in it; it has train_x, train_y, test_x"),
        (
            broken(train_y=np.arange(8) / 2),
            "train_y=array of type float64 .* expected one integer label per sample",
        ),
        (broken(train_y=np.arange(7) % 2), "train_y=7 labels: expected 8, one per picture"),
        (broken(train_y=np.arange(8) % 2 - 1), "train_y=label -1: expected integers from 0 up"),
        (broken(test_y=np.arange(4)), r"test_y=label 3: expected labels in \[0, 1\]"),
        (broken(train_x=np.full((8, 4, 4), np.nan)), "train_x=array with NaN"),
        (broken(train_x=np.full((8, 4, 4), 256)), "train_x=array with values up to 256 of type int64: expected"),
        (broken(train_x=np.full((8, 4, 4), -0.1)), "train_x=array with values down to -0.1: expected"),
        (broken(train_x=X.clip(0, 1), test_x=X[:4].clip(0, 1)), "array with values up to 1 of type uint8"),
        (
            broken(train_x=X / 199, test_x=X[:4] / 200),
            r"train_x=array with values up to 1\.0050251256281406 of type float64",
        ),
        (broken(train_x=np.zeros((8, 3, 4, 4))), r"channels come last: expected \(n, H, W, C\)"),
        (broken(train_x=np.zeros((8, 16))), r"expected pictures \(n, H, W\) or \(n, H, W, C\)"),
        (broken(test_x=np.zeros((4, 5, 5))), "pictures differ in shape"),
        (broken(train_x=np.array([["a"] * 4] * 4 * 8).reshape(8, 4, 4)), "expected integers or floats"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    path = tmp_path / "broken.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=said) as caught:
        SOURCES[Source.npz](settings(source=Source.npz, path=str(path)))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps({"train_x": 1}))
    for name in ("one.npy", "text.npz", "pickled.npz", "missing.npz"):
        with pytest.raises(InputError, match=r"data\.path="):
            SOURCES[Source.npz](settings(source=Source.npz, path=str(tmp_path / name)))


def test_image_folder_streams_and_fits(tmp_path: Path) -> None:
    for part, count in (("train", 12), ("test", 6)):
        for index in range(count):
            folder = tmp_path / part / ("cat" if index % 2 else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 20), (255 * (index % 2), 10 * index, 0)).save(folder / f"{index}.png")
    spec = settings(source=Source.image_folder, path=str(tmp_path), image_size=8, validation_size=4)
    data = load(spec, seed=0)
    assert data.class_names == ["cat", "dog"]
    assert data.shape == (3, 8, 8)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [8, 4, 6]
    batch = data.train.images.take(torch.arange(8))
    assert batch.shape == (8, 3, 8, 8)
    assert torch.equal(batch[:, 0, 0, 0], (data.train.labels == 0).float())
    before = [data.train.digests, data.validation.digests]
    assert [load(spec, seed=0).train.digests, load(spec, seed=0).validation.digests] == before
    (tmp_path / "train" / "cat" / "1.png").write_text("no picture")
    with pytest.raises(InputError, match=r"1 of 18 pictures cannot be read: train/cat/1\.png \(no picture"):
        load(spec, seed=0)
    with pytest.raises(InputError, match=r"1\.png: not a readable picture"):
        SOURCES[Source.image_folder](spec).train.images.take(torch.arange(12))
    Image.new("RGB", (30, 20)).save(tmp_path / "train" / "cat" / "1.png")
    assert [load(spec, seed=0).train.digests, load(spec, seed=0).validation.digests] != before
    with pytest.raises(InputError, match=r"no folder train in it, .*expected PATH/train/<class>/<picture>"):
        load(settings(source=Source.image_folder, path=str(tmp_path / "train"), image_size=8), seed=0)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("source", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_from_files_in_place(tmp_path: Path, source: str, folder: str) -> None:
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        pictures = np.arange(count)[:, None, None] * np.ones((1, 28, 28))
        write_idx(raw / f"{part}-images-idx3-ubyte", pictures)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    collection = SOURCES[Source[source]](settings(source=Source[source], root=str(tmp_path)))
    assert collection.test is not None
    assert (len(collection.train), len(collection.test), len(collection.class_names)) == (40, 20, 10)
    assert float(collection.train.images.take(torch.tensor([39])).max()) == pytest.approx(39 / 255)
    assert collection.train.labels.tolist() == [i % 10 for i in range(40)]


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_from_files_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from torchvision import datasets

    kind = getattr(datasets, name)
    folder = tmp_path / kind.base_folder
    folder.mkdir()

    def written(file: str, content: object) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes(), usedforsecurity=False).hexdigest()

    classes = int(name[5:])
    labels = list(range(classes))
    batch = {"data": np.zeros((classes, 3072), np.uint8), "labels": labels, "fine_labels": labels}
    names = [f"class {label}" for label in labels]
    lists = {part: [[part, written(part, batch)]] for part in ("train", "test")}
    monkeypatch.setattr(kind, "train_list", lists["train"])
    monkeypatch.setattr(kind, "test_list", lists["test"])
    meta = {"filename": "meta", "key": "names", "md5": written("meta", {"names": names})}
    monkeypatch.setattr(kind, "meta", meta)
    source = Source[name.lower()]
    collection = SOURCES[source](settings(source=source, root=str(tmp_path)))
    assert collection.train.images.shape == (3, 32, 32)
    assert collection.class_names == names


def test_no_network_names_the_folder_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    for source in (Source.mnist, Source.cifar10):
        with pytest.raises(InputError, match=r"data=npz data\.path=FILE") as caught:
            SOURCES[source](settings(source=source, root=str(tmp_path)))
        assert str(tmp_path) in str(caught.value)
