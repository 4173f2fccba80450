"""Gradients of single samples: norms need them, and so do networks that forward mode cannot take.

    g_i = grad loss_i,   |g_i|^2 = sum over parameters of |entry|^2

Two ways give them, tried in this order:

    vectorized     one backward pass for many samples: torch.func's vmap over grad
    one_by_one     one backward pass a sample: plain autograd of the network as it is, which takes any network

The first is compared with the second on a few samples. Gradients are formed for a part of a batch at a time and
never stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.data.splits import Split
from defense.errors import InputError, is_out_of_memory
from defense.influence.batching import map_batches, with_auto_batch_size
from defense.influence.finite import finite
from defense.influence.members import Member, Parameters, installed, logits_at, masked
from defense.models.contract import coarse, first_line
from defense.models.loss import cross_entropy
from defense.models.modes import evaluating
from defense.runtime.runtime import Runtime

log = logging.getLogger(__name__)
Way = Callable[[nn.Module, Member, Tensor, Tensor], Parameters]  # pictures, labels -> g_i (b, ...) by name

ROOM, FEWEST = 2**24, 32  # numbers that gradients formed together may hold; samples they are of at least
COMPARED = 2  # samples of the first batch on which ways are compared
CLOSE = 1e-3  # of the length of a gradient: by how much two ways may differ by rounding
CLOSE_HALF = 0.1  # and if the network, or a part of it, computes in bfloat16
MANY = 16  # numbers that do not all have a short mantissa by chance


def chunk_of(member: Member, batch_size: int) -> int:
    """Return how many samples of a batch have their gradients formed together: the more, the smaller the model."""
    return min(batch_size, max(FEWEST, ROOM // sum(value.numel() for value in member.parameters.values())))


def vectorized(model: nn.Module, member: Member, x: Tensor, labels: Tensor) -> Parameters:
    """Return g_i (b, ...) by name of parameter, of all samples at once; the model is in eval mode."""

    def loss(parameters: Parameters, picture: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(logits_at(model, member, parameters, picture[None]), label[None]).squeeze(0)

    with masked(model, member), sdpa_kernel(SDPBackend.MATH):
        gradients: Parameters = vmap(grad(loss), in_dims=(None, 0, 0))(member.parameters, x, labels)
    return gradients


def one_by_one(model: nn.Module, member: Member, x: Tensor, labels: Tensor) -> Parameters:
    """Return g_i (b, ...) by name of parameter, a backward pass for each sample; the model is in eval mode."""
    with installed(model, member) as parameters, differentiating(model):
        each = [backward(partial(loss_of, model, *one), parameters) for one in zip(x, labels, strict=True)]
    found = zip(member.parameters, zip(*each, strict=True), strict=True)
    return {name: torch.stack(values) for name, values in found}


def loss_of(model: nn.Module, picture: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy () of one picture (C, H, W) and its label ()."""
    return cross_entropy(model(picture[None]), label[None]).squeeze(0)


