"""Datasets of torch in a file of the user: every form that items have, and one line for what is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from defense.config.choices import Channels, Harm, Source
from defense.data.images import TensorImages
from defense.data.load import load
from defense.data.splits import Dataset
from defense.errors import InputError
from tests.conftest import TINY, computed_in, data, run_in

HEAD = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, DataLoader, Subset, TensorDataset

class Pictures(Dataset):
    def __init__(self, count=24, side=4, shift=0):
        self.count, self.side, self.shift = count, side, shift
    def __len__(self):
        return self.count
    def __getitem__(self, number):
        if number >= self.count:
            raise IndexError(number)
        return torch.full((1, self.side, self.side), number + self.shift, dtype=torch.uint8), number % 3

def items(picture=None, label=None, count=24):
    '''A list of pairs: it has a length, and gives items by number.'''
    return [
        (torch.zeros(1, 4, 4) if picture is None else picture(n), n % 3 if label is None else label(n))
        for n in range(count)
    ]
"""
NUMBERS = count()
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a module of the user, and returns the dotted path of its `make`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def module(body: str) -> str:
        name = f"my_sets_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(f"{HEAD}\n{body}\n")
        return f"{name}.make"

    return module


def loaded(path: str, **changes: Any) -> Dataset:
    usual = {"validation_size": 6, "test_size": 6, "harm": Harm.none, "arguments": {}}
    return load(data(source=Source.dataset, **usual | changes, _target_=path), seed=0)


def pixels(images: Any) -> torch.Tensor:
    """Return the pixels as they are held."""
    assert isinstance(images, TensorImages)
    return images.pixels


def test_one_dataset_is_divided(write: Write) -> None:
    found = loaded(write("make = Pictures"))
    assert [len(split) for split in found.splits.values()] == [12, 6, 6]
    assert sorted(id for split in found.splits.values() for id in split.ids.tolist()) == [*range(24)]
    for split in found.splits.values():
        assert pixels(split.images)[:, 0, 0, 0].tolist() == split.ids.tolist()
        assert split.labels.tolist() == [id % 3 for id in split.ids.tolist()]
    assert found.class_names == ["0", "1", "2"]
    assert found.names_of([3, 5]) == ["3", "5"]


@pytest.mark.parametrize(
    ("body", "sizes", "changes"),
    [
        ("def make():\n return {'train': Pictures(), 'test': Pictures(9)}", [18, 6, 9], {"test_size": None}),
        ("def make():\n return {'train': Pictures(), 'valid': Pictures(9)}", [18, 6, 6], {}),
        ("def make():\n return Pictures(), None, Pictures(9)", [18, 6, 9], {"test_size": None}),
        (
            "def make():\n return Pictures(), Pictures(9), Pictures(12)",
            [24, 9, 12],
            {"test_size": None, "validation_size": None},
        ),
        (
            "def make(root, *, count):\n assert root == 'here'\n return Pictures(count)",
            [9, 6, 6],
            {"arguments": {"root": "here", "count": 21}},
        ),
        ("make = lambda: Subset(Pictures(), range(21))", [9, 6, 6], {}),
        ("make = lambda: TensorDataset(torch.rand(24, 1, 4, 4), torch.arange(24) % 3)", [12, 6, 6], {}),
    ],
)
def test_parts_are_returned_in_several_ways(
    write: Write, body: str, sizes: list[int], changes: dict[str, Any]
) -> None:
    assert [len(split) for split in loaded(write(body), **changes).splits.values()] == sizes


