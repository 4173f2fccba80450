"""Masks of sub-networks: one number for each unit at the input of a layer, the same for every sample.

A unit is an entry of a vector (b, units), a channel of a convolution's input (b, channels, ...) or a feature of a
token (b, ..., units).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from defense.config.choices import Members
from defense.errors import InputError
from defense.models.modes import evaluating

DROPOUTS = nn.modules.dropout._DropoutNd
BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
FEATURES_LAST = (nn.Linear, nn.LayerNorm)
MASKED = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True)
class Call:
    """One call of a module: its name, its first input and its output."""

    name: str
    given: Tensor
    gives: Tensor


def draw_masks(model: nn.Module, example: Tensor, rate: float, chance: torch.Generator) -> dict[str, Tensor]:
    """Return masks for the inputs of the dropout slots, or of linear and convolution layers if there are none.

    example: pictures (b, ...). Units are kept with probability 1 - rate and then scaled by 1 / (1 - rate), as in
    training. The masks are by name of module, in the order of the calls. Raises InputError if there are none.
    """
    modules = dict(model.named_modules())
    slots = [name for name, module in modules.items() if isinstance(module, DROPOUTS)]
    slots = slots or [name for name, module in modules.items() if isinstance(module, MASKED)]
    calls = calls_of(model, example)
    masks: dict[str, Tensor] = {}
    for index, call in enumerate(calls):
        if call.name in slots and call.name not in masks:
            axis = unit_axis(modules, calls, index)
            kept = torch.rand(call.given.shape[axis], generator=chance) >= rate
            shape = [-1] + [1] * (call.given.ndim - 2) if axis == 1 else [-1]
            masks[call.name] = (kept.to(call.given) / (1 - rate)).view(shape)
    if not masks:
        valid = "expected a network that calls a dropout, linear or convolution layer: there is nothing to drop"
        raise InputError("scorer.members", Members.dropout, valid)
    return masks


def calls_of(model: nn.Module, example: Tensor) -> list[Call]:
    """Return the calls of all submodules on pictures (b, ...), in order; the model is in eval mode."""
    calls: list[Call] = []

    def note(name: str, module: nn.Module, given: tuple[object, ...], output: object) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(output, Tensor):
            calls.append(Call(name, given[0], output))

    with torch.no_grad(), evaluating(model), ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it takes no hooks
            stack.callback(module.register_forward_hook(partial(note, name)).remove)
        model(example)
    return calls


def unit_axis(modules: dict[str, nn.Module], calls: list[Call], index: int) -> int:
    """Return the axis of units, 1 or -1, at the input of one of `calls`.

    The layer itself says it; of a plain dropout slot the next layer that takes a tensor of this shape, or the last
    one before that gave it.
    """
    call = calls[index]
    module = modules[call.name]
    if isinstance(module, BY_CHANNEL):
        return 1
    shape = call.given.shape
    around = [each.name for each in calls[index + 1 :] if each.given.shape == shape]
    around += [each.name for each in calls[:index][::-1] if each.gives.shape == shape]
    for name in [call.name, *around]:
        if isinstance(modules[name], CHANNELS_FIRST):
            return 1
        if isinstance(modules[name], FEATURES_LAST):
            return -1
    return 1 if call.given.ndim in (2, 4, 5) else -1


@contextmanager
def input_hook(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass the first input of `module` through `change` while inside."""
    handle = module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
