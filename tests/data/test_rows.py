"""Columns that are constant in training carry nothing; each is standardised by a deviation of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.preprocessing import StandardScaler

from defense.data.images import FolderImages, TensorImages
from defense.data.overlays import Stamped
from defense.data.splits import SAMPLE, Dataset, Split, looked_at
from defense.errors import InputError
from tests.data.test_table import ROWS, loaded, people


@pytest.mark.parametrize(
    ("value", "other"),
    [(1, 1), (1, 2), (-2.5, 7), ("north", "north"), ("north", "south"), (True, True), (True, False)],
)
def test_a_constant_column_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: object, other: object
) -> None:
    caplog.set_level(logging.INFO)
    table, test = people().assign(region=value), people(8).assign(region=other)
    found, without = loaded(tmp_path, table, test), loaded(tmp_path, people(), people(8))
    for part in ("train", "validation", "test"):
        assert found.splits[part].digests == without.splits[part].digests
    assert "left out as constant: column region" in caplog.text
    assert ("not so in rows: 8 of test" in caplog.text) is (other != value)
    assert "'data.drop=[region]'" in caplog.text


def test_a_column_that_differs_by_rounding_is_constant(tmp_path: Path) -> None:
    sums = [sum([0.1] * 3) if row % 2 else 0.3 for row in range(ROWS)]
    assert len(set(sums)) == 2
    assert loaded(tmp_path, people().assign(rate=sums)).shape == loaded(tmp_path, people()).shape


def test_a_column_that_is_constant_in_the_rows_that_are_trained_on_is_left_out(tmp_path: Path) -> None:
    """Others are in the file alone."""
    usual = loaded(tmp_path, people())
    table = people().assign(region=0)
    table.loc[int(usual.test.ids[0]), "region"] = 1
    found = loaded(tmp_path, table)
    assert found.train.digests == usual.train.digests
    assert found.test.digests == usual.test.digests


def test_without_any_other_column_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.columns=a, b: each has one value in all training rows"):
        loaded(tmp_path, people().assign(a=1, b="x"), columns=["a", "b"])


def dataset(images: Any) -> Dataset:
    ids = torch.arange(len(images))
    split = Split(ids, images, ids % 2, ids % 2)
    return Dataset(split, split, split, ["0", "1"], noise_known=False)


def test_all_samples_in_memory_are_standardised_by() -> None:
    """Sorted ones, too: the last come after more than are looked at in files. The truth is scikit-learn's."""
    count = SAMPLE + 2000
    values = np.linspace(0, 1, 2 * count).reshape(count, 2) ** 3
    values[:SAMPLE, 1] = 0.25
    mean, deviation = dataset(TensorImages(torch.from_numpy(values).float()[:, :, None, None])).pixel_statistics
    scaler = StandardScaler().fit(values.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose([mean, deviation], [scaler.mean_, scaler.scale_], rtol=1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_constant_channel_is_divided_by_1(kind: torch.dtype) -> None:
    pixels = torch.randint(0, 255, (50, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[:, 1] = 77
    images = TensorImages(pixels if kind is torch.uint8 else pixels.float() / 255)
    values = images.take(torch.arange(50)).double().transpose(0, 1).flatten(1).T.numpy()
    mean, deviation = dataset(images).pixel_statistics
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-9)
    np.testing.assert_allclose(deviation, [values[:, 0].std(), 1, values[:, 2].std()], rtol=1e-9)


def test_nearly_constant_channels_do_not_blow_up() -> None:
    steps = torch.tensor([0.5, 0.5 + 1e-4]).repeat(30)[:, None, None, None]
    assert dataset(TensorImages(steps)).pixel_statistics[1] == [1.0]


def test_pictures_in_files_are_looked_at_evenly(tmp_path: Path) -> None:
    paths = [tmp_path / "one.png"] * (3 * SAMPLE)
    files = FolderImages(paths, 4)
    marked = Stamped(files, torch.zeros(len(paths), dtype=torch.bool), 1)
    for images in (files, marked):
        assert torch.equal(looked_at(images), torch.arange(0, 3 * SAMPLE, 3))
    assert torch.equal(looked_at(FolderImages(paths[:7], 4)), torch.arange(7))
    assert len(looked_at(TensorImages(torch.zeros(SAMPLE + 1, 1, 1, 1)))) == SAMPLE + 1


def test_files_are_standardised_by_their_pixels(tmp_path: Path) -> None:
    for row in range(4):
        Image.new("RGB", (4, 4), (60 * row, 7, 255 - 60 * row)).save(tmp_path / f"{row}.png")
    images = FolderImages([tmp_path / f"{row}.png" for row in range(4)], 4)
    mean, deviation = dataset(images).pixel_statistics
    red = np.arange(4) * 60 / 255
    np.testing.assert_allclose(mean, [red.mean(), 7 / 255, 1 - red.mean()], rtol=1e-6)
    np.testing.assert_allclose(deviation, [red.std(), 1, red.std()], rtol=1e-6)
