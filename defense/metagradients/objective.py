"""The objective at the end of a run, and its gradient by the weights and by the statistics of batch norm."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from defense.config.schema import Objective
from defense.data.validation import Validation
from defense.influence.batching import with_auto_batch_size
from defense.influence.members import Parameters
from defense.influence.objectives import gradient_by, term
from defense.metagradients.norms import open_statistics
from defense.models.modes import evaluating


def final_gradients(
    model: nn.Module, validation: Validation, objective: Objective, batch_size: int | None
) -> tuple[dict[str, float], Parameters, Parameters]:
    """Return each term of phi, and the gradients of their weighed sum by weights and statistics, by name.

    phi = sum_p weight_p v_p, in eval mode. Attacked validation images are held fixed: the derivative of a
    maximum is that at the maximiser (Danskin).
    """
    weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
    values: dict[str, float] = {}
    with torch.enable_grad(), evaluating(model), open_statistics(model) as statistics:
        leaves: list[Tensor] = [*weights.values(), *statistics.values()]
        total = [torch.zeros_like(leaf) for leaf in leaves]
        for name, share in objective.weights.items():
            split = validation.seen_by(name, attacked=objective.looks_at_attacked(name))
            one_pass = partial(gradient_by, model, leaves, split, term(name, objective))
            values[str(name)], found = with_auto_batch_size(batch_size, split, one_pass)
            total = [whole + share * part for whole, part in zip(total, found, strict=True)]
    names = [*weights, *statistics]
    both = dict(zip(names, (part.detach() for part in total), strict=True))
    return values, {name: both[name] for name in weights}, {name: both[name] for name in statistics}
