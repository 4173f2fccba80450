"""Folders of pictures: all that Pillow reads is read, and what cannot be read is named before any compute."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from defense.config.choices import Harm, Source, Unreadable
from defense.data import readable
from defense.data.images import FolderImages, TensorImages, decode
from defense.data.load import load
from defense.data.sources import SOURCES
from defense.data.splits import Dataset
from defense.errors import InputError
from tests.conftest import data

SIZE = 6


def picture(shade: int = 90) -> Image.Image:
    return Image.new("RGB", (9, 7), (shade, 40, 255 - shade))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 8 pictures to train on and 4 for test."""
    for part, count in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                picture(number).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def loaded(folder: Path, cache: Path | None = None, **changes: Any) -> Dataset:
    usual = {"validation_size": 4, "test_size": None, "image_size": SIZE, "harm": Harm.none}
    return load(data(source=Source.image_folder, path=str(folder), **usual | changes), seed=0, cache=cache)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


ENDINGS = [(".gif", "GIF"), (".jfif", "JPEG"), (".avif", "AVIF"), (".webp", "WEBP"), (".bmp", "BMP"), ("", "PNG")]
ENDINGS += [
    (".JPG", "JPEG"),
    (".ppm", "PPM"),
    (".ico", "ICO"),
    (".unknown", "PNG"),
    (".tif", "TIFF"),
    (".jpg", "MPO"),
]


@pytest.mark.parametrize(("ending", "form"), ENDINGS)
def test_what_pillow_reads_is_read(folder: Path, ending: str, form: str) -> None:
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"no {form} here")
    stream = io.BytesIO()
    picture(200).save(stream, form)
    (folder / "train" / "cat" / f"a{ending}").write_bytes(stream.getvalue())
    found = loaded(folder, validation_size=2)
    assert len(found.train) + len(found.validation) == 17
    train = SOURCES[Source.image_folder](data(path=str(folder), image_size=SIZE)).train
    assert isinstance(train.images, FolderImages)
    row = next(row for row, path in enumerate(train.images.paths) if path.stem == "a")
    red = float(train.images.take(torch.tensor([row]))[0, 0].mean())
    assert red == pytest.approx(200 / 255, abs=0.02)


def test_the_order_is_that_of_torchvision(folder: Path) -> None:
    """So that an id names the same picture as before."""
    from torchvision.datasets import ImageFolder

    for name in ("b/1.png", "b-c/1.png", "B.png", "10.png", "9.JPG"):
        path = folder / "train" / "cat" / name
        path.parent.mkdir(exist_ok=True)
        picture().save(path)
    found = SOURCES[Source.image_folder](data(path=str(folder), image_size=SIZE)).train
    assert isinstance(found.images, FolderImages)
    truth = ImageFolder(str(folder / "train"))
    assert [str(path) for path in found.images.paths] == [path for path, _ in truth.samples]
    assert found.labels.tolist() == truth.targets


