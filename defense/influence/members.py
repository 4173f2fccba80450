"""The points of parameter space at which a score is taken.

A score is a sum over members m of weight_m times the score at theta_m:

    score_i = sum_m  weight_m * d/dt loss_i(theta_m + t u_m) at t = 0

A member is one set of parameters and buffers and, for a sub-network, one set of masks: the same for every sample
and for the objective. Source: Yang et al., TMLR 2026, arXiv 2405.17490, section on the dropout ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from defense.choices import Members
from defense.errors import InputError
from defense.models.modes import evaluating
from defense.randomness import derive, generator
from defense.schema import Scorer

Parameters = dict[str, Tensor]
DROPOUTS = nn.modules.dropout._DropoutNd
MASKED = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True)
class Member:
    """One point: `parameters` are differentiated, `rest` (other parameters and buffers) is held fixed."""

    name: str
    weight: float
    parameters: Parameters
    rest: Parameters
    masks: Parameters  # of a sub-network, by the name of the module whose input they multiply; else empty


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a model at one time of its training, and what a score at them weighs."""

    name: str
    weight: float
    state: Parameters  # as of state_dict


def single(model: nn.Module, *, pattern: str = "*") -> Member:
    """Return the model itself; of its trainable parameters those whose name matches `pattern` are differentiated.

    Raises InputError where nothing matches.
    """
    trainable = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    chosen = {name: value for name, value in trainable.items() if fnmatchcase(name, pattern)}
    if not chosen:
        raise InputError("scorer.parameters", pattern, f"matches none of {', '.join(trainable)}")
    everything = dict(model.named_parameters()) | dict(model.named_buffers())
    rest = {name: value.detach() for name, value in everything.items() if name not in chosen}
    return Member("model", 1.0, chosen, rest, {})


def dropout(
    member: Member, model: nn.Module, example: Tensor, *, count: int, max_rate: float, seed: int
) -> list[Member]:
    """Return `count` sub-networks, the first of them whole; each has a drop rate of its own from U(0, max_rate).

    example: pictures (b, ...) that show the shape of what is masked.
    """
    members = [replace(member, weight=1 / count)]
    for index in range(1, count):
        chance = generator(seed, "dropout member", index)
        rate = max_rate * float(torch.rand((), generator=chance))
        masks = draw_masks(model, example, rate, chance)
        members.append(replace(member, name=f"dropout {index}", weight=1 / count, masks=masks))
    return members


def draw_masks(model: nn.Module, example: Tensor, rate: float, chance: torch.Generator) -> Parameters:
    """Return masks for the inputs of the dropout slots, or of linear and convolution layers where there are none.

    A unit is an entry of a vector (b, units), a channel of a picture (b, channels, H, W) or a feature of a token
    (b, tokens, units). Units are kept with probability 1 - rate and then scaled by 1 / (1 - rate), as in training.
    """
    modules = dict(model.named_modules())
    slots = [name for name, module in modules.items() if isinstance(module, DROPOUTS)]
    slots = slots or [name for name, module in modules.items() if isinstance(module, MASKED)]
    masks: Parameters = {}

    def note(name: str, x: Tensor) -> Tensor:
        axis = 1 if x.ndim in (2, 4, 5) else -1
        kept = torch.rand(x.shape[axis], generator=chance) >= rate
        shape = [-1] + [1] * (x.ndim - 2) if axis == 1 else [-1]
        masks[name] = (kept.to(x) / (1 - rate)).view(shape)
        return x

    with torch.no_grad(), evaluating(model), ExitStack() as stack:
        for name in slots:
            stack.enter_context(input_hook(modules[name], partial(note, name)))
        model(example)
    return masks


def gaussian(member: Member, *, count: int, std: float, seed: int) -> list[Member]:
    """Return `count` noisy copies: theta + std * N(0, I), each drawn on its own."""
    noisy = []
    for index in range(count):
        chance = generator(seed, "gaussian member", index)
        moved = {
            name: value + std * torch.randn(value.shape, generator=chance).to(value)
            for name, value in member.parameters.items()
        }
        noisy.append(replace(member, name=f"noise {index}", weight=1 / count, parameters=moved))
    return noisy


def checkpoints(member: Member, states: Sequence[Checkpoint]) -> list[Member]:
    """Return the model at each of `states`: TracIn, Pruthi et al. 2020, with the learning rates as weights."""

    def at(state: Parameters, values: Parameters) -> Parameters:
        return {name: state.get(name, value).to(value) for name, value in values.items()}

    return [
        replace(
            member,
            name=point.name,
            weight=point.weight,
            parameters=at(point.state, member.parameters),
            rest=at(point.state, member.rest),
        )
        for point in states
    ]


def members_of(
    model: nn.Module, example: Tensor, scorer: Scorer, states: Sequence[Checkpoint], *, seed: int
) -> list[Member]:
    """Return the members that `scorer` describes; `example` is one batch of pictures, `states` are checkpoints.

    Raises InputError where checkpoints are asked for and there are none.
    """
    member = single(model, pattern=scorer.parameters)
    seed = derive(seed, "members")
    if scorer.members is Members.dropout:
        return dropout(member, model, example, count=scorer.count, max_rate=scorer.max_rate, seed=seed)
    if scorer.members is Members.gaussian:
        return gaussian(member, count=scorer.count, std=scorer.std, seed=seed)
    if scorer.members is Members.checkpoints:
        if not states:
            raise InputError("scorer.members", scorer.members, "expected checkpoints of the training run")
        return checkpoints(member, states)
    return [member]


def logits_at(model: nn.Module, member: Member, parameters: Parameters, x: Tensor) -> Tensor:
    """Return the logits (b, classes) of `model` with `parameters` and the rest of `member`; see `masked`."""
    logits: Tensor = functional_call(model, member.rest | parameters, (x,))
    return logits


@contextmanager
def masked(model: nn.Module, member: Member) -> Iterator[None]:
    """Multiply the inputs of the masked modules by the masks of `member` while inside."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name, mask in member.masks.items():
            stack.enter_context(input_hook(modules[name], mask.mul))
        yield


@contextmanager
def input_hook(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Pass the first input of `module` through `change` while inside."""
    handle = module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
