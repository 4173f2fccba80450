"""EK-FAC: the Gauss-Newton matrix layer by layer, by its eigenvalue-corrected Kronecker factors.

Source: George et al. 2018, Grosse et al. 2023 (arXiv 2308.03296); the linear algebra is curvlinops'. Factors exist
for linear and 2d convolution layers that the network calls once, as they are, and that its logits depend on.
"""

from __future__ import annotations

import logging
from collections import Counter
from types import ModuleType

import torch
from torch import Tensor, nn

from defense.errors import InputError
from defense.influence.masks import calls_of
from defense.influence.members import Member, Parameters, installed
from defense.influence.per_sample import differentiating, reason
from defense.models.modes import HOOKS, evaluating

log = logging.getLogger(__name__)
LAYERS = (nn.Linear, nn.Conv2d)


def with_factors(model: nn.Module, member: Member, example: Tensor) -> set[str]:
    """Return the names of the parameters of `member` that have Kronecker factors; example: pictures (b, ...)."""
    called = Counter(call.name for call in calls_of(model, example))
    owners = Counter(id(value) for _, value in model.named_parameters(remove_duplicate=False))
    candidates = {
        f"{name}.{part}".lstrip(".")
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and called[name] == 1 and not any(getattr(module, hooks) for hooks in HOOKS)
        for part, value in module.named_parameters(recurse=False)
        if part in ("weight", "bias") and owners[id(value)] == 1
    }
    with evaluating(model), installed(model, member) as parameters, differentiating(model):
        found = torch.autograd.grad(model(example).sum(), parameters, allow_unused=True)
    used = {name for name, gradient in zip(member.parameters, found, strict=True) if gradient is not None}
    return candidates & used


def kronecker_solve(
    curvlinops: ModuleType,
    model: nn.Module,
    batches: object,
    parameters: dict[str, nn.Parameter],
    gradient: Parameters,
    *,
    damping: float,
) -> Parameters:
    """Return (G + damping I)^-1 gradient for `parameters`, all of which have factors; the member is installed.

    Raises InputError if curvlinops cannot take the network.
    """
    try:
        factors = curvlinops.EKFACLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            list(parameters.values()),
            batches,
            check_deterministic=False,
            fisher_type=curvlinops.FisherType.TYPE2,
        )
        inverse = curvlinops.inverse.KFACInverseLinearOperator(factors, damping=damping, use_exact_damping=True)
        found = inverse @ [gradient[name] for name in parameters]
    except Exception as error:  # a user's network can raise anything
        why = f"does not run on this model ({reason(error)}); expected another direction, as cg"
        raise InputError("scorer.direction", "ekfac", why) from error
    return {name: value.detach() for name, value in zip(parameters, found, strict=True)}
