"""Square Attack: random search over squares that asks for logits alone.

Source: Andriushchenko et al. 2020, arXiv 1912.00049. The draws and the arithmetic are those of torchattacks, in
the same order, so that both break the same samples. Around a small network torchattacks spends most of its time on
masks and copies of whole batches. Here a broken sample leaves the batch, and no picture is asked about twice.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from defense.config.choices import Norm
from defense.config.schema import Threat
from defense.robustness.attack_pass import finite_logits

SHARE = 0.8  # of the picture, that the first squares cover
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the last query before squares cover half as much
BLOCK = 1000  # squares of one colour that are drawn at once
NO_ROWS = torch.empty(0, dtype=torch.int64)


def square_attack(
    model: nn.Module, x: Tensor, labels: Tensor, threat: Threat, *, queries: int, seed: int
) -> Tensor:
    """Return pictures (b, C, H, W) within `threat` that `model` gets wrong; the others come back as they were.

    x: float32 (b, C, H, W) in [0, 1]; in L2 they pass `tiles`. labels: int64 (b,). queries: for each sample, after
    the one for its start. seed: of all draws, which are made on the CPU. Source: algorithm 1, on the margin.
    Raises FloatingPointError if a logit at the start is not finite; later ones count as no better.
    """
    found = x.clone()
    with torch.inference_mode():
        logits = model(x)
        repeats = torch.equal(model(x), logits)
        rows = (logits.argmax(1) == labels).nonzero().flatten()
        walk = WALKS[threat.norm](x[rows], threat.eps, torch.Generator().manual_seed(seed), repeats)
        owns, lowest = labels[rows, None], logits.new_full((len(rows),), torch.inf)
        for query in range(-1, queries):
            if not len(rows):
                break
            asked, tried = walk.start() if query < 0 else walk.propose(query)
            if not len(asked):
                continue
            logits = model(tried) if query >= 0 else finite_logits(model(tried))
            margins = leads(logits, taken(owns, asked))
            better = (margins < taken(lowest, asked)).nonzero().flatten()
            if not len(better):
                continue
            asked, tried, margins = asked[better], tried[better], margins[better]
            lowest[asked] = margins
            walk.accept(query, asked, tried)
            broken = margins <= 0
            if broken.any():
                found[rows[asked[broken]]] = tried[broken]
                stands = lowest > 0
                rows, owns, lowest = rows[stands], owns[stands], lowest[stands]
                walk.keep(stands)
        right = model(found).argmax(1) == labels  # also on some pictures with a margin of zero
        found[right] = x[right]
    return found


def leads(logits: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the logit of the label leads the others: (b,), of logits (b, classes), labels (b, 1)."""
    own, others = logits.gather(1, labels), logits.scatter(1, labels, -torch.inf)
    return own.squeeze(1) - others.amax(1)


def taken(values: Tensor, rows: Tensor) -> Tensor:
    """Return the values of `rows`, which ascend; no copy where these are all."""
    return values if len(rows) == len(values) else values[rows]


class Walk(Protocol):
    """Where the search is with each of n pictures, and where it looks next."""

    def start(self) -> tuple[Tensor, Tensor]:
        """Return all rows (n,), and the pictures (n, C, H, W) to start from."""

    def propose(self, query: int) -> tuple[Tensor, Tensor]:
        """Return the rows (k,) with something new to ask, ascending, and pictures (k, C, H, W) to try there."""

    def accept(self, query: int, rows: Tensor, pictures: Tensor) -> None:
        """Go on from `pictures` (k, C, H, W) at `rows` (k,). At the start, query is -1, and these are all rows."""

    def keep(self, stands: Tensor) -> None:
        """Go on with the rows where `stands`, bool (n,)."""


class Square(NamedTuple):
    """One proposal of the walk in Linf, the same for all pictures."""

    side: int
    top: int
    left: int
    colour: tuple[float, ...]  # the sign of each channel
    step: Tensor  # (C, 1, 1): of a colour, from one end of the ball to the other


