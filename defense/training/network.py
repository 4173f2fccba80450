"""The network as a training run calls it: with its memory laid out for convolutions, and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from defense.config.schema import Train
from defense.errors import InputError


class ChannelsLast(nn.Module):
    """A network, its parameters laid out channels last, which turns its images to that layout first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network does of images (b, C, H, W) of any layout."""
        x = x.flatten(1).view_as(x)  # its gradient comes back contiguous: torchattacks takes views of it
        out: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return out


def to_channels_last(model: nn.Module, recipe: Train) -> nn.Module:
    """Return `model`, the parameters being the same objects, in the layout of `recipe`."""
    return ChannelsLast(model) if recipe.channels_last else model


def compiled(network: nn.Module, recipe: Train) -> nn.Module:
    """Return `network`, the parameters being the same objects, compiled where `recipe` says so."""
    program: nn.Module = torch.compile(network) if recipe.compile else network  # type: ignore[assignment]
    return program


@contextmanager
def compiling_names(recipe: Train) -> Iterator[None]:
    """Turn what the compiler cannot do into an InputError."""
    if not recipe.compile:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # the base of what every part of the compiler raises

    try:
        yield
    except TorchDynamoException as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        why = " ".join(lines[:2]) or type(error).__name__  # who failed, and at what
        raise InputError("train.compile", recipe.compile, f"{why}; expected false") from error
