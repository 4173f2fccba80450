"""Arrays as people store them: read right, or refused in a line that names the array."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from defense.config.choices import Channels, Harm, Source
from defense.data.collection import Collection
from defense.data.load import load
from defense.data.sources import SOURCES
from defense.errors import InputError
from tests.conftest import data

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (24, 6, 5, 3), dtype=np.uint8)
BYTES[0, 0, 0] = 255
LABELS = np.arange(24) % 3


def stored(folder: Path, **changes: np.ndarray | None) -> str:
    """Write arrays that fit, with changes; None leaves one out."""
    usual = {"train_x": BYTES, "train_y": LABELS, "test_x": BYTES, "test_y": LABELS}
    arrays = {name: array for name, array in (usual | changes).items() if array is not None}
    np.savez(folder / "my.npz", **arrays)
    return str(folder / "my.npz")


def read(path: str, **changes: Any) -> Collection:
    spec = data(source=Source.npz, harm=Harm.none, path=path, **{"test_size": None} | changes)
    return SOURCES[Source.npz](spec)


def pixels(collection: Collection, part: str = "train") -> np.ndarray:
    split = getattr(collection, part)
    return np.asarray(split.images.take(torch.arange(len(split))))


PLAIN = np.moveaxis(BYTES / 255, 3, 1)


@pytest.mark.parametrize(
    "form", [">f4", ">f8", "<f4", "f2", "longdouble", "fortran", "strided", "rounded up", "rounded down"]
)
def test_floats_of_any_form_are_read(tmp_path: Path, form: str) -> None:
    scaled = BYTES / 255
    forms = {
        "fortran": lambda: np.asfortranarray(scaled),
        "strided": lambda: np.repeat(scaled, 2, axis=0)[::2],
        "rounded up": lambda: scaled * (1 + 2.3e-16),
        "rounded down": lambda: np.where(scaled == 0, -1e-9, scaled),
    }
    array = forms[form]() if form in forms else scaled.astype(form)
    found = pixels(read(stored(tmp_path, train_x=array, test_x=array)))
    np.testing.assert_allclose(found, PLAIN, atol=1e-3 if form == "f2" else 1e-6)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("form", [">u2", ">i4", "i8", "u1"])
def test_integers_of_any_form_are_read(tmp_path: Path, form: str) -> None:
    array = BYTES.astype(form)
    np.testing.assert_allclose(pixels(read(stored(tmp_path, train_x=array, test_x=array))), PLAIN, rtol=1e-6)


def test_two_values_are_read_as_bool(tmp_path: Path) -> None:
    mask = BYTES[..., 0] > 99
    found = pixels(read(stored(tmp_path, train_x=mask, test_x=mask)))
    np.testing.assert_array_equal(found[:, 0], mask)


FLOATS = BYTES / 255
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "bytes, floats": ({"test_x": FLOATS}, "test_x=array with values up to 1.0 of type float64, but train_x is an"),
    "floats, bytes": ({"train_x": FLOATS}, "test_x=array with values up to 255 of type uint8, but train_x is an"),
    "floats, larger": (
        {"train_x": FLOATS, "test_x": FLOATS * 255},
        "test_x=array with values up to 255.0 of type",
    ),
    "validation": ({"val_x": FLOATS, "val_y": LABELS}, "val_x=array with values up to 1.0 of type float64, but"),
    "bool, bytes": ({"train_x": BYTES > 99}, "but train_x is an array with values up to True of type bool"),
    "above": ({"train_x": FLOATS * 1.00001, "test_x": FLOATS}, "train_x=array with values up to 1.00001 of type"),
    "below": ({"train_x": FLOATS - 1e-5, "test_x": FLOATS}, "train_x=array with values down to -1e-05: expected"),
    "infinite": ({"train_x": np.where(FLOATS == 1, np.inf, FLOATS)}, "train_x=array with values up to inf"),
    "objects": ({"train_x": BYTES.astype(object)}, "train_x=array of objects: expected numbers or texts"),
    "complex": ({"train_x": BYTES.astype(complex)}, "train_x=array of type complex128: expected integers"),
    "labels of objects": ({"test_y": LABELS.astype(object)}, "test_y=array of objects"),
    "one-hot": ({"train_y": np.eye(3)[LABELS]}, "one-hot labels become that by train_y.argmax(1)"),
    "texts": ({"train_y": LABELS.astype(str)}, "as np.unique(train_y, return_inverse=True)[1], and the texts as"),
    "missing": (
        {"train_y": np.where(LABELS == 1, np.nan, LABELS)},
        "expected one integer label per sample; it has",
    ),
    "from 1": (
        {"train_y": LABELS + 1, "test_y": LABELS + 1},
        "train_y=labels 1 to 3: expected labels from 0, as tr",
    ),
    "from 5": (
        {"train_y": LABELS + 5, "test_y": LABELS + 5},
        "train_y=labels 5 to 7: expected labels from 0, as tr",
    ),
    "gap": ({"train_y": LABELS * 2, "test_y": LABELS}, "train_y=labels 0 to 4: no sample has label 1; expected"),
    "minus": ({"train_y": LABELS - 1}, "train_y=label -1: expected integers from 0 up, as np.unique(train_y"),
    "names": (
        {"class_names": np.array(list("abcd"))},
        "no sample has label 3; expected a sample of each named class",
    ),
    "two": (
        {"x_train": BYTES, "y_train": LABELS},
        "has train_x and x_train, each for train; expected one of them",
    ),
    "surrogate": (
        {"class_names": np.array(["a", "B\udce4r", "c"])},
        r"class_names=B\xe4r: expected names in UTF-8",
    ),
    "latin-1": (
        {"class_names": np.array([b"a", b"B\xe4r", b"c"])},
        "class_names=b'B\\xe4r': expected names in UTF-8",
    ),
    "two cats": ({"class_names": np.array(["cat", "dog", "cat"])}, "class_names=cat: names two classes"),
    "half": ({"test_x": None}, "no array 'test_x' in it; it has train_x, train_y, test_y"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, kind: str) -> None:
    changes, said = MISFITS[kind]
    with pytest.raises(InputError) as caught:
        read(stored(tmp_path, **changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    path = stored(tmp_path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("train_y.npy", b"")
    with pytest.raises(InputError, match="has two arrays named train_y; expected a name for each"):
        read(path)


def test_a_damaged_array_is_named(tmp_path: Path) -> None:
    path = Path(stored(tmp_path))
    content = bytearray(path.read_bytes())
    content[content.index(b"train_y.npy") + 160] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"array 'train_y' in it cannot be read"):
        read(str(path))


def test_names_of_classes_may_be_bytes(tmp_path: Path) -> None:
    assert read(stored(tmp_path, class_names=np.array([b"cat", "hög".encode(), b"dog"]))).class_names[1] == "hög"


def test_labels_of_noise_are_named_too(tmp_path: Path) -> None:
    noisy = np.where(LABELS == 0, 1, LABELS)
    with pytest.raises(InputError, match="noisy=labels 1 to 2: expected labels from 0, as noisy - 1"):
        read(stored(tmp_path, noisy=noisy), train_labels="noisy")


@pytest.mark.parametrize("form", [float, np.float16, bool, np.uint8, ">i8"])
def test_labels_of_other_types_are_read(tmp_path: Path, form: Any) -> None:
    labels = (LABELS > 0).astype(form)
    assert read(stored(tmp_path, train_y=labels, test_y=labels)).train.labels.tolist() == (LABELS > 0).tolist()


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((6, 5, 3), 3),
        ((6, 6, 4), 4),
        ((9, 9, 200), 200),
        ((12, 12, 2), 2),
        ((2, 4, 1), 1),
        ((20, 30, 4), 4),
        ((1, 1, 7), 7),
        ((7, 1, 1), None),
        ((4, 12, 12), None),
        ((12, 9, 9), None),
        ((1, 8, 8), None),
        ((3, 20, 30), None),
        ((28, 28, 28), None),
        ((3, 3, 3), None),
        ((16, 20, 30), None),
        ((20, 30, 12), None),
    ],
)
def test_the_shape_tells_where_channels_are_or_is_refused(
    tmp_path: Path, shape: tuple[int, ...], channels: int | None
) -> None:
    array = RNG.integers(0, 256, (24, *shape), dtype=np.uint8)
    array[0] = 255
    path = stored(tmp_path, train_x=array, test_x=array)
    if channels is not None:
        np.testing.assert_allclose(pixels(read(path)), np.moveaxis(array, 3, 1) / 255, rtol=1e-6)
        return
    with pytest.raises(InputError, match=r"train_x=array of shape .*data\.channels=.*volumes .* are no pictures"):
        read(path)
    np.testing.assert_allclose(pixels(read(path, channels=Channels.first)), array / 255, rtol=1e-6)
    found = pixels(read(path, channels=Channels.last))
    np.testing.assert_allclose(found, np.moveaxis(array, 3, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("names", ["x_{0} y_{0}", "X_{0} y_{0}", "X_{0} Y_{0}", "{0}_images {0}_labels"])
@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_names_of_others_are_read(tmp_path: Path, names: str, validation: str) -> None:
    arrays = {}
    for part, rows in (("train", 24), (validation, 6), ("test", 9)):
        x, y = names.format(part).split()
        arrays |= {x: BYTES[:rows], y: LABELS[:rows]}
    found = read(stored(tmp_path, train_x=None, train_y=None, test_x=None, test_y=None, **arrays))
    assert found.validation is not None
    assert found.test is not None
    assert [len(found.train), len(found.validation), len(found.test)] == [24, 6, 9]


def test_test_is_drawn_from_training_if_there_is_none(tmp_path: Path) -> None:
    path = stored(tmp_path, test_x=None, test_y=None)
    spec = data(source=Source.npz, harm=Harm.none, path=path, validation_size=6, test_size=9)
    found = load(spec, seed=0)
    assert [len(split) for split in found.splits.values()] == [9, 6, 9]
    assert set.union(*(set(split.ids.tolist()) for split in found.splits.values())) == set(range(24))
    with pytest.raises(InputError, match=r"data\.test_size=null: expected a number: the source has no such split"):
        load(data(source=Source.npz, harm=Harm.none, path=path, validation_size=6, test_size=None), seed=0)


def test_a_class_with_a_single_sample_is_named(tmp_path: Path) -> None:
    path = stored(tmp_path, train_y=np.where(np.arange(24) == 5, 2, np.arange(24) % 2))
    spec = data(source=Source.npz, harm=Harm.none, path=path, validation_size=6, test_size=None)
    with pytest.raises(
        InputError, match=r"data\.path=.*my\.npz, train_y: one sample has the label 2; expected two"
    ):
        load(spec, seed=0)


def test_what_is_not_read_or_dark_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read(stored(tmp_path, train_x=BYTES // 16, test_x=BYTES // 16, dev_x=BYTES, train_y_noisy=LABELS))
    assert "my.npz: arrays that are not read: dev_x" in caplog.text
    assert "train_y_noisy" not in caplog.text
    assert "train_x, test_x: values up to 15 are taken for a part of 0 to 255" in caplog.text


@pytest.mark.parametrize("highest", [3.0, 16.0, 32.0])
def test_floats_of_another_range_are_refused(tmp_path: Path, highest: float) -> None:
    """As those of scikit-learn's digits, up to 16; from 33 on they are in 0 to 255."""
    pictures = BYTES / 255 * highest
    with pytest.raises(InputError, match=r"train_x=array with values up to .*: expected floats in \[0, 1\], or"):
        read(stored(tmp_path, train_x=pictures, test_x=pictures))
