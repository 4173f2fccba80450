"""The contract of a network: it is one function of its picture, and gives logits.

    f(x_1, ..., x_b) = (f(x_1), ..., f(x_b)),   the same at every call

A network that draws noise, or looks at its batch as a whole, has no gradient of a single sample to score.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from defense.data.splits import Split
from defense.errors import InputError, is_out_of_memory
from defense.models.adapt import LOGITS, returns_logits_alone
from defense.models.modes import evaluating
from defense.randomness import global_seed

log = logging.getLogger(__name__)

FEW = 8  # samples that a network is tried on
AGAIN = (
    1e-4  # of the spread of logits: by how much a second pass may differ; on a GPU sums are not always the same
)
SAME = 1e-3  # and a pass in another batch
COARSE = 0.06  # and of bfloat16
SUM = 1e-3  # by how much the sum of probabilities may miss 1
SUM_COARSE = 0.02  # and of bfloat16


def check_made(model: nn.Module) -> None:
    """Raise InputError if a weight is still to be drawn in the first forward pass, or cannot have a gradient."""
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(weight):
            found = f"{name} is drawn in the first forward pass; call the model once on a batch"
            raise InputError("model", type(model).__name__, found)
        if weight.is_inference():
            found = f"{name} was made inside torch.inference_mode(), so that it has no gradient; make it outside"
            raise InputError("model", type(model).__name__, found)


def logits_on(model: nn.Module, x: Tensor, field: str, name: str, what: str = "pictures") -> Tensor:
    """Return the logits (b, classes) of the model, in eval mode, for pictures x (b, ...); finite or not.

    field, name: of the model, what: of x, for errors. Raises InputError if the model fails, or gives no logits.
    """
    with evaluating(model), torch.no_grad():
        output = attempt(model, x, field, name, what)
    return as_logits(output, len(x), field, name)


def with_logits_alone(model: nn.Module, x: Tensor, field: str, name: str) -> Tensor:
    """Return the logits (b, classes) of pictures x (b, ...), and let the model return nothing else from now on.

    A model that returns a tensor stays as it is. field, name: of the model. Raises InputError; see `logits_on`.
    """
    outputs: list[object] = []
    watch = model.register_forward_hook(lambda _, given, output: outputs.append(output))
    try:
        logits = logits_on(model, x, field, name)
    finally:
        watch.remove()
    if not isinstance(outputs[0], Tensor):
        returns_logits_alone(model)
    return logits


def attempt(model: nn.Module, x: Tensor, field: str, name: str, what: str = "pictures") -> object:
    """Return the output of the model for pictures x (b, ...); raises InputError if it fails."""
    try:
        return model(x)
    except Exception as error:  # a user's code can raise anything
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        shape, why = "x".join(map(str, x.shape[1:])), f"{type(error).__name__}: {first_line(error)}"
        raise InputError(field, name, f"fails on {what} of shape {shape} ({why})") from error


def as_logits(output: object, count: int, field: str, name: str, mode: str = "") -> Tensor:
    """Return `output` if it is logits (count, classes) of two classes or more; raises InputError if not.

    mode: the mode of the model, for the error, as in " in training".
    """
    if not isinstance(output, Tensor):
        names = f" of {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        found = f"gives a {type(output).__name__}{names}{mode}; expected logits (n, classes)"
        raise InputError(field, name, f"{found}, a tuple that begins with them or a dict with {LOGITS!r}")
    if output.ndim != 2 or len(output) != count or output.shape[1] < 2 or not output.is_floating_point():
        found = f"gives {tuple(output.shape)} of {output.dtype} for {count} pictures{mode}"
        raise InputError(field, name, f"{found}; expected logits ({count}, classes) of two classes or more")
    return output


def check_logits(logits: Tensor, field: str, name: str) -> None:
    """Raise InputError if logits (b, classes) of several pictures are probabilities: in [0, 1] with the sum 1.

    A warning in the log if all are in [0, 1] without that sum, as the outputs of a sigmoid are.
    """
    values = logits.detach().double()
    rounding = SUM_COARSE if coarse(logits.detach()) else SUM
    if len(values) < 2 or not bool(((values >= 0) & (values <= 1 + rounding)).all()):
        return
    if bool(((values.sum(1) - 1).abs() <= rounding).all()):
        found = "gives probabilities: each row is in [0, 1] with the sum 1; expected logits, without the softmax"
        raise InputError(field, name, found)
    if len(values) >= FEW:
        log.warning("all logits of %s are in [0, 1]: if they are probabilities, leave out the sigmoid", name)


def oddity(model: nn.Module, split: Split, field: str, name: str, *, most: int = FEW) -> str | None:
    """Return why the model is not one function of its picture, tried on up to `most` samples; None if it is.

    field, name: of the model. Raises InputError if it gives no logits for a single picture.
    """
    count = min(most, len(split))
    x = split.images.take(torch.arange(count) * len(split) // count)
    x = x.to(next((weight.device for weight in model.parameters()), x.device))
    reason = "its logits for a picture depend on the other pictures of the batch"
    with evaluating(model), torch.no_grad(), global_seed(0, "contract"):
        first, second = model(x), model(x)
        if far(first, second, AGAIN):
            return "the same picture gives other logits each time: it draws noise, or keeps a state, in eval mode"
        for row in {0, count - 1}:
            try:
                alone = model(x[row : row + 1])
            except (ValueError, RuntimeError) as error:  # as of batch norm by statistics of the batch
                if isinstance(error, RuntimeError) and is_out_of_memory(error):
                    raise
                return f"{reason} ({first_line(error)})"
            if far(as_logits(alone, 1, field, name), first[row : row + 1], COARSE if coarse(first) else SAME):
                return reason
    return None


def far(one: Tensor, other: Tensor, share: float) -> bool:
    """Return whether two passes over the same pictures differ by more than a `share` of how far logits spread.

    Of logits that are not finite it says no.
    """
    spread = max(float((logits - logits.mean(1, keepdim=True)).abs().max()) for logits in (one, other))
    return float((one - other).abs().max()) > share * spread


def coarse(values: Tensor) -> bool:
    """Return whether all values are numbers of bfloat16, as the outputs of a network that casts inside are."""
    return bool((values == values.bfloat16()).all())


def check_function(model: nn.Module, split: Split, field: str, name: str) -> None:
    """Raise InputError unless the model is one function of its picture; see `oddity`."""
    if found := oddity(model, split, field, name):
        raise InputError(field, name, f"{found}; no sample has a score at it")


def first_line(error: Exception) -> str:
    """Return the first line of an error that is not empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
