"""Parts of your own: copy this file beside your data, change a function, and name it on the command line.

defense scorer._target_=my_parts.alignment
defense objective._target_=my_parts.margin
defense attack._target_=my_parts.ascent attack.arguments.steps=20
defense treatment._target_=my_parts.drop_lowest
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from defense.data.splits import Split


def margin(logits: Tensor, labels: Tensor, *, least: float = -torch.inf) -> Tensor:
    """Return how far the highest other logit is above that of the label, of each sample: (n,), lower is better.

    least: what a sample counts that is right by more than that.
    """
    label = labels[:, None]
    other = logits.scatter(1, label, -torch.inf).amax(1)
    return (other - logits.gather(1, label).squeeze(1)).clamp_min(least)


def ascent(model: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int, steps: int = 10) -> Tensor:
    """Return pictures (n, C, H, W) moved up the loss within eps: PGD of Madry et al. 2018, nothing drawn."""

    def length(moves: Tensor) -> Tensor:
        return moves.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)

    moved = x.clone()
    for _ in range(steps):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(moved), y), moved)
        way = slope.sign() if norm == "Linf" else slope / length(slope)
        move = moved.detach() + 2.5 * eps / steps * way - x
        move = move.clamp(-eps, eps) if norm == "Linf" else move * (eps / length(move)).clamp_max(1)
        moved = (x + move).clamp(0, 1)
    return moved


def momentum(model: nn.Module, x: Tensor, y: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
    """Return pictures attacked by a class of torchattacks; those of other libraries fit as well."""
    import torchattacks

    return torchattacks.MIFGSM(model, eps=eps, alpha=eps / 4, steps=10)(x, y)


def alignment(
    model: nn.Module, train: Split, validation: Split, *, objective: Callable[[nn.Module], Tensor], seed: int
) -> Tensor:
    """Return grad v . grad loss_i (n,), v the objective: what a step along sample i takes off it."""
    weights = dict(model.named_parameters())
    target = dict(zip(weights, torch.autograd.grad(objective(model), list(weights.values())), strict=True))

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    products = []
    for _, x, y in train.batches(64):
        each = gradients(weights, x, y)
        products.append(sum((each[name] * target[name]).flatten(1).sum(1) for name in weights))
    return torch.cat(products)


def error_norm(
    model: nn.Module,
    train: Split,
    validation: Split,
    *,
    objective: Callable[[nn.Module], Tensor],
    seed: int,
    order: float = 2,
) -> Tensor:
    """Return -|softmax(logits_i) - onehot_i| (n,): EL2N of Paul et al. 2021; large errors are suspected."""
    with torch.no_grad():
        batches = [(model(x).softmax(1), y) for _, x, y in train.batches(256)]
    return torch.cat([-(found - F.one_hot(y, found.shape[1])).norm(order, dim=1) for found, y in batches])


def drop_lowest(samples: pd.DataFrame, *, budget: float, classes: int, seed: int) -> pd.DataFrame:
    """Return which samples are kept: all but those of the lowest scores; labels and weights stay."""
    lowest = samples["score"].sort_values(kind="stable").index[: round(budget * len(samples))]
    return pd.DataFrame({"keep": ~samples.index.isin(lowest), "label": samples["label"], "weight": 1.0})


def correct_or_drop(
    samples: pd.DataFrame, *, budget: float, classes: int, seed: int, share: float = 0.5
) -> pd.DataFrame:
    """Return the lowest scores treated: a share gets the label that the model gives, the others are left out."""
    lowest = samples["score"].sort_values(kind="stable").index[: round(budget * len(samples))]
    corrected = lowest[: round(share * len(lowest))]
    label = samples["label"].mask(samples.index.isin(corrected), samples["prediction"])
    keep = ~samples.index.isin(lowest) | samples.index.isin(corrected)
    return pd.DataFrame({"keep": keep, "label": label, "weight": 1.0})