class LinfWalk:
    """Vertical stripes, then squares of one colour, at the ends of the ball (algorithm 2).

    A square is left out where it changes nothing, and where it was tried since the picture last changed. A model
    that draws at random may answer otherwise the second time (`repeats` is False), so it is always asked.
    """

    def __init__(self, x: Tensor, eps: float, generator: torch.Generator, repeats: bool) -> None:
        self.x, self.eps, self.generator, self.repeats = x, eps, generator, repeats
        self.low, self.high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
        rows = torch.arange(len(x), device=x.device)
        self.now, self.changed, self.rows = x, torch.zeros_like(rows), rows
        self.last_change = 0  # of any picture
        self.last_tried: dict[Any, int] = {}
        self.squares = self.drawn()

    def start(self) -> tuple[Tensor, Tensor]:
        """Return stripes one pixel wide."""
        count, channels, _, width = self.x.shape
        colours = signs(torch.rand((count, channels, 1, width), generator=self.generator)).to(self.x.device)
        return self.rows, (self.x + self.eps * colours).clamp(0, 1)

    def propose(self, query: int) -> tuple[Tensor, Tensor]:
        """Return pictures with one more square."""
        square = next(self.squares)
        known = self.last_tried.get(square[:-1], -1)
        if self.repeats and known > self.last_change:
            return NO_ROWS, self.now
        self.last_tried[square[:-1]] = query
        window = window_at(square.top, square.left, square.side)
        before = self.now[window]
        after = (before + square.step).clamp(self.low[window], self.high[window])
        rows = self.rows
        if self.repeats:
            rows = ((self.changed >= known) & (after != before).flatten(1).any(1)).nonzero().flatten()
        pictures = self.now[rows]
        pictures[window] = taken(after, rows)
        return rows, pictures

    def drawn(self) -> Iterator[Square]:
        """Yield the squares of one query after the other."""
        channels, height, width = self.x.shape[1:]
        first = 0
        while True:
            side = side_at(first, height, width)
            last = next((end for end in HALVED_AFTER if end >= first), first + BLOCK)  # of this size
            count = min(last - first + 1, BLOCK)
            draws = torch.rand((count, 2 + channels), generator=self.generator)
            corners = places(draws[:, :2], height - side, width - side).tolist()
            colours = signs(draws[:, 2:])
            steps = (2 * self.eps * colours).view(count, channels, 1, 1).to(self.x.device)
            for (top, left), colour, step in zip(corners, colours.tolist(), steps.unbind(), strict=True):
                yield Square(side, top, left, tuple(colour), step)
            first += count

    def accept(self, query: int, rows: Tensor, pictures: Tensor) -> None:
        """Go on from the pictures that are better."""
        if query < 0:
            self.now = pictures
            return
        self.now[rows] = pictures
        self.changed[rows] = self.last_change = query

    def keep(self, stands: Tensor) -> None:
        """Leave out what is broken."""
        self.x, self.low, self.high = self.x[stands], self.low[stands], self.high[stands]
        self.now, self.changed, self.rows = self.now[stands], self.changed[stands], self.rows[: int(stands.sum())]


class L2Walk:
    """Pyramids in one window, with the length that another window gives up (algorithm 3).

    Hardly any picture comes twice, so every query is asked, whether the model repeats itself or not.
    """

    def __init__(self, x: Tensor, eps: float, generator: torch.Generator, repeats: bool) -> None:
        self.x, self.eps, self.generator = x, eps, generator
        self.rows = torch.arange(len(x), device=x.device)
        self.delta, self.squared = torch.zeros_like(x), torch.zeros_like(x)  # the perturbation, and its square
        self.unused = x.new_zeros((len(x), 1, 1, 1))  # squared length that is left

    def start(self) -> tuple[Tensor, Tensor]:
        """Return pictures covered with pyramids, each a fifth of the height wide."""
        count, channels, height, width = self.x.shape
        side = height // 5
        first, down, along = (height - 5 * side) // 2, height // side, width // side
        draws = torch.rand((down, along, 1 + count * channels), generator=self.generator)
        delta = torch.zeros_like(self.x)
        for row in range(down):
            for column in range(along):
                window = window_at(first + side * row, first + side * column, side)
                delta[window] += self.pyramids(side, draws[row, column])
        return self.rows, self.moved(delta)

    def propose(self, query: int) -> tuple[Tensor, Tensor]:
        """Return pictures with one more pyramid, and nothing in another window."""
        channels, height, width = self.x.shape[1:]
        side = side_at(query, height, width, odd=True)
        draws = torch.rand(5 + self.x[:, :, 0, 0].numel(), generator=self.generator)
        window, emptied = (
            window_at(top, left, side)
            for top, left in places(draws[:4].view(2, 2), height - side, width - side).tolist()
        )
        both = torch.zeros((height, width), device=self.x.device)
        both[window[1:]], both[emptied[1:]] = 1, 1
        before = self.delta[window]
        after = before / (1e-12 + lengths(before.square()))
        after += self.pyramids(side, draws[4:])
        after /= 1e-12 + lengths(after.square())
        after *= (self.unused / channels + whole_lengths(self.squared * both).square()).sqrt()
        delta = self.delta.clone()
        delta[emptied] = 0
        delta[window] = after
        return self.rows, self.moved(delta)

    def pyramids(self, side: int, draws: Tensor) -> Tensor:
        """Return a pyramid for each picture and channel (n, C, side, side), turned alike, with signs of their own.

        draws: (1 + n * C,).
        """
        upright, lying = pyramid(side, self.x.device)
        colours = signs(draws[1:]).view(*self.x.shape[:2], 1, 1).to(self.x.device)
        return (lying if draws[0] > 0.5 else upright) * colours

    def moved(self, delta: Tensor) -> Tensor:
        """Return pictures at the distance eps along `delta` (n, C, H, W), which is used up."""
        delta /= whole_lengths(delta.square()) + 1e-12
        return delta.mul_(self.eps).add_(self.x).clamp_(0, 1)

    def accept(self, query: int, rows: Tensor, pictures: Tensor) -> None:
        """Go on from the pictures that are better."""
        delta = pictures - taken(self.x, rows)
        squared = delta.square()
        self.delta[rows], self.squared[rows] = delta, squared
        most = self.x.new_tensor(self.eps).square()
        self.unused[rows] = (most - whole_lengths(squared).square()).clamp_min(0)

    def keep(self, stands: Tensor) -> None:
        """Leave out what is broken."""
        self.x, self.delta, self.squared = self.x[stands], self.delta[stands], self.squared[stands]
        self.unused, self.rows = self.unused[stands], self.rows[: int(stands.sum())]


