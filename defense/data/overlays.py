"""Pictures made of others: some of them changed, or two lots joined. What is not changed stays where it is."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from defense.data.images import FolderImages, Images, TensorImages


class Overlaid:
    """Pictures of `base` with those at `rows` int64 (k,) replaced by `pixels` float32 (k, C, H, W)."""

    def __init__(self, base: Images, rows: Tensor, pixels: Tensor) -> None:
        self.base, self.pixels, self.shape = base, pixels, base.shape
        self.place = torch.full((len(base),), -1)  # where in `pixels` a picture is; -1 where it is in the base
        self.place[rows.cpu()] = torch.arange(len(rows))

    def __len__(self) -> int:
        return len(self.base)

    def take(self, indices: Tensor) -> Tensor:
        """Return the pictures at `indices` as float32 (b, C, H, W) in [0, 1]."""
        batch = self.base.take(indices)
        place = self.place[indices.cpu()].to(self.pixels.device)
        changed = place >= 0
        return batch.index_put((changed.to(batch.device),), self.pixels[place[changed]].to(batch))

    def subset(self, indices: Tensor) -> Overlaid:
        """Return the pictures at `indices`, in that order."""
        place = self.place[indices.cpu()]
        rows = (place >= 0).nonzero().flatten()
        return Overlaid(self.base.subset(indices), rows, self.pixels[place[rows].to(self.pixels.device)])

    def to(self, device: torch.device) -> Overlaid:
        """Return the same pictures with their batches on `device`."""
        rows = (self.place >= 0).nonzero().flatten()
        return Overlaid(self.base.to(device), rows, self.pixels[self.place[rows]].to(device))

    def digest(self) -> str:
        """Return a hash of the base, and of which pictures are changed to what."""
        rows = (self.place >= 0).nonzero().flatten()
        changed = TensorImages(self.pixels[self.place[rows].to(self.pixels.device)]).digest()
        text = f"overlaid {self.base.digest()} {rows.tolist()} {changed}"
        return hashlib.sha256(text.encode()).hexdigest()


class Stamped:
    """Pictures of `base` with a patch of `side` pixels on those that are `marked` bool (n,)."""

    def __init__(self, base: Images, marked: Tensor, side: int) -> None:
        self.base, self.marked, self.side, self.shape = base, marked, side, base.shape

    def __len__(self) -> int:
        return len(self.base)

    def take(self, indices: Tensor) -> Tensor:
        """Return the pictures at `indices` as float32 (b, C, H, W) in [0, 1]."""
        batch = self.base.take(indices)
        marked = self.marked[indices.cpu()].to(batch.device)
        return torch.where(marked.view(-1, 1, 1, 1), stamp(batch, self.side), batch)

    def subset(self, indices: Tensor) -> Stamped:
        """Return the pictures at `indices`, in that order."""
        return Stamped(self.base.subset(indices), self.marked[indices.cpu()], self.side)

    def to(self, device: torch.device) -> Stamped:
        """Return the same pictures with their batches on `device`."""
        return Stamped(self.base.to(device), self.marked, self.side)

    def digest(self) -> str:
        """Return a hash of the base, and of which pictures carry which patch."""
        text = f"stamped {self.base.digest()} {self.side} "
        return hashlib.sha256(text.encode() + self.marked.numpy().tobytes()).hexdigest()


class Joined:
    """Pictures of `first`, and then those of `second`; `rows` int64 (n,) are the places there of those it has."""

    def __init__(self, first: Images, second: Images, rows: Tensor | None = None) -> None:
        self.first, self.second, self.shape = first, second, first.shape
        self.rows = torch.arange(len(first) + len(second)) if rows is None else rows.cpu()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Tensor) -> Tensor:
        """Return the pictures at `indices` as float32 (b, C, H, W) in [0, 1]."""
        rows, order = self.rows[indices.cpu()].sort()  # on the CPU, so that no GPU is waited for
        count = len(self.first)
        early = int((rows < count).sum())
        both = (self.first, rows[:early]), (self.second, rows[early:] - count)
        batch = torch.cat([images.take(own) for images, own in both if len(own) or not len(rows)])
        out = torch.empty_like(batch)
        out[order.to(batch.device, non_blocking=True)] = batch
        return out

    def subset(self, indices: Tensor) -> Joined:
        """Return the pictures at `indices`, in that order."""
        return Joined(self.first, self.second, self.rows[indices.cpu()])

    def to(self, device: torch.device) -> Joined:
        """Return the same pictures with their batches on `device`."""
        return Joined(self.first.to(device), self.second.to(device), self.rows)

    def digest(self) -> str:
        """Return a hash of both, and of the places of those it has."""
        text = f"joined {self.first.digest()} {self.second.digest()} "
        return hashlib.sha256(text.encode() + self.rows.numpy().tobytes()).hexdigest()


def unchanged(images: Images) -> Images:
    """Return pictures as their source has them."""
    while isinstance(images, Overlaid | Stamped):
        images = images.base
    return images


def in_files(images: Images) -> bool:
    """Return whether pictures, changed or not, are read from files batch by batch; of two lots, any of them."""
    images = unchanged(images)
    if isinstance(images, Joined):
        return in_files(images.first) or in_files(images.second)
    return isinstance(images, FolderImages)


def stamp(x: Tensor, side: int) -> Tensor:
    """Return a copy of pictures (b, C, H, W) with a patch of `side` x `side` pixels in the bottom right corner.

    A checkerboard of bright (1) and dark (0) pixels with a bright one in the very corner. One pixel is the
    single-pixel backdoor of Gu et al. 2017 (BadNets), more are a pattern of bright pixels like theirs, with the
    dark ground that their digits have.
    """
    row = torch.arange(side, device=x.device)
    out = x.clone()
    out[..., -side:, -side:] = ((row[:, None] + row) % 2 == 0).to(x)  # both ends of a diagonal are bright
    return out