def test_what_a_system_leaves_is_no_part_of_the_data(folder: Path) -> None:
    usual = loaded(folder)
    for name in (
        "train/.ipynb_checkpoints/1.png",
        "train/__MACOSX/cat/._1.png",
        "train/cat/.DS_Store",
        "train/cat/._1.jpg",
        "train/cat/Thumbs.db",
        "train/dog/.hidden/2.png",
        "__MACOSX/x.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(folder / name, "PNG")
    assert loaded(folder).train.digests == usual.train.digests


def test_other_files_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("train/cat/a.txt", "train/dog/b.txt", "test/dog/c.csv", "train/loose.png", "more/cat/x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no picture")
    assert len(loaded(folder).train) == 12
    assert "files that are no pictures are left out: 1 .csv, 2 .txt" in caplog.text
    assert "train: files outside of class folders are left out: 1 .png" in caplog.text
    assert "folders that are not read: more" in caplog.text


def text_chunk(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * (2 << 20), zip=True)
    picture().save(path, pnginfo=info)


def frames(path: Path) -> None:
    picture(0).save(path, "GIF", save_all=True, append_images=[picture(99), picture(200)])


def many_pixels(path: Path) -> None:
    """Write the head of a picture of 400 million pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"")]
    packed = [struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "no picture that Pillow knows"),
    "garbage": (lambda path: path.write_text("no picture"), "no picture that Pillow knows"),
    "truncated": (lambda path: path.write_bytes(jpeg()[:900]), "runcated"),
    "text": (text_chunk, "Decompressed data too large"),
    "frames": (frames, "3 frames; expected one"),
    "32 bits": (lambda path: Image.new("I", (9, 9), 70_000).save(path, "TIFF"), "mode I; expected 8 or 16 bits"),
    "floats": (lambda path: Image.fromarray(np.ones((9, 9), dtype=np.float32)).save(path, "TIFF"), "mode F"),
    "bomb": (many_pixels, "DecompressionBombError"),
    "narrow": (lambda path: Image.new("RGB", (1, 60_000)).save(path, "BMP"), "too narrow"),
    "link": (lambda path: path.symlink_to("nowhere.png"), "No such file"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("part", ["train", "test"])
def test_what_cannot_be_read_is_named_at_the_start(folder: Path, kind: str, part: str) -> None:
    write, reason = BROKEN[kind]
    write(folder / part / "dog" / "x.png")
    size = 60 if kind == "narrow" else SIZE
    with pytest.raises(InputError) as caught:
        loaded(folder, image_size=size)
    told = str(caught.value)
    assert told.startswith(f"data.path={folder}: 1 of 25 pictures cannot be read: {part}/dog/x.png (")
    assert reason in told
    assert "data.unreadable=skip leaves them out" in told
    assert "\n" not in told
    with pytest.raises(InputError, match=r"x\.png: not a readable picture"):
        decode(folder / part / "dog" / "x.png", size=size)


def test_all_that_cannot_be_read_is_named_at_once_or_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    usual = loaded(folder)
    for number in range(12):
        (folder / "train" / "cat" / f"x{number:02}.jpg").write_bytes(b"")
    (folder / "test" / "dog" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"13 of 37 pictures .*cat/x00\.jpg .*cat/x09\.jpg .* and 3 others; mend"):
        loaded(folder)
    found = loaded(folder, unreadable=Unreadable.skip)
    assert [len(split) for split in found.splits.values()] == [len(split) for split in usual.splits.values()]
    assert len(found.left_out) == 13
    assert found.left_out[0] == "train/cat/x00.jpg (no picture that Pillow knows)"
    assert "data.unreadable=skip: 13 of 37 pictures cannot be read: train/cat/x00.jpg" in caplog.text
    assert usual.left_out == []


def test_a_picture_that_is_gone_is_named(folder: Path) -> None:
    train = loaded(folder).train
    assert isinstance(train.images, FolderImages)
    train.images.paths[3].unlink()
    with pytest.raises(InputError, match=r"png: not a readable picture \(No such file or directory\)"):
        _ = train.digests


def test_a_class_that_is_left_out_whole_is_an_error(folder: Path) -> None:
    for file in (folder / "train" / "cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"data\.unreadable=skip: leaves no picture of class cat in train"):
        loaded(folder, unreadable=Unreadable.skip)


def test_pictures_are_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one of them changes."""
    looked: list[Path] = []
    monkeypatch.setattr(readable, "complaint", lambda path, *, size: looked.append(path))
    cache = folder / "store"
    usual = loaded(folder, cache).train.digests
    assert (len(looked), len(set(looked))) == (24, 24)
    assert loaded(folder, cache).train.digests == usual
    assert len(looked) == 24
    picture(7).save(folder / "test" / "cat" / "1.png")
    os.utime(folder / "test" / "cat" / "1.png", ns=(1, 1))
    loaded(folder, cache)
    assert len(looked) == 48
    files = sorted((cache / readable.FOLDER).iterdir())
    assert [json.loads(file.read_text("utf-8")) for file in files] == [{}, {}]


def test_what_is_remembered_is_what_was_found(folder: Path, tmp_path: Path) -> None:
    (folder / "test" / "cat" / "x.png").write_bytes(b"")
    told = []
    for _ in range(2):
        with pytest.raises(InputError, match=r"test/cat/x\.png") as caught:
            loaded(folder, tmp_path / "store")
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_of_very_many_evenly_spaced_ones_are_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    looked: list[Path] = []
    monkeypatch.setattr(readable, "complaint", lambda path, *, size: looked.append(path))
    monkeypatch.setattr(readable, "MOST", 8)
    loaded(folder)
    assert len(set(looked)) == 8
    assert {path.parts[-3] for path in looked} == {"train", "test"}
    assert "looking at 8 of 24 pictures" in caplog.text


def test_a_cache_that_cannot_be_written_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "file").write_text("in the way")
    assert len(loaded(folder, folder / "file").train) == 12
    assert "cannot keep which pictures can be read" in caplog.text


