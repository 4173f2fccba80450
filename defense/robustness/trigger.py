"""What a planted trigger does at test time."""

from __future__ import annotations

from torch import nn

from defense.data.harm import stamped
from defense.data.splits import Split
from defense.errors import InputError
from defense.models.predict import predict
from defense.schema import Data


def trigger_success(model: nn.Module, test: Split, spec: Data, *, batch_size: int) -> float:
    """Return the share, in [0, 1], of samples not of `spec.harm_target` that the patch sends there.

    The attack success rate of BadNets (Gu et al. 2017). Raises InputError where all samples are of that class.
    """
    others = test.subset((test.truth != spec.harm_target).nonzero().flatten().cpu())
    if len(others) == 0:
        raise InputError("data.harm_target", spec.harm_target, "expected test samples of other classes too")
    predictions = predict(model, stamped(others, spec), batch_size=batch_size).argmax(1)
    return float((predictions == spec.harm_target).double().mean())