WALKS: dict[Norm, Callable[[Tensor, float, torch.Generator, bool], Walk]] = {Norm.Linf: LinfWalk, Norm.L2: L2Walk}


def tiles(shape: tuple[int, ...], norm: Norm) -> bool:
    """Return whether Square fits pictures (..., H, W).

    In L2 it starts from tiles of a fifth of the height, and goes on with windows of 3x3 at least.
    """
    height, width = shape[-2:]
    tile = height // 5
    if norm is Norm.Linf or tile == 0 or min(height, width) < 3:
        return norm is Norm.Linf
    return tile == 1 or all((height - 5 * tile) // 2 + tile * (side // tile) <= side for side in (height, width))


def side_at(query: int, height: int, width: int, *, odd: bool = False) -> int:
    """Return how many pixels wide a square is, less than the picture; where `odd`, 3 at least.

    Squares shrink by the query, as in the reference's AutoAttack; torchattacks as shipped goes by the share of
    queries.
    """
    share = SHARE / 2 ** bisect_left(HALVED_AFTER, query)
    largest = (min(height, width) - 1) ** 2 / (height * width)  # one less: an even side is made odd
    side = round(math.sqrt(min(share, largest) * (height * width)))
    return max(side + (side % 2 == 0), 3) if odd else max(side, 1)


def places(draws: Tensor, down: int, along: int) -> Tensor:
    """Return the corners (k, 2) that draws (k, 2) in [0, 1) mean, for squares with so much room to move."""
    return (torch.tensor([down, along]) * draws).long()


def window_at(top: int, left: int, side: int) -> tuple[Any, ...]:
    """Return the index of a square in pictures (..., H, W)."""
    return ..., slice(top, top + side), slice(left, left + side)


def signs(draws: Tensor) -> Tensor:
    """Return -1 or 1 for each draw in [0, 1), and 0 for a half."""
    return (2 * draws - 1).sign_()


def lengths(squared: Tensor) -> Tensor:
    """Return the Euclidean lengths (n, C, 1, 1) of windows by their squared entries (n, C, side, side)."""
    return squared.sum((-2, -1), keepdim=True).sqrt()


def whole_lengths(squared: Tensor) -> Tensor:
    """Return the Euclidean lengths (n, 1, 1, 1) of perturbations by their squared entries (n, C, H, W)."""
    return squared.flatten(1).sum(1).sqrt().view(-1, 1, 1, 1)


@cache
def pyramid(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the two halves of opposite sign, one above the other, and one beside the other: each (side, side).

    It has unit length. Source: section 3.3 of the paper.
    """
    with torch.inference_mode(False):
        halves = torch.cat([hill(side // 2, side), -hill(side - side // 2, side)])
        halves = (halves / halves.square().sum().sqrt()).to(device)
        return halves, halves.T.contiguous()


def hill(height: int, width: int) -> Tensor:
    """Return a hill (height, width) of unit length, highest in the middle.

    A pixel on the ring k around the middle has the sum of 1 / (r + 1)^2 over all rings r from k outwards.
    """
    down, along = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    ring = torch.maximum(down.abs()[:, None], along.abs())
    heights = torch.zeros((height, width))
    for k in range(max(height, width) // 2 + 1):
        heights += (ring <= k) / torch.tensor(k + 1.0).square()
    return heights / heights.square().sum().sqrt()