LAYOUTS: dict[str, tuple[Callable[[Path], Path | None], str]] = {
    "classes alone": (
        lambda top: top / "train",
        "train: no folder train in it, it has the folders cat, dog; expected PATH/train/<class>/<picture>",
    ),
    "a file": (lambda top: top / "train" / "cat" / "1.png", "is a file; expected PATH/train/<class>/<picture>"),
    "empty class": (
        lambda top: (top / "train" / "cow").mkdir(),
        "train/cow: no picture in it; expected pictures of",
    ),
    "class of texts": (
        lambda top: ((top / "train" / "cow").mkdir(), (top / "train" / "cow" / "a.txt").write_text("x"), None)[-1],
        "train/cow: no picture in it but files: 1 .txt",
    ),
    "class in test": (
        lambda top: ((top / "test" / "cow").mkdir(), picture().save(top / "test" / "cow" / "1.png"))[-1],
        "test: its classes differ from those of train in cow",
    ),
    "two spellings": (
        lambda top: ((top / "train" / "Cat").mkdir(), picture().save(top / "train" / "Cat" / "1.png"))[-1],
        "train: has the folders Cat and cat, which name one class",
    ),
    "two validations": (
        lambda top: ((top / "val").mkdir(), (top / "valid").mkdir())[-1],
        "has the folders val and valid; expected one of them",
    ),
    "no class": (
        lambda top: ((top / "new" / "train").mkdir(parents=True), top / "new")[-1],
        "new/train: no folder of classes with pictures in it",
    ),
    "one picture": (
        lambda top: (
            shutil.copytree(top / "train" / "cat", top / "train" / "cow", ignore=shutil.ignore_patterns("[1-9].*"))
            and shutil.copytree(top / "train" / "cow", top / "test" / "cow")
            and None
        ),
        "train: one sample has the label cow; expected two at least",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_of_another_layout_are_one_line(folder: Path, layout: str) -> None:
    change, said = LAYOUTS[layout]
    path = change(folder) or folder
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_that_is_not_in_utf_8_is_named(folder: Path) -> None:
    try:
        os.mkdir(os.fsencode(folder / "train") + b"/B\xe4r")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match=r"train/B\\xe4r: its name is not in UTF-8") as caught:
        loaded(folder)
    str(caught.value).encode()  # can be printed


def test_a_batch_lies_in_memory_as_one_of_arrays_does(folder: Path) -> None:
    """Noise of the same seed then falls on the same pixels."""
    train = loaded(folder).train
    batch = train.images.take(torch.arange(len(train)))
    assert batch.is_contiguous()
    assert torch.equal(batch, TensorImages((255 * batch).round().byte()).take(torch.arange(len(train))))
