"""The points of parameter space at which a score is taken.

A score is a sum over members m of weight_m times the score at theta_m:

    score_i = sum_m  weight_m * d/dt loss_i(theta_m + t u_m) at t = 0

A member is one set of parameters and buffers and, for a sub-network, one set of masks: the same for every sample
and for the objective. Source: Yang et al., TMLR 2026, arXiv 2405.17490, section on the dropout ensemble.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.func import functional_call

from defense.config.choices import Members
from defense.config.schema import Scorer
from defense.errors import InputError
from defense.influence.masks import draw_masks, input_hook
from defense.models.checkpoints import Checkpoint
from defense.models.contract import check_made
from defense.randomness import derive, generator

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One point: `parameters` are differentiated, `rest` (other parameters and buffers) is held fixed."""

    name: str
    weight: float
    parameters: Parameters
    rest: Parameters
    masks: Parameters  # of a sub-network, by the name of the module whose input they multiply; else empty


def single(model: nn.Module, *, pattern: str = "*") -> Member:
    """Return the model itself; of its trainable parameters those whose name matches `pattern` are differentiated.

    Raises InputError if nothing matches, or no parameter is trainable.
    """
    check_made(model)
    trainable = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    if not trainable:
        raise InputError("model", type(model).__name__, "no parameter asks for a gradient; model.requires_grad_()")
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

    example: pictures (b, ...) that show the shape of each masked input.
    """
    members = [replace(member, weight=1 / count)]
    for index in range(1, count):
        chance = generator(seed, "dropout member", index)
        rate = max_rate * float(torch.rand((), generator=chance))
        masks = draw_masks(model, example, rate, chance)
        members.append(replace(member, name=f"dropout {index}", weight=1 / count, masks=masks))
    return members


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

    Raises InputError if checkpoints are asked for and there are none.
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
    """Return the logits (b, classes) of `model` with `parameters` and the rest of `member`; see `masked`.

    The network writes into copies of the buffers: torch.func allows no other.
    """
    copies = {name: member.rest[name].clone() for name, _ in model.named_buffers()}
    values = member.rest | copies | parameters
    given = {slot: values[name] for slot, name in slots_of(model).items()}
    logits: Tensor = functional_call(model, given, (x,), tie_weights=False)
    return logits


def slots_of(model: nn.Module) -> dict[str, str]:
    """Return each place of a parameter or buffer in `model`, with the name of its tensor in `named_parameters`.

    A module that stands in two places is one: functional_call would leave its own tensors in such a module.
    """
    names: dict[int, str] = {}
    slots = {}
    for prefix, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                slot = f"{prefix}.{name}".lstrip(".")
                slots[slot] = names.setdefault(id(tensor), slot)
    return slots


def shares_modules(model: nn.Module) -> bool:
    """Return whether a module stands in two places of `model`."""
    return len(list(model.named_modules(remove_duplicate=False))) > len(list(model.modules()))


@contextmanager
def masked(model: nn.Module, member: Member) -> Iterator[None]:
    """Multiply the inputs of the masked modules by the masks of `member` while inside."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name, mask in member.masks.items():
            stack.enter_context(input_hook(modules[name], mask.mul))
        yield


@contextmanager
def installed(model: nn.Module, member: Member) -> Iterator[list[nn.Parameter]]:
    """Give `model` the parameters, buffers and masks of `member` while inside; yield its parameters in `member`.

    No other parameter asks for a gradient. So plain autograd runs the network as it is, with its hooks.
    """
    named = dict(model.named_parameters())
    tensors = named | dict(model.named_buffers())
    values = member.rest | member.parameters
    before = {name: tensor.data for name, tensor in tensors.items()}
    asked = {name: parameter.requires_grad for name, parameter in named.items()}
    with masked(model, member), torch.enable_grad():
        try:
            for name, tensor in tensors.items():
                tensor.data = values[name].clone()
            for name, parameter in named.items():
                parameter.requires_grad_(name in member.parameters)
            yield [named[name] for name in member.parameters]
        finally:
            for name, tensor in tensors.items():
                tensor.data = before[name]
            for name, parameter in named.items():
                parameter.requires_grad_(asked[name])
