"""The reverse of a training step: what the objective at the end of a run owes to the weight of each sample.

A step of `defense.training.sgd` is

    g = (1/b) sum_{i in B} w_i grad l_i(theta) + lambda theta,   m' = mu m + g,   theta' = theta - eta (g + mu m')

With a = d phi / d theta' and c = d phi / d m', backwards:

    c <- c - eta mu a,   q = c - eta a
    d phi / d w_i += (1/b) q . grad l_i(theta)
    a <- a + lambda q + (1/b) sum_i w_i Hess l_i(theta) q,   c <- mu c

One gradient with its graph kept, and one gradient of its inner product with q, give both sums (Engstrom et al.
2025, arXiv 2503.13751). Averages theta_bar <- beta theta_bar + (1 - beta) theta' and the running statistics of
batch norm are parts of the state, with adjoints of their own. Images that a recipe attacks are held fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from defense.influence.members import Parameters
from defense.metagradients.norms import pull_back, recorded_updates
from defense.training.sgd import TrainingRun


@dataclass(frozen=True)
class Step:
    """One step as it is taken: its learning rate and its attacked images."""

    number: int  # from 0 up
    rate: float
    attacked: Tensor | None  # (b, C, H, W); None if the recipe does not attack


@dataclass
class Adjoints:
    """Derivatives of the objective by the state of a run, by name, and by the weight of each sample so far.

    The reverse of a step changes them in place.
    """

    weights: Parameters  # a
    momentum: Parameters  # c
    statistics: Parameters  # of running statistics of batch norm
    averages: Parameters  # of averaged weights and statistics; empty without averages
    by_sample: Tensor  # d phi / d w_i, float64 (n,)

    @classmethod
    def at_end(cls, run: TrainingRun, weights: Parameters, statistics: Parameters) -> Adjoints:
        """Return the adjoints after the last step: the gradients of the objective at the `result` of a run."""
        by_sample = torch.zeros(len(run.split), dtype=torch.float64)
        if run.state.average is None:
            return cls(weights, zeros_like(weights), statistics, {}, by_sample)
        averages = weights | statistics
        return cls(zeros_like(weights), zeros_like(weights), zeros_like(statistics), averages, by_sample)


def zeros_like(parameters: Parameters) -> Parameters:
    """Return a zero for each number, by the same names."""
    return {name: torch.zeros_like(value) for name, value in parameters.items()}


def reverse(run: TrainingRun, step: Step, before: Parameters, adjoints: Adjoints) -> None:
    """Bring `adjoints` from after a step to before it, in place.

    before: parameters and buffers before the step, by name in the model's state_dict; the model takes them over.
    """
    recipe, batch = run.recipe, run.batch(step.number)
    attacked = batch.images if step.attacked is None else step.attacked
    if adjoints.averages:
        undo_average(adjoints, recipe.ema or 0.0, first=step.number == 0)
    for name, value in run.model.state_dict().items():  # as load_state_dict, in a third of the time
        value.copy_(before[name])
    parameters = {name: value for name, value in run.model.named_parameters() if value.requires_grad}
    weights = batch.weights.detach().clone().requires_grad_()
    with torch.enable_grad(), recorded_updates(run.model) as updates, sdpa_kernel(SDPBackend.MATH):
        each, _ = run.losses.of(run.plain, batch.images, attacked, batch.labels)
        loss = (weights * each).mean()
        found = torch.autograd.grad(loss, list(parameters.values()), create_graph=True, allow_unused=True)
        gradients = {name: value for name, value in zip(parameters, found, strict=True) if value is not None}
        cotangents = {name: cotangent(adjoints, name, step.rate, recipe.momentum) for name in gradients}
        scalar = pull_back(updates, adjoints.statistics)
        for name, value in gradients.items():
            scalar = scalar + (cotangents[name] * value).sum()
        leaves = [parameters[name] for name in gradients]
        *products, by_weight = torch.autograd.grad(scalar, [*leaves, weights], materialize_grads=True)
    for (name, q), product in zip(cotangents.items(), products, strict=True):
        adjoints.weights[name].add_(recipe.weight_decay * q).add_(product)
        adjoints.momentum[name].mul_(recipe.momentum)
    adjoints.by_sample.index_add_(0, batch.rows, by_weight.cpu().double())


def cotangent(adjoints: Adjoints, name: str, rate: float, momentum: float) -> Tensor:
    """Return q of one parameter, and bring c up to date: c <- c - eta mu a, q = c - eta a."""
    own = adjoints.weights[name]
    adjoints.momentum[name].sub_(rate * momentum * own)
    return adjoints.momentum[name] - rate * own


def undo_average(adjoints: Adjoints, decay: float, *, first: bool) -> None:
    """Hand the part of an average that is its newest value to that value; the first value is all of it."""
    share = 1.0 if first else 1 - decay
    for name, value in adjoints.averages.items():
        own = adjoints.statistics if name in adjoints.statistics else adjoints.weights
        own[name] = own[name] + share * value
        adjoints.averages[name] = (1 - share) * value
