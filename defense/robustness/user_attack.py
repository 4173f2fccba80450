"""An attack that the user brings: a function of a model, pictures and labels, for any norm and radius."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from defense.config.schema import Attack, Threat
from defense.data.splits import Split
from defense.models.contract import FEW
from defense.models.modes import evaluating, frozen
from defense.randomness import global_seed
from defense.robustness.ball import check_inside
from defense.runtime.user_function import UserFunction, in_words


def own(
    model: nn.Module, attack: Attack, threat: Threat, classes: int, seed: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Call the function that the settings name (Attack._target_)."""
    return partial(attacked, UserFunction.of(attack, "attack"), model, threat=threat, seed=seed)


def attacked(
    function: UserFunction, model: nn.Module, x: Tensor, labels: Tensor, *, threat: Threat, seed: int
) -> Tensor:
    """Return the pictures (b, C, H, W) that the function makes of `x`; it is given copies.

    Raises InputError unless they are finite, in the ball and in [0, 1].
    """
    moved = function(model, x.clone(), labels.clone(), norm=str(threat.norm), eps=threat.eps, seed=seed)
    if not isinstance(moved, Tensor) or (moved.shape, moved.dtype) != (x.shape, x.dtype):
        raise function.refusal(f"gives {in_words(moved)}; expected pictures, {in_words(x)}")
    moved = moved.detach().to(x.device)
    try:
        check_inside(x, moved, threat)
    except RuntimeError as error:
        raise function.refusal(f"{error}; expected pictures in the ball and in [0, 1]") from error
    return moved


def check_user_attack(attack: Attack, field: str, model: nn.Module, split: Split, threat: Threat) -> None:
    """Raise InputError unless a function of the user attacks `model`; tried on a few samples of `split`.

    field: of the settings of the attack, as evaluation.attacks.mine. The model comes back untouched.
    """
    function = UserFunction.of(attack, field)
    function.check_signature(("model", "x", "y"), ("norm", "eps", "seed"))
    _, x, labels = next(split.batches(FEW))
    with evaluating(model), frozen(model), global_seed(0, "user attack"), torch.enable_grad():
        attacked(function, model, x.float(), labels, threat=threat, seed=0)
