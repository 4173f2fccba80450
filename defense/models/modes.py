"""Temporary states of a model, put back as they were, submodule by submodule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every submodule in eval mode; afterwards each has the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Let no parameter ask for a gradient, so that gradients of the input cost no more than they must."""
    asked = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        yield model
    finally:
        for parameter, requires_grad in asked.items():
            parameter.requires_grad_(requires_grad)


@contextmanager
def channels_last(model: nn.Module) -> Iterator[nn.Module]:
    """Lay the weights of convolutions out with channels last, which is faster on every device.

    The gradient of the pictures still comes back contiguous: there are attacks that take views of it.
    """
    weights = {weight: weight.data for weight in model.parameters() if weight.ndim == 4}
    hook = model.register_forward_pre_hook(lambda _, given: (given[0].flatten(1).view_as(given[0]), *given[1:]))
    try:
        for weight, data in weights.items():
            weight.data = data.to(memory_format=torch.channels_last)
        yield model
    finally:
        hook.remove()
        for weight, data in weights.items():
            weight.data = data
