"""Pictures, held in memory on the device or read from files batch by batch; both look the same to users."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from defense.errors import InputError

MOST = 10**8  # pixels of a picture that is scaled
DECODING = 2  # raise it if files become other pixels: stages on them are computed anew
DEEP = ("PNG", "PPM")  # formats whose mode I is of 16 bits: others leave open which number is white
STILLS = ("MPO", "PSD")  # formats whose first frame is the picture: others are previews, depths or layers


class Images(Protocol):
    """n pictures of one shape (C, H, W); a batch is float32 in [0, 1] on the device."""

    shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor:
        """Return the pictures at `indices` as float32 (b, C, H, W) in [0, 1]."""
        ...

    def subset(self, indices: Tensor) -> Images:
        """Return the pictures at `indices`, in that order."""
        ...

    def to(self, device: torch.device) -> Images:
        """Return the same pictures with their batches on `device`."""
        ...

    def digest(self) -> str:
        """Return a hash of the content."""
        ...


class TensorImages:
    """Pictures in one tensor (n, C, H, W): uint8 in [0, 255], or float32 in [0, 1]."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels
        channels, height, width = pixels.shape[1:]
        self.shape = (channels, height, width)

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: Tensor) -> Tensor:
        """Return the pictures at `indices` as float32 (b, C, H, W) in [0, 1]."""
        batch = self.pixels[indices.to(self.pixels.device, non_blocking=True)]  # does not wait for a GPU
        return batch.float() / 255 if batch.dtype == torch.uint8 else batch

    def subset(self, indices: Tensor) -> TensorImages:
        """Return the pictures at `indices`, in that order."""
        return type(self)(self.pixels[indices.to(self.pixels.device)])

    def to(self, device: torch.device) -> TensorImages:
        """Return the same pictures on `device`."""
        return type(self)(self.pixels.to(device))

    def digest(self) -> str:
        """Return a hash of the pixels."""
        form = f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
        return hashlib.sha256(form.encode() + self.pixels.cpu().numpy().tobytes()).hexdigest()


class FolderImages:
    """Pictures in files, decoded and fitted to one square size when a batch asks for them."""

    def __init__(self, paths: list[Path], size: int, device: torch.device | None = None) -> None:
        self.paths, self.size, self.device = paths, size, device or torch.device("cpu")
        self.shape = (3, size, size)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Tensor) -> Tensor:
        """Return the pictures at `indices` as float32 (b, 3, size, size) in [0, 1]."""
        chosen = [self.paths[i] for i in indices.tolist()]
        with ThreadPoolExecutor() as pool:
            pixels = np.stack(list(pool.map(partial(decode, size=self.size), chosen)))
        batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        return batch.contiguous().float() / 255  # as from memory: noise is drawn in the order of memory

    def subset(self, indices: Tensor) -> FolderImages:
        """Return the pictures at `indices`, in that order."""
        return FolderImages([self.paths[i] for i in indices.tolist()], self.size, self.device)

    def to(self, device: torch.device) -> FolderImages:
        """Return the same pictures with their batches on `device`."""
        return FolderImages(self.paths, self.size, device)

    def digest(self) -> str:
        """Return a hash of names, sizes and times of change: reading every picture would take too long.

        Raises InputError for a file that is gone.
        """
        found = hashlib.sha256(f"({DECODING}, {self.size}, [".encode())  # of a tuple's repr, one file at a time
        for number, path in enumerate(self.paths):
            try:
                about = path.stat()
            except OSError as error:
                raise InputError("data.path", path, f"not a readable picture ({error.strerror})") from error
            file = (path.as_posix(), about.st_size, about.st_mtime_ns)
            found.update(f"{', ' if number else ''}{file!r}".encode())
        found.update(b"])")
        return found.hexdigest()


def decode(path: Path, *, size: int) -> np.ndarray:
    """Return one picture as uint8 (size, size, 3); raises InputError that names the file if it cannot be read."""
    try:
        return fitted(path, size=size)
    except Exception as error:  # decoders raise whatever they meet in a broken file
        raise InputError("data.path", path, f"not a readable picture ({reason(error)})") from error


def fitted(file: Path | BinaryIO, *, size: int) -> np.ndarray:
    """Return one picture as uint8 (size, size, 3): short side scaled to `size`, then the middle cut out.

    Raises ValueError for one that `as_seen` refuses, and what its decoder raises.
    """
    with Image.open(file) as picture:
        rgb = as_seen(picture).convert("RGB")
    scale = size / min(rgb.size)
    width, height = (max(size, round(side * scale)) for side in rgb.size)
    if width * height > MOST:
        raise ValueError(f"{rgb.width} x {rgb.height} pixels are too narrow to be fitted to {size}")
    left, top = (width - size) // 2, (height - size) // 2
    scaled = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))


def as_seen(picture: Image.Image) -> Image.Image:
    """Return a picture in 8 bits, of mode L if it is grey and RGB otherwise, as a viewer shows it on a white page.

    It is turned as its EXIF data say; 16 bits are brought to 8, of which 65535 is 255. Raises ValueError for
    several frames, and for numbers that leave open which of them is white.
    """
    if getattr(picture, "is_animated", False) and picture.format not in STILLS:
        raise ValueError(f"{getattr(picture, 'n_frames', 'several')} frames; expected one")
    deep = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in DEEP)
    if picture.mode.startswith(("I", "F")) and not deep:
        raise ValueError(f"a picture of mode {picture.mode}; expected 8 or 16 bits per channel")
    turned = ImageOps.exif_transpose(picture)
    if deep:
        return Image.fromarray(np.rint(np.asarray(turned) / 257).astype(np.uint8))
    if turned.has_transparency_data:
        clear = turned.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return turned.convert("L" if turned.mode in ("1", "L") else "RGB")


def reason(error: Exception) -> str:
    """Return the reason that a picture cannot be read, from its decoder's error."""
    if isinstance(error, UnidentifiedImageError):
        return "no picture that Pillow knows"
    named = not isinstance(error, ValueError | OSError)
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {said}" if named else said
