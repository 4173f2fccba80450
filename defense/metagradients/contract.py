"""Refuse networks that a training cannot be differentiated through: tried on a few samples before any compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.errors import InputError, is_out_of_memory
from defense.metagradients.norms import MEAN, VARIANCE, open_statistics, recorded_updates, tracking_norms
from defense.models.contract import first_line
from defense.models.modes import evaluating
from defense.randomness import generator
from defense.training.norms import BATCH_NORM

FIELD, NAME = "scorer.method", "metagradient"
SAMPLES = 3  # that are looked at; two would saturate a batch norm
# Of the length of the weights, in the difference that a second derivative is compared with: longer steps cross
# kinks of ReLU and of maxima, of which a ResNet has some within 1e-7.
DIFFERENCE = 1e-10
ROUNDING = 1e-14  # of the length of a gradient in float64
FAR = 1e-3  # of its length: networks without a fault differ by 1e-6
DIRECTIONS = 3  # one may cross a kink
NOISE = 0.05  # on the first weights: zeros of them would hide layers below
SAME = 1e-4  # of running statistics and logits in float32
STATISTICS = (MEAN, VARIANCE, "num_batches_tracked")  # of a batch norm of torch


def check_differentiable(model: nn.Module, train: Split) -> None:
    """Raise InputError if the training of `model`, a network for this check alone, cannot be differentiated.

    It may draw nothing at random, keep no state but the statistics of batch norm, and update these as torch does.
    Its second derivative has to agree with a difference of gradients in float64; a network that rounds to less
    inside is not compared.
    """
    rows = torch.arange(min(SAMPLES, len(train)))
    x, labels = train.images.take(rows).cpu(), train.labels[rows.to(train.labels.device)].cpu()
    model = model.cpu().train()
    if not any(value.requires_grad for value in model.parameters()):
        raise InputError("model", type(model).__name__, "no parameter asks for a gradient; model.requires_grad_()")
    with torch.random.fork_rng(devices=()), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        check_state(model, x)
        check_norms(model, x)
        try:
            compare(noisy(model.double()), x.double() if x.is_floating_point() else x, labels)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            refuse(f"{type(model).__name__} cannot be differentiated twice ({first_line(error)})", error)


def refuse(why: str, error: Exception | None = None) -> NoReturn:
    """Raise the InputError of a network whose training has no derivative."""
    raise InputError(FIELD, NAME, f"{why}; expected another scorer, or another network") from error


def check_state(model: nn.Module, x: Tensor) -> None:
    """Raise InputError if a forward pass in training draws random numbers, or the next one gives other logits."""
    known = {f"{name}.{kind}".lstrip(".") for name in tracking_norms(model) for kind in STATISTICS}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    chance = torch.get_rng_state()
    first = model(x)
    if not torch.equal(chance, torch.get_rng_state()):
        found = "the network draws random numbers in training, as dropout does"
        raise InputError(FIELD, NAME, f"{found}; expected model.dropout=0, or another scorer")
    for name, value in model.named_buffers():
        if name not in known and (name not in buffers or not torch.equal(buffers[name], value)):
            refuse(f"the buffer {name} changes in training, and no derivative goes through it")
    model.load_state_dict(before)
    if not torch.equal(first, model(x)):
        refuse("the network gives other logits the second time: it keeps a state outside its buffers")
    model.load_state_dict(before)


def check_norms(model: nn.Module, x: Tensor) -> None:
    """Raise InputError unless running statistics change, and count in eval mode, as in `metagradient.norms`."""
    norms = tracking_norms(model)
    for name, norm in norms.items():
        if type(norm).forward is not BATCH_NORM.forward:
            refuse(f"the batch norm {name} has a forward of its own ({type(norm).__name__})")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with recorded_updates(model) as updates:
        model(x)
    expected = {name: before[name] for name in before if name.endswith((MEAN, VARIANCE))}
    for update in updates:
        for kind, found in ((MEAN, update.mean), (VARIANCE, update.variance)):
            name = f"{update.name}.{kind}".lstrip(".")
            expected[name] = torch.lerp(expected[name], found.detach().to(expected[name]), update.share)
    buffers = dict(model.named_buffers())
    for name in norms:
        for kind in (MEAN, VARIANCE):
            full = f"{name}.{kind}".lstrip(".")
            if not torch.allclose(buffers[full], expected[full], rtol=SAME, atol=SAME):
                refuse(f"the running statistics of {name} change outside its own call")
    model.load_state_dict(before)
    with torch.no_grad(), evaluating(model):
        logits = model(x)
        with open_statistics(model):
            opened = model(x)
    if not torch.allclose(logits, opened, rtol=SAME, atol=SAME * float(logits.abs().max())):
        refuse("the network uses its batch norm in another way than torch")


def noisy(model: nn.Module) -> nn.Module:
    """Return the model with noise of `NOISE` on its weights."""
    chance = generator(0, NAME)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=chance).to(weight), alpha=NOISE)
    return model


def compare(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """Raise InputError unless the Hessian of the loss by a vector is a difference of gradients along it."""
    weights = [value for value in model.parameters() if value.requires_grad]
    chance = generator(0, NAME, "directions")

    def gradient(create_graph: bool = False) -> list[Tensor]:
        loss = F.cross_entropy(model(x), labels)
        return list(torch.autograd.grad(loss, weights, create_graph=create_graph, materialize_grads=True))

    first = gradient(create_graph=True)
    length = length_of(first)
    rounded = all(bool((value == value.float()).all()) for value in first)  # to more than the step
    if length == 0 or rounded:
        return
    for _ in range(DIRECTIONS):
        drawn = [torch.randn(weight.shape, generator=chance).to(weight) for weight in weights]
        along = [part * (DIFFERENCE * length_of(weights) / length_of(drawn)) for part in drawn]
        inner = torch.stack([(value * part).sum() for value, part in zip(first, along, strict=True)]).sum()
        found = torch.autograd.grad(inner, weights, materialize_grads=True, retain_graph=True)
        sides = []
        for sign in (1, -1):
            with moved(weights, along, sign):
                sides.append(gradient())
        expected = [(one - other) / 2 for one, other in zip(*sides, strict=True)]
        off = length_of([one - other for one, other in zip(found, expected, strict=True)])
        if off <= FAR * length_of(expected) + ROUNDING * length:
            return
    refuse(f"{type(model).__name__} cannot be differentiated twice (another second derivative than its gradients)")


def length_of(parts: Sequence[Tensor]) -> float:
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
