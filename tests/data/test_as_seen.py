"""Pictures of every kind become the pixels that a viewer shows, by values that are worked out here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defense.data.images import as_seen, fitted

SIZE = 4
RAMP = np.arange(SIZE * SIZE, dtype=np.float64).reshape(SIZE, SIZE) / (SIZE * SIZE - 1)  # 0 to 1


def pixels(picture: Image.Image | bytes, form: str = "PNG", **options: object) -> np.ndarray:
    """Return what is read back of a picture, uint8 (4, 4, 3)."""
    stream = io.BytesIO(picture if isinstance(picture, bytes) else b"")
    if isinstance(picture, Image.Image):
        picture.save(stream, form, **options)
        stream.seek(0)
    return fitted(stream, size=SIZE)


def grey(values: np.ndarray) -> np.ndarray:
    """Return a grey picture (4, 4) as the three equal channels that it is read as."""
    return np.stack([values] * 3, axis=2)


def pgm(values: np.ndarray, most: int) -> bytes:
    """Return a grey picture of 16 bits as PGM writes it, by hand."""
    return f"P5 {SIZE} {SIZE} {most}\n".encode() + values.astype(">u2").tobytes()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_16_bits_keeps_its_brightness(form: str) -> None:
    values = np.round(RAMP * 65535).astype(np.uint16)
    expected = np.array([[round(int(value) * 255 / 65535) for value in row] for row in values])
    assert np.array_equal(pixels(Image.fromarray(values), form), grey(expected))
    assert expected.min() == 0
    assert expected.max() == 255


@pytest.mark.parametrize("most", [65535, 4095])
def test_a_file_that_says_which_number_is_white_is_taken_at_its_word(most: int) -> None:
    values = np.round(RAMP * most)
    assert pixels(pgm(values, most)) == pytest.approx(grey(255 * values / most), abs=0.51)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, RAMP),
        (2, RAMP[:, ::-1]),
        (3, RAMP[::-1, ::-1]),
        (4, RAMP[::-1]),
        (5, RAMP.T),
        (6, np.rot90(RAMP, -1)),  # taken upright with the camera on its side: shown turned clockwise
        (7, RAMP[::-1, ::-1].T),
        (8, np.rot90(RAMP)),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_picture_is_turned_as_its_camera_was(orientation: int, turned: np.ndarray, kind: type) -> None:
    exif, most = Image.Exif(), np.iinfo(kind).max
    exif[0x0112] = orientation
    picture = Image.fromarray(np.round(RAMP * most).astype(kind))
    assert pixels(picture, exif=exif) == pytest.approx(grey(255 * turned), abs=0.51)


def test_a_palette_is_looked_up() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (16, 3))
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(SIZE, SIZE)).convert("P")
    picture.putpalette(colours.astype(np.uint8).tobytes())
    assert np.array_equal(pixels(picture), colours.reshape(SIZE, SIZE, 3))


def test_inks_take_light_from_white() -> None:
    """What paper leaves of red is what neither cyan nor black takes away."""
    inks = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 4)).astype(np.uint8)
    black = inks[..., 3:] / 255
    expected = 255 * (1 - inks[..., :3] / 255) * (1 - black)
    assert pixels(Image.fromarray(inks, mode="CMYK"), "TIFF") == pytest.approx(expected, abs=1.01)


def test_what_is_transparent_lies_on_white() -> None:
    drawn = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 4)).astype(np.uint8)
    drawn[0, 0], drawn[0, 1] = (10, 20, 30, 0), (10, 20, 30, 255)
    cover = drawn[..., 3:] / 255
    expected = drawn[..., :3] * cover + 255 * (1 - cover)
    assert pixels(Image.fromarray(drawn)) == pytest.approx(expected, abs=1.01)
    grey_alpha = Image.fromarray(drawn[..., [0, 3]], mode="LA")
    assert pixels(grey_alpha) == pytest.approx(grey(expected[..., 0]), abs=1.01)


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_the_transparent_colour_of_a_palette_is_white(form: str) -> None:
    picture = Image.new("P", (SIZE, SIZE), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((2, 1), 0)
    expected = np.full((SIZE, SIZE, 3), (0, 0, 255))
    expected[1, 2] = 255
    assert np.array_equal(pixels(picture, form, transparency=0), expected)


@pytest.mark.parametrize(("mode", "kept"), [("1", "L"), ("L", "L"), ("RGB", "RGB"), ("YCbCr", "RGB")])
def test_what_is_grey_stays_so(mode: str, kept: str) -> None:
    assert as_seen(Image.new("RGB", (3, 3), "white").convert(mode)).mode == kept


def test_a_number_without_a_white_is_refused(tmp_path: Path) -> None:
    Image.new("I", (3, 3), 70_000).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match="mode I; expected 8 or 16 bits per channel"):
        fitted(tmp_path / "deep.tif", size=3)
