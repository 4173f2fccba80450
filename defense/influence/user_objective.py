"""An objective that the user brings: a function of logits and labels, one value for each validation sample.

v = mean_j f(logits_j, label_j),   lower is better
"""

from __future__ import annotations

from math import isclose

import torch
from torch import Tensor

from defense.config.schema import Objective
from defense.data.splits import Split
from defense.influence.finite import finite
from defense.models.contract import FEW
from defense.randomness import generator
from defense.runtime.user_function import UserFunction, in_words

FIELD = "objective"
SAME = 1e-4  # of a value: by how much it may differ if the sample is alone


def values_of(logits: Tensor, split: Split, objective: Objective) -> Tensor:
    """Return f(logits_j, label_j) (n,) of the function that `objective` names, in float32 at least.

    Raises InputError if it gives anything else, FloatingPointError that names the first sample whose value is not
    finite.
    """
    function = UserFunction.of(objective, FIELD)
    values = function(logits, split.labels)
    if not isinstance(values, Tensor) or values.shape != split.labels.shape or not values.is_floating_point():
        raise function.refusal(f"gives {in_words(values)}; expected a float for each of {len(split)} samples")
    return finite(values, split, slice(None), "the objective of validation sample")


def check_user_objective(objective: Objective, split: Split, classes: int) -> None:
    """Raise InputError unless the function gives values that can be differentiated, of a few random logits."""
    function = UserFunction.of(objective, FIELD)
    function.check_signature(("logits", "labels"), ())
    few = split.subset(torch.arange(min(FEW, len(split))))
    chance = generator(0, "user objective")
    logits = torch.randn((len(few), classes), generator=chance).to(few.labels.device).requires_grad_()
    with torch.enable_grad():
        try:
            values = values_of(logits, few, objective)
        except FloatingPointError as error:
            raise function.refusal(f"gives values that are not finite ({error})") from error
        (gradient,) = (
            torch.autograd.grad(values.sum(), logits, allow_unused=True) if values.requires_grad else (None,)
        )
    if gradient is None:
        raise function.refusal("has no gradient by the logits; expected operations of torch on them, not argmax")
    if not bool(gradient.isfinite().all()):
        raise function.refusal("has a gradient by the logits that is not finite")
    alone = values_of(logits[:1], few.subset(torch.arange(1)), objective)
    beside, single = values[0].item(), alone[0].item()
    if not isclose(beside, single, rel_tol=SAME, abs_tol=SAME):
        said = f"gives the first sample {beside:.4g} beside others and {single:.4g} alone"
        raise function.refusal(f"{said}; expected a value for each sample, whose mean is the objective")