def backward(compute: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the scalar compute() by `parameters`, zeros for those that it does not depend on.

    Reentrant checkpoints allow `Tensor.backward` alone; their parameters come back with the gradient they had.
    """
    try:
        return list(torch.autograd.grad(compute(), parameters, materialize_grads=True))
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
    before = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        compute().backward()
        found = [parameter.grad for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@dataclass
class Gradients:
    """The first way that this network takes, and that agrees with plain autograd; of one scoring."""

    way: Way | None = None

    def __call__(self, model: nn.Module, member: Member, x: Tensor, labels: Tensor) -> Parameters:
        """Return g_i (b, ...) by name of parameter; the model is in eval mode.

        Raises InputError if plain autograd does not take the network.
        """
        if self.way is not None:
            return self.way(model, member, x, labels)
        try:
            found = vectorized(model, member, x, labels)
            rows = lengths(found).topk(min(COMPARED, len(x))).indices
            why = differs(pick(found, rows), one_by_one(model, member, x[rows], labels[rows]))
        except Exception as error:  # torch.func and a user's network can raise anything
            found, why = {}, reason(error)
        self.way = one_by_one if why else vectorized
        if not why:
            return found
        log.warning("gradients of samples one by one, a backward pass for each: vmap fails (%s)", why)
        return one_by_one(model, member, x, labels)


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Turn the failure of plain autograd into an InputError: there is no other way."""
    try:
        yield
    except Exception as error:  # a user's network can raise anything
        why = f"cannot be differentiated by its weights ({reason(error)})"
        raise InputError("model", type(model).__name__, why) from error


def reason(error: Exception) -> str:
    """Return why a way failed, in one line; raises the error itself if another way cannot help."""
    if isinstance(error, InputError) or (isinstance(error, RuntimeError) and is_out_of_memory(error)):
        raise error
    line = first_line(error).split(". ")[0].removesuffix(".")
    return f"{type(error).__name__}: {line[:160]}"


def differs(found: Parameters, exact: Parameters) -> str | None:
    """Return in words that gradients (b, ...) are not those of plain autograd; None if they are."""
    off = lengths({name: value - exact[name] for name, value in found.items()})
    allowed = closeness(exact) * torch.maximum(lengths(exact), lengths(found))
    return "it gives other gradients than autograd" if bool((off > allowed).any()) else None


def closeness(gradients: Parameters) -> float:
    """Return which share of the length of a gradient is rounding: more if a part was computed in bfloat16."""
    half = any(bool(value.any()) and value.numel() >= MANY and coarse(flat(value)) for value in gradients.values())
    return CLOSE_HALF if half else CLOSE


def pick(gradients: Parameters, rows: Tensor) -> Parameters:
    """Return the gradients (b, ...) of the samples at `rows`."""
    return {name: value[rows] for name, value in gradients.items()}


def flat(value: Tensor) -> Tensor:
    """Return entries (b, ...) as real numbers (b, k), in float32 at least: of a complex entry both its parts."""
    real = torch.view_as_real(value) if value.is_complex() else value
    return real.to(torch.promote_types(real.dtype, torch.float32)).reshape(len(value), -1)


def lengths(gradients: Parameters) -> Tensor:
    """Return |g_i| (b,) of gradients (b, ...) by name."""
    return squares(gradients).sqrt()


def squares(gradients: Parameters) -> Tensor:
    """Return |g_i|^2 (b,) of gradients (b, ...) by name."""
    return torch.stack([flat(value).square().sum(1) for value in gradients.values()]).sum(0)


def length_of(vector: Parameters) -> Tensor:
    """Return the length () of one vector by name of parameter."""
    return lengths({name: value[None] for name, value in vector.items()})[0]


def inner_products(gradients: Parameters, direction: Parameters) -> Tensor:
    """Return g_i . u (b,), real, for gradients (b, ...) by name."""
    return torch.stack([flat(g) @ flat(direction[name][None])[0] for name, g in gradients.items()]).sum(0)


@torch.no_grad()
def squared_norms(
    model: nn.Module,
    member: Member,
    split: Split,
    *,
    batch_size: int | None,
    gradients: Way | None = None,
    runtime: Runtime | None = None,
) -> Tensor:
    """Return |g_i|^2 for each sample of `split`: (n,), on the CPU.

    gradients: how they are formed; runtime: see `map_batches`. Raises FloatingPointError that names the id of the
    first sample for which it is not finite.
    """
    formed = gradients or Gradients()

    def one_batch(rows: slice, x: Tensor, labels: Tensor) -> Tensor:
        found = squares(formed(model, member, x, labels))
        return finite(found, split, rows, "the score of training sample")

    def one_pass(size: int) -> Tensor:
        own = (runtime or Runtime()).named(member.name, "squared norms")
        return map_batches(split, chunk_of(member, size), one_batch, own)

    with evaluating(model):
        return with_auto_batch_size(batch_size, split, one_pass)
