"""The model of a notebook: checked before any compute, and left as it was."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor, nn

from defense.data.splits import Split
from defense.errors import InputError
from defense.models.checkpoints import Checkpoint
from defense.models.contract import FEW, check_logits, check_made, logits_on
from defense.models.modes import Scripted, bare
from defense.models.weights import without_wrappers
from defense.randomness import global_seed


def as_model(model: nn.Module) -> nn.Module:
    """Return the network inside its wrappers; raises InputError if it cannot be called or differentiated."""
    if not isinstance(model, nn.Module):
        raise InputError("model", type(model).__name__, "expected a torch.nn.Module")
    check_made(bare(model))
    return bare(model)


def device_of(model: nn.Module, split: Split) -> torch.device:
    """Return where the weights of a model lie; the device of the samples if it has none."""
    weight = next(model.parameters(), next(model.buffers(), split.labels))
    return weight.device


def classes_of(model: nn.Module, split: Split, field: str, few: int = FEW) -> int:
    """Return how many logits the model gives; raises InputError if it does not turn `few` samples into logits.

    field: of the samples, for the error, as in train inputs.
    """
    name = type(model).__name__
    x = split.images.take(torch.arange(min(few, len(split))))
    with global_seed(0, "contract"):
        logits = logits_on(model, x, "model", name, field)
    if not logits.isfinite().all():
        raise InputError("model", name, f"its logits of {field} are not finite")
    check_logits(logits, "model", name)
    if int(split.labels.max()) >= logits.shape[1] or int(split.labels.min()) < 0:
        found = f"{int(split.labels.min())} to {int(split.labels.max())}"
        valid = f"expected 0 to {logits.shape[1] - 1}, as the model has logits"
        raise InputError(f"{field.split()[0]} labels", found, valid)
    return logits.shape[1]


def as_checkpoints(model: nn.Module, pairs: Sequence[tuple[float, dict[str, Tensor]]]) -> list[Checkpoint]:
    """Return the checkpoints; raises InputError unless each is one of `model`, and has weights of its own."""
    states = [as_checkpoint(model, f"checkpoint {i}", *pair) for i, pair in enumerate(pairs, start=1)]
    changing = {name for name, value in model.named_parameters() if value.requires_grad}
    changing |= {name for name, _ in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    owners: dict[int, str] = {}
    for point in states:
        for name in changing & set(point.state):
            first = owners.setdefault(point.state[name].data_ptr(), point.name)
            if first != point.name:
                found = f"shares the memory of {name} with {first}, so that both are the same weights"
                raise InputError("checkpoints", point.name, f"{found}; keep copies, as by copy.deepcopy")
    return states


def as_checkpoint(model: nn.Module, name: str, rate: float, state: dict[str, Tensor]) -> Checkpoint:
    """Return one checkpoint; raises InputError unless it is one of `model`."""
    own, inside = model.state_dict(), "network." if isinstance(model, Scripted) else ""
    unwrapped = without_wrappers(state, {key.removeprefix(inside) for key in own})
    state = {f"{inside}{key}": value for key, value in unwrapped.items()}
    odd = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    if odd:
        raise InputError(
            "checkpoints", name, f"has no {odd[0]} of shape {tuple(own[odd[0]].shape)}, as the model has"
        )
    if not isfinite(rate):
        raise InputError("checkpoints", rate, "expected a learning rate and a state_dict")
    return Checkpoint(name, rate, state)
