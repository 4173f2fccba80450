"""Gradients of single samples, for what cannot be had without them: norms, and models without forward mode.

    g_i = grad loss_i,   |g_i|^2 = sum over parameters of g_i^2

They are formed for a part of a batch at a time and never stored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.crew import ALONE, Crew
from defense.data.splits import Split
from defense.influence.batching import fitted, gathered
from defense.influence.finite import finite
from defense.influence.members import Member, Parameters, logits_at, masked
from defense.memory import Memory
from defense.models.modes import evaluating
from defense.watch import Watch

ROOM, FEWEST = 2**24, 32  # numbers that gradients formed together may hold; samples they are of at least


def chunk_of(member: Member, batch_size: int) -> int:
    """Return how many samples of a batch have their gradients formed together: the more, the smaller the model."""
    return min(batch_size, max(FEWEST, ROOM // sum(value.numel() for value in member.parameters.values())))


def gradients_of_batch(model: nn.Module, member: Member, x: Tensor, labels: Tensor) -> Parameters:
    """Return g_i of each sample by name of parameter: (b, ...). The model is in eval mode, its masks on."""

    def loss(parameters: Parameters, picture: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(logits_at(model, member, parameters, picture[None]), label[None])

    with sdpa_kernel(SDPBackend.MATH):
        gradients: Parameters = vmap(grad(loss), in_dims=(None, 0, 0))(member.parameters, x, labels)
    return gradients


@torch.no_grad()
def squared_norms(
    model: nn.Module,
    member: Member,
    split: Split,
    *,
    batch_size: int | None,
    watch: Watch,
    memory: Memory,
    crew: Crew = ALONE,
) -> Tensor:
    """Return |g_i|^2 for each sample of `split`: (n,), on the CPU.

    memory: keeps what is done so far; crew: shares the batches. Raises FloatingPointError that names the id of the
    first sample for which it is not finite.
    """

    def one_batch(rows: slice, x: Tensor, labels: Tensor) -> Tensor:
        gradients = gradients_of_batch(model, member, x, labels)
        squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0)
        return finite(squares, split, rows, "the score of training sample")

    def one_pass(size: int) -> Tensor:
        part = f"{member.name} squared norms"
        return gathered(split, chunk_of(member, size), one_batch, watch=watch, memory=memory, part=part, crew=crew)

    with evaluating(model), masked(model, member):
        return fitted(batch_size, split, one_pass)
