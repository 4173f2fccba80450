"""The order of a picture's numbers in memory: it changes how fast a network is, and not what it computes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from defense.influence.members import Member, logits_at, masked

log = logging.getLogger(__name__)


def channels_first(x: Tensor) -> Tensor:
    """Return pictures as they are."""
    return x


def channels_last(x: Tensor) -> Tensor:
    """Return pictures (b, C, H, W) with the channels of a pixel side by side in memory.

    Copied: `Tensor.to` leaves pictures of one channel with strides that tell later layers the opposite.
    """
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def layout(model: nn.Module, member: Member, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that puts pictures like x into the order that suits the device.

    On the CPU that is channels last for convolutions: pooling is several times as fast, they are a little. A
    network that looks at memory itself, as `view` behind a convolution does, keeps channels first.
    """
    has_convolutions = any(isinstance(part, nn.Conv2d) for part in model.modules())
    if x.device.type != "cpu" or x.ndim != 4 or not has_convolutions:
        return channels_first
    try:
        with masked(model, member):
            logits_at(model, member, member.parameters, channels_last(x[:2]))
    except Exception as error:  # a network that torch.func cannot take is left to plain autograd
        if "view size is not compatible" in str(error):
            log.info("this model asks for pictures with channels first")
        return channels_first
    return channels_last
