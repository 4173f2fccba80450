"""Whether the reverse of a training run is its derivative: tried on a few samples before any compute."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.errors import InputError, is_out_of_memory
from defense.metagradient.norms import tracking_norms
from defense.models.contract import FEW, first_line

FIELD, NAME = "scorer.method", "metagradient"
# Of the length of the weights, in the difference that a second derivative is compared with: longer steps cross
# kinks of ReLU and of maxima, of which a ResNet has some within 1e-7.
STEP = 1e-10
ROUNDING = 1e-14  # of the length of a gradient in float64
FAR = 0.2  # of its length: more than rounding and kinks make, less than a part that is left out


def check_differentiable(model: nn.Module, train: Split) -> None:
    """Raise InputError if the training of `model` cannot be differentiated; the model stays as it is.

    It may draw nothing at random and change no buffer but the statistics of batch norm. Its second derivative has
    to agree with a difference of gradients in float64; a network that rounds to less inside is not compared.
    """
    rows = torch.arange(min(FEW, len(train)))
    x, labels = train.images.take(rows).cpu(), train.labels[rows.to(train.labels.device)].cpu()
    own = copy.deepcopy(model).cpu().train()
    weights = [value for value in own.parameters() if value.requires_grad]
    if not weights:
        raise InputError("model", type(model).__name__, "no parameter asks for a gradient; model.requires_grad_()")
    with torch.random.fork_rng(devices=()), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        with unchanged_buffers(own), no_draws():
            own(x)
        try:
            compare(own.double(), x.double() if x.is_floating_point() else x, labels)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            refuse(own, f"{first_line(error)}", error)


def compare(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """Raise InputError unless the Hessian of the loss by a vector is a difference of gradients along it."""
    weights = [value for value in model.parameters() if value.requires_grad]

    def gradient(create_graph: bool = False) -> list[Tensor]:
        loss = F.cross_entropy(model(x), labels)
        return list(torch.autograd.grad(loss, weights, create_graph=create_graph, materialize_grads=True))

    first = gradient(create_graph=True)
    length = norm(first)
    if length == 0:
        return
    along = [value.detach() * (STEP * norm(weights) / length) for value in first]
    inner = torch.stack([(value * part).sum() for value, part in zip(first, along, strict=True)]).sum()
    found = torch.autograd.grad(inner, weights, materialize_grads=True)
    if all(bool((value == value.float()).all()) for value in first):  # rounded inside, to more than the step
        return
    sides = []
    for sign in (1, -1):
        with moved(weights, along, sign):
            sides.append(gradient())
    expected = [(one - other) / 2 for one, other in zip(*sides, strict=True)]
    off = norm([one - other for one, other in zip(found, expected, strict=True)])
    if not off <= FAR * norm(expected) + ROUNDING * length:  # written so that NaN fails
        refuse(model, "its second derivative is not a difference of gradients")


def norm(parts: Sequence[Tensor]) -> float:
    """Return the length of a vector in parts."""
    return float(torch.stack([part.detach().square().sum() for part in parts]).sum().sqrt())


@contextmanager
def moved(weights: Sequence[Tensor], along: Sequence[Tensor], sign: int) -> Iterator[None]:
    """Move the weights along a vector, or against it, while inside."""
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, part in zip(weights, along, strict=True):
            weight += sign * part
    yield
    with torch.no_grad():
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)


def refuse(model: nn.Module, why: str, error: Exception | None = None) -> None:
    """Raise the InputError of a network without a second derivative."""
    found = f"{type(model).__name__} cannot be differentiated twice ({why})"
    raise InputError(FIELD, NAME, f"{found}; expected another scorer, or another network") from error


@contextmanager
def no_draws() -> Iterator[None]:
    """Raise InputError if the network draws random numbers inside: a replay would have to draw them again."""
    before = torch.get_rng_state()
    yield
    if not torch.equal(before, torch.get_rng_state()):
        found = "the network draws random numbers in training, as dropout does"
        raise InputError(FIELD, NAME, f"{found}; expected model.dropout=0, or another scorer")


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Raise InputError if a buffer changes inside that is no running statistic of batch norm."""
    norms = tracking_norms(model)
    known = {f"{name}.{kind}".lstrip(".") for name, norm in norms.items() for kind, _ in norm.named_buffers()}
    before = {name: value.clone() for name, value in model.named_buffers()}
    yield
    for name, value in model.named_buffers():
        if name not in known and (name not in before or not torch.equal(before[name], value)):
            found = f"the buffer {name} changes in training, and no derivative goes through it"
            raise InputError(FIELD, NAME, f"{found}; expected another scorer, or another network")
