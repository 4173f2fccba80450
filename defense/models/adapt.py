"""Networks of others as this package calls them: pictures in [0, 1] in, logits (b, classes) out.

What is done beside the network are hooks on it, so that its layers and weights keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from defense.errors import within

LOGITS = "logits"  # the name of logits in outputs of Hugging Face, GoogLeNet and Inception


def logits_of(output: object) -> object:
    """Return the logits in the output of a network; if none can be told, the output as it is.

    The output of a tensor is itself, of a mapping or an object its `logits`, of a mapping without them its one
    matrix of floats, of a tuple or list its first member.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        if LOGITS in output:
            return output[LOGITS]
        matrices = [x for x in output.values() if isinstance(x, Tensor) and x.ndim == 2 and x.is_floating_point()]
        return matrices[0] if len(matrices) == 1 else output
    if hasattr(output, LOGITS):
        return getattr(output, LOGITS)
    return logits_of(output[0]) if isinstance(output, tuple | list) and output else output


class Normalization:
    """The hook that hands a network (x - mean) / std, per channel, for pictures x in [0, 1]."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __call__(self, model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what the network is given instead."""
        x, *rest = given
        return ((x - self.mean.to(x)) / self.std.to(x), *rest)


def as_colour(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return grey pictures (b, 1, H, W) in three equal channels, for a network of colour pictures; a hook."""
    x, *rest = given
    return (x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x, *rest)


def returns_logits_alone(model: nn.Module) -> nn.Module:
    """Let a network return its logits alone from now on, and return it."""
    model.register_forward_hook(logits_alone)
    return model


def returns_all(model: nn.Module) -> nn.Module:
    """Let a network return its whole output again, and return it."""
    for number, hook in list(model._forward_hooks.items()):
        if hook is logits_alone:
            del model._forward_hooks[number]
    return model


def logits_alone(model: nn.Module, given: tuple[Any, ...], output: object) -> object:
    """Return the logits in the output of a network; a hook."""
    return logits_of(output)


def normalize_inputs(model: nn.Module, mean: Any, std: Any, channels: int) -> None:
    """Let a network be given normalised pictures from now on.

    mean, std: a number for each of the channels, in units of the pixel range. Raises InputError for others.
    """
    for field, values in (("model.mean", mean), ("model.std", std)):
        numbers = isinstance(values, Sequence) and all(type(each) in (int, float) for each in values)
        expected = f"{channels} numbers, one for each channel, as in [{', '.join(['0.5'] * channels)}]"
        within(field, values, numbers and len(values) == channels, expected)
    within("model.std", std, all(each > 0 for each in std), "numbers above 0")
    model.register_forward_pre_hook(Normalization(mean, std))