RAMP = np.arange(16, dtype=np.float64).reshape(4, 4) / 15  # of a picture, in [0, 1]
COLOURED = np.stack([RAMP, RAMP.T, 1 - RAMP])  # (C, H, W)
KINDS: dict[str, tuple[str, np.ndarray, dict[str, Any]]] = {
    "tensor of floats": ("torch.tensor(C).float()", COLOURED, {}),
    "tensor of doubles": ("torch.tensor(C)", COLOURED, {}),
    "tensor of bytes": ("(torch.tensor(C) * 255).round().byte()", COLOURED, {}),
    "tensor without channels": ("torch.tensor(C[0])", COLOURED[:1], {}),
    "tensor of three columns": ("torch.tensor(C[:, :, :3])", COLOURED[:, :, :3], {}),
    "array": ("C.transpose(1, 2, 0)", COLOURED, {}),
    "array of bytes": ("(255 * C.transpose(1, 2, 0)).round().astype(np.uint8)", COLOURED, {}),
    "array with channels first": ("C", COLOURED, {"channels": Channels.first}),
    "array without channels": ("C[0]", COLOURED[:1], {}),
    "array of truths": ("C[0] > 0.5", COLOURED[:1] > 0.5, {}),
    "picture": ("Image.fromarray((255 * C.transpose(1, 2, 0)).round().astype(np.uint8))", COLOURED, {}),
    "grey picture": ("Image.fromarray((255 * C[0]).round().astype(np.uint8))", COLOURED[:1], {}),
    "deep picture": ("Image.fromarray((65535 * C[0]).round().astype(np.uint16))", COLOURED[:1], {}),
    "rounded": ("torch.tensor(C) * (1 + 1e-7)", COLOURED, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_has_its_values_whatever_made_it(write: Write, kind: str) -> None:
    code, expected, changes = KINDS[kind]
    body = f"C = np.array({COLOURED.tolist()})\nmake = lambda: items(lambda n: {code})"
    found = loaded(write(body), **changes)
    assert found.shape == expected.shape
    taken = found.train.images.take(torch.arange(2))
    assert taken.dtype == torch.float32
    assert taken.numpy() == pytest.approx(np.stack([expected] * 2).astype(float), abs=0.51 / 255)


@pytest.mark.parametrize("label", ["n % 3", "np.int16(n % 3)", "torch.tensor(n % 3)", "np.array([n % 3])"])
def test_a_label_is_a_whole_number(write: Write, label: str) -> None:
    found = loaded(write(f"make = lambda: items(None, lambda n: {label})"))
    assert found.train.labels.tolist() == [id % 3 for id in found.train.ids.tolist()]


def test_classes_and_samples_have_the_names_that_the_datasets_give(write: Write) -> None:
    body = """
def make():
    train, test = Pictures(), Pictures(9)
    train.classes, train.ids, test.ids = ("cat", "dog", "hen"), [f"a{n}" for n in range(24)], np.arange(9) * 10
    return {"train": train, "test": test}
"""
    found = loaded(write(body), test_size=None)
    assert found.class_names == ["cat", "dog", "hen"]
    assert found.names_of(found.train.ids.numpy()) == [f"a{id}" for id in found.train.ids.tolist()]
    assert found.names_of(found.test.ids.numpy()) == [str(10 * n) for n in range(9)]


REFUSED: dict[str, tuple[str, str]] = {
    "shapes": (
        "make = lambda: items(lambda n: torch.zeros(1, 4, 4 + (n == 7)))",
        "item 7 of train has the shape (1, 4, 5), item 0 of train (1, 4, 4); expected one shape for all",
    ),
    "shapes of parts": (
        "make = lambda: {'train': Pictures(), 'test': Pictures(side=5)}",
        "item 0 of test has the shape (1, 5, 5), item 0 of train (1, 4, 4); expected one shape",
    ),
    "types": (
        "make = lambda: items(lambda n: torch.zeros(1, 4, 4) if n else torch.zeros(1, 4, 4).byte())",
        "item 1 of train is of type float32, item 0 of train uint8; expected one type for all",
    ),
    "one-hot": (
        "make = lambda: items(None, lambda n: torch.eye(3)[n % 3])",
        "item 0 of train: its label has the shape (3,): one-hot; expected an int, as int(label.argmax())",
    ),
    "several labels": (
        "make = lambda: items(None, lambda n: [1, 0, 1])",
        "item 0 of train: its label has the shape (3,): several numbers; expected one int",
    ),
    "floats": (
        "make = lambda: items(None, lambda n: float(n % 3))",
        "item 0 of train: its label is the float 0; expected an int, as int(label)",
    ),
    "texts": (
        "make = lambda: items(None, lambda n: 'cat')",
        "item 0 of train: its label is the text 'cat'; expected an int, as classes.index('cat')",
    ),
    "no label": (
        "make = lambda: items(None, lambda n: {'a': 1})",
        "item 0 of train: its label is a dict; expected an int, the number of its class",
    ),
    "negative": (
        "make = lambda: items(None, lambda n: n % 3 - 1)",
        "item 0 of train: its label is -1; expected ints from 0 up",
    ),
    "from one": (
        "make = lambda: items(None, lambda n: n % 3 + 1)",
        "labels 1 to 3: expected labels from 0, as labels of train - 1",
    ),
    "a gap": ("make = lambda: items(None, lambda n: n % 3 * 2)", "no sample has label 1; expected labels without"),
    "a label of test alone": (
        "make = lambda: {'train': Pictures(), 'test': items(lambda n: Pictures()[9][0], lambda n: n)}",
        "label 23: expected labels in [0, 2], as in the known training labels",
    ),
    "normalised": (
        "make = lambda: items(lambda n: torch.full((1, 4, 4), -2.1))",
        "item 0 of train: its picture has values from -2.1 to -2.1; expected uint8, or floats in [0, 1]: leave "
        "transforms.Normalize out",
    ),
    "to 255": (
        "make = lambda: items(lambda n: torch.full((1, 4, 4), 255.0))",
        "its picture has values from 255 to 255; expected uint8, or floats in [0, 1]: divide by 255",
    ),
    "NaN": (
        "make = lambda: items(lambda n: torch.full((1, 4, 4), float('nan')))",
        "its picture has values from nan to nan; expected uint8, or floats in [0, 1]",
    ),
    "int64": (
        "make = lambda: items(lambda n: torch.full((1, 4, 4), 3))",
        "its picture is of type int64; expected uint8, or floats in [0, 1]",
    ),
    "bytes of two values": (
        "make = lambda: items(lambda n: torch.ones(1, 4, 4).byte())",
        "pictures of train=array with values up to 1 of type uint8",
    ),
    "axes": (
        "make = lambda: items(lambda n: torch.zeros(2, 1, 4, 4))",
        "its picture has the shape (2, 1, 4, 4); expected (C, H, W)",
    ),
    "array with channels first": (
        "make = lambda: items(lambda n: np.zeros((3, 8, 8)))",
        "its picture has the shape (3, 8, 8); channels come last: expected (n, H, W, C), or data.channels=first",
    ),
    "no picture": (
        "make = lambda: items(lambda n: 'a.png')",
        "item 0 of train: its picture is a str; expected a tensor, an array or a picture of Pillow",
    ),
    "32 bits": (
        "make = lambda: items(lambda n: Image.new('I', (4, 4)))",
        "item 0 of train: a picture of mode I; expected 8 or 16 bits per channel",
    ),
    "random": (
        "make = lambda: items(lambda n: torch.rand(1, 4, 4))\nclass make(Pictures):\n"
        "    def __getitem__(self, n):\n        return torch.rand(1, 4, 4), n % 3",
        "item 0 of train is another picture each time; expected the same: leave random transforms to train.crop",
    ),
    "a dict": (
        "make = lambda: [{'pixels': 1, 'labels': 2}]",
        "item 0 of train is a dict of 2; expected a pair, (picture, label)",
    ),
    "a triple": (
        "make = lambda: [(1, 2, 3)]",
        "item 0 of train is a tuple of 3; expected a pair, (picture, label)",
    ),
    "a bare picture": ("make = lambda: [torch.zeros(1, 4, 4)]", "item 0 of train is a Tensor; expected a pair"),
    "an item that fails": (
        "class make(Pictures):\n    def __getitem__(self, n):\n        raise OSError('no\\nfile')",
        "item 0 of train fails with OSError: no file",
    ),
    "a function that fails": ("def make():\n    raise RuntimeError('disk')", "fails with RuntimeError: disk"),
    "an argument": ("def make(root):\n    return Pictures()", "fails with TypeError: make() missing 1 required"),
    "empty": ("make = lambda: Pictures(0)", "train has no item; expected samples of each class"),
    "empty test": ("make = lambda: {'train': Pictures(), 'test': []}", "test has no item"),
    "a stream": (
        "class make(IterableDataset):\n    def __iter__(self):\n        yield 1",
        "train is an IterableDataset, which has no number of items; expected a Dataset with __len__ and",
    ),
    "a loader": (
        "make = lambda: {'train': Pictures(), 'test': DataLoader(Pictures())}",
        "test is a DataLoader; expected the Dataset inside it, its attribute dataset",
    ),
    "nothing": ("make = lambda: None", "train is None; expected a Dataset with __len__ and __getitem__"),
    "a pair": (
        "make = lambda: (Pictures(), Pictures())",
        "returns a tuple of 2; expected (train, validation, test), None for what is not there, or a dict",
    ),
    "no train": ("make = lambda: {'fit': Pictures()}", "no train in it; it has fit; expected train"),
    "another part": (
        "make = lambda: {'train': Pictures(), 'extra': Pictures()}",
        "returns extra, too; expected train, validation and test",
    ),
    "two validations": (
        "make = lambda: {'train': Pictures(), 'val': Pictures(), 'valid': Pictures()}",
        "has val and valid, each for validation; expected one of them",
    ),
    "no names of classes": (
        "class make(Pictures):\n    classes = 3",
        "its attribute classes is 3; expected a list of names, one for each class",
    ),
    "a class without samples": (
        "class make(Pictures):\n    classes = list('abcd')",
        "no sample has label 3; expected a sample of each named class",
    ),
    "one of a class": (
        "make = lambda: items(None, lambda n: 2 if n == 5 else n % 2)",
        ", train: one sample has the label 2; expected two at least",
    ),
    "one class": ("make = lambda: items(None, lambda n: 0)", "its training labels are all the same"),
    "ids too few": ("class make(Pictures):\n    ids = [1]", "train has 1 ids; expected 24, one for each item"),
    "an id twice": (
        "class make(Pictures):\n    ids = ['a', 'b'] * 12",
        "the name a is there twice in ids of train; expected one for each sample",
    ),
    "no such name": ("", "cannot be imported (AttributeError"),
    "a module that fails": ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero)"),
    "no function": ("make = 3", "expected a class or a function"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_one_line(write: Write, kind: str) -> None:
    body, said = REFUSED[kind]
    with pytest.raises(InputError) as caught:
        loaded(write(body))
    told = str(caught.value)
    assert said in told
    assert "\n" not in told
    assert re.match(r"(data\.(_target_|source)|labels of train|labels of test|pictures of train)=", told)


def test_a_source_without_a_path_is_said() -> None:
    with pytest.raises(InputError, match=r"data\._target_=null: expected the dotted path of a function that"):
        load(data(source=Source.dataset, harm=Harm.none), seed=0)


def test_a_path_is_of_this_source_alone() -> None:
    from tests.conftest import changed

    with pytest.raises(InputError, match=r"data\._target_=a\.b: not read by data=npz; .* data=dataset"):
        changed("data=npz", "data._target_=a.b")
    with pytest.raises(
        InputError, match=r"data\.arguments=.*: not read by data=digits; expected {}, or data=data"
    ):
        changed("data.arguments={a: 1}")


def test_pictures_are_turned_as_a_camera_was_held(write: Write, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    shades = np.array([[0, 50, 100], [150, 200, 250]], dtype=np.uint8)
    Image.fromarray(shades).save(tmp_path / "turned.png", exif=exif)
    found = loaded(write(f"make = lambda: items(lambda n: Image.open({str(tmp_path / 'turned.png')!r}))"))
    assert pixels(found.train.images)[0, 0].tolist() == np.rot90(shades, -1).tolist()


SIZES = ["data.train_size=60", "data.validation_size=20", "data.test_size=20"]


def test_a_run_reads_what_the_files_of_a_dataset_say_now(write: Write, tmp_path: Path) -> None:
    """In one process, too; a change that makes no picture another computes nothing anew."""
    shades = np.random.default_rng(0).integers(0, 256, (120, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "shades.npy", shades)
    body = """
def make(file, spare=0):
    shades = np.load(file)
    found = items(lambda n: torch.from_numpy(shades[n])[None], count=len(shades))
    return TensorDataset(torch.stack([x for x, _ in found]), torch.tensor([y for _, y in found]))
"""
    usual = [word for word in TINY if not word.startswith("data.")]
    words = [
        *usual, "data=dataset", *SIZES, "task=detect", "data.harm=symmetric", "scorer=loss",
        f"store={tmp_path}/store",
        f"data._target_={write(body)}", f"+data.arguments.file={tmp_path / 'shades.npy'}", "model.hidden=[4]",
    ]  # fmt: skip
    run_in(tmp_path / "first", *words)
    run_in(tmp_path / "same", *words, "+data.arguments.spare=1")
    assert computed_in(tmp_path / "same") == set()
    np.save(tmp_path / "shades.npy", shades[::-1])
    run_in(tmp_path / "other", *words)
    assert {"train_baseline", "score"} <= computed_in(tmp_path / "other")


def test_the_command_reads_a_file_beside_it(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    body = """
def make_dataset(shift):
    return {"train": Pictures(120, shift=shift), "test": Pictures(60, shift=shift)}
"""
    (tmp_path / "sets_beside.py").write_text(HEAD + body)
    code, _, told = command(
        "data._target_=sets_beside.make_dataset", "data.arguments.shift=5", "data.validation_size=30",
        "task=detect", "data.harm=symmetric", "scorer=loss", "train.epochs=1", "model.hidden=[4]",
        "hydra.run.dir=run",
    )  # fmt: skip
    assert code == 0, told
    scores = pd.read_parquet(tmp_path / "run/scores.parquet")
    assert len(scores) == 90
    assert scores["truth"].tolist() == [id % 3 for id in scores["id"]]
