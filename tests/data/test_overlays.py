"""Changed pictures look like a tensor in which they were changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from defense.data.images import FolderImages, Images, TensorImages
from defense.data.overlays import Joined, Overlaid, Stamped, in_files, stamp

ROWS = torch.tensor([7, 0, 3])


@pytest.fixture(params=["uint8", "float", "folder"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Images:
    """Eight pictures of 3x4x4, in every form."""
    pixels = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if request.param == "folder":
        for row, picture in enumerate(pixels):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{row}.png")
        return FolderImages([tmp_path / f"{row}.png" for row in range(8)], 4)
    return TensorImages(pixels if request.param == "uint8" else pixels.float() / 255)


def test_overlaid(base: Images) -> None:
    pixels = torch.rand((3, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    dense = base.take(torch.arange(8)).clone()
    for row, picture in zip(ROWS.tolist(), pixels, strict=True):
        dense[row] = picture
    images = Overlaid(base, ROWS, pixels)
    alike(images, dense)
    assert images.digest() == Overlaid(base, ROWS.flip(0), pixels.flip(0)).digest()
    others = [
        Overlaid(base, ROWS, pixels.roll(1, 0)),
        Overlaid(base, torch.tensor([7, 0, 4]), pixels),
        Overlaid(base, ROWS, pixels.clone().index_fill_(0, torch.tensor([1]), 0)),
        Overlaid(base.subset(torch.arange(8).flip(0)), ROWS, pixels),
    ]
    assert len({image.digest() for image in (images, *others)} | {base.digest()}) == 6


@pytest.mark.parametrize("side", [1, 2, 4])
def test_stamped(base: Images, side: int) -> None:
    marked = torch.zeros(8, dtype=torch.bool).index_fill_(0, ROWS, True)
    dense = base.take(torch.arange(8)).clone()
    for row in ROWS.tolist():
        for i in range(side):
            for j in range(side):
                dense[row, :, 3 - i, 3 - j] = float((i + j) % 2 == 0)
    images = Stamped(base, marked, side)
    alike(images, dense)
    others = [Stamped(base, ~marked, side), Stamped(base, marked, 3)]
    assert len({image.digest() for image in (images, *others)} | {base.digest()}) == 4


def test_joined(base: Images) -> None:
    """Three and five of eight pictures, of which the latter come in another form."""
    dense = base.take(torch.arange(8)).clone()
    first, other = base.subset(torch.arange(3)), TensorImages(dense[3:])
    images = Joined(first, Overlaid(other, torch.tensor([0]), 1 - dense[3:4]))
    dense[3] = 1 - dense[3]
    alike(images, dense)
    assert torch.equal(images.take(torch.tensor([1, 0])), dense[[1, 0]])  # of the first alone
    assert torch.equal(images.take(torch.tensor([7, 4])), dense[[7, 4]])  # of the second alone
    assert in_files(images) == isinstance(base, FolderImages)
    assert in_files(Joined(other, first)) == isinstance(base, FolderImages)
    others = [Joined(first, other), images.subset(torch.arange(7)), images.subset(torch.arange(8).flip(0))]
    assert len({image.digest() for image in (images, *others)}) == 4


def alike(images: Images, dense: torch.Tensor) -> None:
    """Hold `images` against pictures that lie in one tensor."""
    assert (len(images), images.shape) == (8, (3, 4, 4))
    assert torch.equal(images.take(torch.arange(8)), dense)
    assert torch.equal(images.take(torch.tensor([1, 2])), dense[1:3])  # none of them is changed
    chosen, again = torch.tensor([5, 3, 3, 7, 1]), torch.tensor([4, 0, 3])
    assert torch.equal(images.take(chosen), dense[chosen])
    assert torch.equal(images.subset(chosen).take(torch.arange(5)), dense[chosen])
    assert torch.equal(images.subset(chosen).subset(again).take(torch.arange(3)), dense[chosen][again])
    assert torch.equal(images.to(torch.device("cpu")).take(chosen), dense[chosen])
    assert images.to(torch.device("cpu")).digest() == images.digest()
    assert images.subset(torch.arange(8)).digest() == images.digest()


def test_a_stamp_leaves_its_input() -> None:
    x = torch.full((1, 1, 4, 4), 0.5)
    stamp(x, 2)
    assert torch.equal(x, torch.full((1, 1, 4, 4), 0.5))
