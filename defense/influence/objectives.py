"""What a score is aligned with: scalars v of the parameters on the validation set, lower is better.

An objective is a function of all logits of the validation set, so its gradient is exact for any size of the set:

    grad v = sum_j  (d logits_j / d theta)^T  (d v / d logits_j)

The logits are computed once, v is differentiated at the logits, and each batch then carries its share back to the
parameters. An objective need not be a mean over samples: gaps between groups are as exact as losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from defense.config.choices import ObjectiveName
from defense.config.schema import Objective
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.batching import with_auto_batch_size
from defense.influence.finite import finite
from defense.influence.members import Member, Parameters, installed
from defense.influence.per_sample import backward, differentiating
from defense.influence.user_objective import check_user_objective, values_of
from defense.models.loss import cross_entropy
from defense.models.modes import evaluating
from defense.runtime.distributed import SINGLE_PROCESS, Ranks, raise_on_all, shard_batches


@dataclass(frozen=True)
class Part:
    """One term of an objective at one member: v and grad v, and the weight that it has in the sum."""

    name: ObjectiveName
    weight: float
    value: float
    gradient: Parameters


def mean_loss(logits: Tensor, split: Split, positive: int) -> Tensor:
    """v = mean_j cross_entropy_j: utility on clean pictures, robustness on attacked ones."""
    return cross_entropy(logits, split.labels).mean()


def demographic_parity(logits: Tensor, split: Split, positive: int) -> Tensor:
    """v = max - min over groups of the mean probability of class `positive` (Dwork et al. 2012).

    For two groups this is the absolute gap.
    """
    return group_gap(logits, split, positive, ObjectiveName.demographic_parity)


def equal_opportunity(logits: Tensor, split: Split, positive: int) -> Tensor:
    """The gap of `demographic_parity` among the samples whose label is `positive` (Hardt et al. 2016)."""
    return group_gap(logits, split, positive, ObjectiveName.equal_opportunity)


def group_gap(logits: Tensor, split: Split, positive: int, name: ObjectiveName) -> Tensor:
    """Return max - min over groups of the mean probability of class `positive`; `name` chooses the samples."""
    probability = logits.softmax(1)[:, positive]
    means = torch.stack([probability[group].mean() for group in counted_groups(split, positive, name)])
    return means.max() - means.min()


def counted_groups(split: Split, positive: int, name: ObjectiveName) -> list[Tensor]:
    """Return for each group which samples (n,) the gap `name` counts: all, or those with label `positive`.

    Raises InputError unless there are at least two groups, each with such samples.
    """
    counted = torch.ones_like(split.labels, dtype=torch.bool)
    if name is ObjectiveName.equal_opportunity:
        counted = split.labels == positive
    groups = [] if split.groups is None else [counted & (split.groups == group) for group in split.groups.unique()]
    if len(groups) < 2 or not all(bool(group.any()) for group in groups):
        said = "expected validation samples of two groups or more"
        if name is ObjectiveName.equal_opportunity:  # the others count every sample
            said += ", each with some of the class objective.positive"
        raise InputError("objective.weights", name, f"{said}: data.sensitive of a table, train_groups of data=npz")
    return groups


Function = Callable[..., Tensor]
OBJECTIVES: dict[ObjectiveName, Function] = {
    ObjectiveName.utility: mean_loss,
    ObjectiveName.robustness: mean_loss,
    ObjectiveName.demographic_parity: demographic_parity,
    ObjectiveName.equal_opportunity: equal_opportunity,
}


def objective_value(logits: Mapping[str, Tensor], validation: Validation, objective: Objective) -> float:
    """Return v for logits (v, classes) of the validation pictures: `clean`, and `adversarial`."""
    total = 0.0
    for name, weight in objective.weights.items():
        total += weight * term(name, objective)(*seen(logits, validation, objective, name)).item()
    return total


def seen(
    logits: Mapping[str, Tensor], validation: Validation, objective: Objective, name: ObjectiveName
) -> tuple[Tensor, Split]:
    """Return the logits (v, classes), by `clean` and `adversarial`, and the samples that a term looks at."""
    attacked = objective.looks_at_attacked(name)
    return logits["adversarial" if attacked else "clean"], validation.seen_by(name, attacked=attacked)


def term(name: ObjectiveName, objective: Objective) -> Callable[[Tensor, Split], Tensor]:
    """Return v of one term, as a function of all logits and their samples."""
    if name is ObjectiveName.own:
        return lambda logits, split: values_of(logits, split, objective).mean()
    return partial(OBJECTIVES[name], positive=objective.positive)


def contributions(logits: Mapping[str, Tensor], validation: Validation, objective: Objective) -> Tensor:
    """Return the contribution (v,) of each validation sample to v: their mean is v, their spread its uncertainty.

    logits: (v, classes), as of `objective_value`. The contribution to a mean is the value of the sample. That to a
    gap is the infinitesimal jackknife: v and its derivative by the share of the sample (Jaeckel 1972).
    """
    total = torch.zeros(len(validation.clean), dtype=torch.float64, device=validation.clean.labels.device)
    for name, weight in objective.weights.items():
        own, split = seen(logits, validation, objective, name)
        if name is ObjectiveName.own:
            total += weight * values_of(own.double(), split, objective)
        elif OBJECTIVES[name] is mean_loss:
            total += weight * cross_entropy(own.double(), split.labels)
        else:
            gap = OBJECTIVES[name](own.double(), split, objective.positive)
            total += weight * (gap + gap_derivative(own.double(), split, objective.positive, name))
    return total


def gap_derivative(logits: Tensor, split: Split, positive: int, name: ObjectiveName) -> Tensor:
    """Return the derivative (v,) of `group_gap` by the share of each sample."""
    probability = logits.softmax(1)[:, positive]
    groups = counted_groups(split, positive, name)
    groups.sort(key=lambda group: float(probability[group].mean()))
    found = torch.zeros_like(probability)
    for group, sign in ((groups[0], -1), (groups[-1], 1)):
        found[group] += sign * len(found) / group.sum() * (probability[group] - probability[group].mean())
    return found


def check_objective(objective: Objective, split: Split, classes: int) -> None:
    """Raise InputError if a term of `objective` cannot be computed on the validation samples of `split`."""
    blank = torch.zeros((len(split), classes), device=split.labels.device)
    for name in objective.weights:
        if name is ObjectiveName.own:
            check_user_objective(objective, split, classes)
        elif (function := OBJECTIVES[name]) is not mean_loss:
            if objective.positive >= classes:
                raise InputError("objective.positive", objective.positive, f"expected a class, 0 to {classes - 1}")
            function(blank, split, objective.positive)


def parts_of(
    model: nn.Module,
    member: Member,
    validation: Validation,
    objective: Objective,
    *,
    batch_size: int | None,
    ranks: Ranks = SINGLE_PROCESS,
) -> list[Part]:
    """Return every term of `objective` with its gradient at `member`, in eval mode. ranks: shares the batches."""
    parts = []
    for name, weight in objective.weights.items():
        split = validation.seen_by(name, attacked=objective.looks_at_attacked(name))
        value, gradient = value_and_gradient(
            model, member, split, term(name, objective), batch_size=batch_size, ranks=ranks
        )
        parts.append(Part(name, weight, value, gradient))
    return parts


def value_and_gradient(
    model: nn.Module,
    member: Member,
    split: Split,
    function: Callable[[Tensor, Split], Tensor],
    *,
    batch_size: int | None,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[float, Parameters]:
    """Return v = function(all logits, split) and grad v, whatever the size of the batches.

    ranks: shares the batches; each process adds up its own. Raises FloatingPointError if they are not
    finite; it names the first sample with such logits or loss.
    """

    def one_pass(size: int) -> tuple[float, Parameters]:
        return gradient_in_batches(model, member, split, function, size, ranks)

    with evaluating(model):
        return with_auto_batch_size(batch_size, split, one_pass)


def batch_share(model: nn.Module, x: Tensor, cotangent: Tensor) -> Tensor:
    """Return the scalar whose gradient by the parameters is the share of one batch in grad v."""
    return (model(x) * cotangent).sum()


def gradient_in_batches(
    model: nn.Module,
    member: Member,
    split: Split,
    function: Callable[[Tensor, Split], Tensor],
    size: int,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[float, Parameters]:
    """Return `value_and_gradient` by batches of `size`, in plain autograd; the model is in eval mode."""
    with installed(model, member) as parameters:
        value, gradient = gradient_by(model, parameters, split, function, size, ranks)
    return value, dict(zip(member.parameters, gradient, strict=True))


def gradient_by(
    model: nn.Module,
    leaves: Sequence[Tensor],
    split: Split,
    function: Callable[[Tensor, Split], Tensor],
    size: int,
    ranks: Ranks = SINGLE_PROCESS,
) -> tuple[float, list[Tensor]]:
    """Return v = function(all logits, split) and its gradient by `leaves` of the model, by batches of `size`."""
    gradient = [torch.zeros_like(leaf) for leaf in leaves]
    mine = shard_batches(ranks, len(split), size)

    @torch.no_grad()
    def own_logits() -> Tensor:
        batches = split.batches(size, start=mine.start, stop=mine.stop)
        logits = [model(x) for _, x, _ in batches]
        return torch.cat(logits) if logits else torch.empty(0)

    logits = ranks.gather(raise_on_all(ranks, own_logits)).to(split.labels.device)
    finite(logits, split, slice(None), "the prediction of validation sample")
    finite(cross_entropy(logits, split.labels), split, slice(None), "the loss of validation sample")
    logits.requires_grad_()
    value = function(logits, split)
    (cotangent,) = torch.autograd.grad(value, logits)

    def carry_own() -> None:
        for rows, x, _ in split.batches(size, start=mine.start, stop=mine.stop):
            with differentiating(model):
                added = backward(partial(batch_share, model, x, cotangent[rows]), leaves)
            for total, add in zip(gradient, added, strict=True):
                total += add

    raise_on_all(ranks, carry_own)
    ranks.sum(gradient)
    if not all(bool(part.isfinite().all()) for part in (value, *gradient)):
        raise FloatingPointError("the gradient of the objective is not finite, although every validation loss is")
    return value.item(), gradient
