"""Networks of 8x8 grey pictures in three classes, each with a habit that makes trouble for torch.func."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def small() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3))


class Around(nn.Module):
    """A small network in two halves, with something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.between(torch.tanh(self.body(self.before(x).flatten(1)))))
        return out

    def before(self, x: Tensor) -> Tensor:
        return x

    def between(self, h: Tensor) -> Tensor:
        return h


class Straight(torch.autograd.Function):
    """Rounds to sixteenths, with the gradient of the identity; written as most are, without setup_context."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        return (x * 16).round() / 16

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        return gradient


class StraightThrough(Around):
    def between(self, h: Tensor) -> Tensor:
        rounded: Tensor = Straight.apply(h)
        return rounded


class ReversesGradients(Around):
    """Gradient reversal by a hook (domain-adversarial training)."""

    def between(self, h: Tensor) -> Tensor:
        if h.requires_grad:
            h.register_hook(lambda gradient: -2 * gradient)
        return h


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.rows, self.head = kind(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rows(x.squeeze(1))[0][:, -1])
        return out


class Attends(nn.Module):
    """A transformer layer over the rows; `padded`: the last three are masked, yet all are averaged."""

    def __init__(self, padded: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head, self.padded = nn.Linear(8, 3), padded

    def forward(self, x: Tensor) -> Tensor:
        rows = x.squeeze(1)
        mask = torch.arange(8).expand(len(rows), 8) >= 5 if self.padded else None
        out: Tensor = self.head(self.encoder(rows, src_key_padding_mask=mask).mean(1))
        return out


class Prototypes(Around):
    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(torch.tanh(self.body(x.flatten(1))), self.points)


class Checkpointed(Around):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.block, self.reentrant = nn.Sequential(nn.Linear(8, 8), nn.Tanh()), reentrant

    def between(self, h: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.block, h, use_reentrant=self.reentrant)
        return out


class Counts(Around):
    """Counts its calls in a buffer, in eval mode too; `anew`: by another tensor in its place."""

    calls: Tensor

    def __init__(self, *, anew: bool = False) -> None:
        super().__init__()
        self.anew = anew
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def before(self, x: Tensor) -> Tensor:
        if self.anew:
            self.calls = self.calls + 1
        else:
            self.calls += 1
        return x


class Remembers(Around):
    """Keeps its features in an attribute."""

    features: Tensor | None = None

    def between(self, h: Tensor) -> Tensor:
        self.features = h
        return h


class WorksInPlace(Around):
    def before(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).div_(0.25)


class OverwritesPixels(Around):
    def before(self, x: Tensor) -> Tensor:
        x.view(len(x), -1)[:, :4] = 0
        return x


class LooksAtValues(Around):
    def between(self, h: Tensor) -> Tensor:
        return h / 2 if self.body.bias.sum().item() > 1e9 else h


class Scaled(Around):
    """A parameter without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3))

    def between(self, h: Tensor) -> Tensor:
        return h * self.scale


class Spectral(nn.Module):
    """Complex weights beside real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(8, 5, dtype=torch.cfloat) * 0.3 + 1)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        filtered = torch.fft.irfft2(torch.fft.rfft2(x.squeeze(1)) * self.filter, s=(8, 8))
        out: Tensor = self.head(torch.tanh(filtered).flatten(1))
        return out


class UnusedHead(Around):
    """A head that only training uses; `dead`: one that is called, and whose output nobody looks at."""

    def __init__(self, *, dead: bool = False) -> None:
        super().__init__()
        self.other, self.dead = nn.Linear(8, 3), dead

    def between(self, h: Tensor) -> Tensor:
        if self.dead:
            self.other(h)
        return h


class Warps(nn.Module):
    """grid_sample, and a layer whose weights have no gradient where they are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)
        self.shift = nn.Parameter(torch.tensor([[[1.0, 0.1, 0.0], [0.0, 1.0, 0.1]]]))

    def forward(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(self.shift.expand(len(x), 2, 3), list(x.shape), align_corners=False)
        out: Tensor = self.head(F.grid_sample(x, grid, align_corners=False).flatten(1))
        return out


def normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 8)), nn.Tanh(), nn.Linear(8, 3))


class Sum(nn.Module):
    """The sum of two layers, of the picture and of its negative half."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.first(x) + torch.tanh(self.second(-x / 2))
        return out


def tied() -> nn.Module:
    first, second = nn.Linear(64, 8), nn.Linear(64, 8)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), Sum(first, second), nn.Tanh(), nn.Linear(8, 3))


def twice() -> nn.Module:
    layer = nn.Linear(64, 8)
    return nn.Sequential(nn.Flatten(), Sum(layer, layer), nn.Tanh(), nn.Linear(8, 3))


HABITS: dict[str, Callable[[], nn.Module]] = {
    "plain": small,
    "GRU": lambda: Recurrent(nn.GRU),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "RNN": lambda: Recurrent(nn.RNN),
    "attention": Attends,
    "padding mask": lambda: Attends(padded=True),
    "weight norm": lambda: normed(nn.utils.parametrizations.weight_norm),
    "old weight norm": lambda: normed(nn.utils.weight_norm),
    "spectral norm": lambda: normed(nn.utils.parametrizations.spectral_norm),
    "cdist": Prototypes,
    "grid sample": Warps,
    "straight-through function": StraightThrough,
    "hook on a gradient": ReversesGradients,
    "checkpoint": lambda: Checkpointed(reentrant=False),
    "reentrant checkpoint": lambda: Checkpointed(reentrant=True),
    "buffer that counts": Counts,
    "buffer made anew": lambda: Counts(anew=True),
    "features kept": Remembers,
    "in place": WorksInPlace,
    "pixels overwritten": OverwritesPixels,
    "item": LooksAtValues,
    "scalar parameter": Scaled,
    "complex weights": Spectral,
    "unused head": UnusedHead,
    "dead head": lambda: UnusedHead(dead=True),
    "tied weights": tied,
    "layer called twice": twice,
    "DataParallel": lambda: nn.DataParallel(small()),
    "TorchScript": lambda: torch.jit.trace(small(), torch.rand(2, 1, 8, 8)),
}
