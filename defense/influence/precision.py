"""Derivatives in reduced precision, by choice alone, with their rank correlation to full precision beside them.

    32-true   as the model is
    tf32      float32 numbers, whose products are rounded to 10 bits of mantissa: the tensor cores of a GPU
    bf16      pictures, parameters, buffers and direction in bfloat16 (8 bits); losses in float32

The gradient of the objective stays in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from defense.config.schema import Scorer
from defense.data.splits import Split
from defense.errors import InputError
from defense.influence.alignment import Derivative, directional_derivatives
from defense.influence.compiled import Compiled
from defense.influence.members import Member, Parameters
from defense.runtime.distributed import SINGLE_PROCESS
from defense.runtime.runtime import Runtime

COMPARED = 512  # samples whose derivatives are taken in full precision too


@contextmanager
def tensor_float32() -> Iterator[None]:
    """Allow TF32 in products of matrices and in convolutions while inside."""
    settings = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        yield
    finally:
        torch.set_float32_matmul_precision(settings[0])
        torch.backends.cudnn.allow_tf32 = settings[1]


def full(derivative: Derivative) -> Derivative:
    """Return the derivative as it is."""
    return derivative


def in_tf32(derivative: Derivative) -> Derivative:
    """Return the derivative with its products in TF32."""

    def reduced(model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor) -> Tensor:
        with tensor_float32():
            return derivative(model, member, direction, x, labels)

    return reduced


def in_bf16(derivative: Derivative) -> Derivative:
    """Return the derivative in bfloat16; raises InputError if the model does not run in it.

    Everything is cast, for torch.autocast does not reach into forward mode: it loses the type of a dual number.
    """

    def cast(values: Parameters) -> Parameters:
        return {name: v.bfloat16() if v.is_floating_point() else v for name, v in values.items()}

    def reduced(model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor) -> Tensor:
        at = replace(member, parameters=cast(member.parameters), rest=cast(member.rest), masks=cast(member.masks))
        try:
            return derivative(model, at, cast(direction), x.bfloat16(), labels)
        except NotImplementedError:
            raise
        except RuntimeError as error:
            if not any(word in str(error) for word in ("dtype", "type (", "scalar type", "BFloat16")):
                raise
            raise InputError("scorer.precision", "bf16", f"this model does not run in it ({error})") from error

    return reduced


REDUCED: dict[str, Callable[[Derivative], Derivative]] = {"32-true": full, "tf32": in_tf32, "bf16": in_bf16}


def check_precision(scorer: Scorer, device: torch.device) -> None:
    """Raise InputError if the device has no such precision."""
    if scorer.precision == "tf32" and device.type != "cuda":
        raise InputError("scorer.precision", "tf32", f"no effect on {device.type}; expected 32-true or bf16")


def derivative_for(scorer: Scorer, derivative: Derivative) -> Derivative:
    """Return `derivative` as the settings ask for it: compiled or not, in their precision."""
    return REDUCED[scorer.precision](Compiled(derivative) if scorer.compile else derivative)


def rank_correlation(
    scores: Tensor,
    model: nn.Module,
    member: Member,
    split: Split,
    direction: Parameters,
    *,
    batch_size: int | None,
    runtime: Runtime | None = None,
) -> float:
    """Return Spearman's rank correlation of derivatives (n,) with those in full precision.

    It is taken over at most `COMPARED` samples, evenly spaced in `split`.
    """
    rows = torch.linspace(0, len(split) - 1, min(len(split), COMPARED)).round().long()
    part, own = split.subset(rows), Runtime(ranks=runtime.ranks if runtime else SINGLE_PROCESS)
    exact = directional_derivatives(model, member, part, direction, batch_size=batch_size, runtime=own)
    return float(spearmanr(scores[rows].double().numpy(), exact.numpy()).statistic)
