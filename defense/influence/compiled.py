"""A derivative compiled by torch.compile: the same number from fewer passes over memory.

The derivative is traced once into plain tensor operations, with parameters, direction, buffers and masks as
inputs, so one program serves every member that has the same masks or none: the whole model and its sub-networks
are two. The user's model is only read. The last, short batch is filled up to the size of the others and cut again.

A model that cannot be traced or compiled (its forward looks at values, or there is no C++ compiler) is said in the
log and runs as it is: the scores are the same. What its forward decides by other means is decided once, while it
is traced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from defense.errors import is_out_of_memory
from defense.influence.alignment import Derivative
from defense.influence.members import Member, Parameters

log = logging.getLogger(__name__)
Program = Callable[[Parameters, Parameters, Parameters, Parameters, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Compiled:
    """A derivative that compiles itself on its first batch; it lives as long as one scoring."""

    derivative: Derivative
    programs: dict[object, tuple[int, Program] | None] = field(default_factory=dict)  # with the size of batch

    def __call__(
        self, model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the derivative (b,); see `forward_derivative`."""
        shapes = tuple(tuple(values) for values in (member.parameters, member.rest, member.masks))
        key = (model, shapes, x.shape[1:], x.stride(), x.dtype)
        known = self.programs.get(key)
        if key not in self.programs or (known is not None and known[0] < len(x)):
            known = self.programs[key] = self.attempt(model, member, direction, x, labels)
        if known is None:
            return self.derivative(model, member, direction, x, labels)
        size, program = known
        numbers = (member.parameters, direction, member.rest, member.masks)
        try:
            return program(*numbers, filled(x, size), filled(labels, size))[: len(x)]
        except RuntimeError as error:
            if is_out_of_memory(error):
                del self.programs[key]  # smaller batches follow, and would be filled up to this size
            raise

    def attempt(
        self, model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
    ) -> tuple[int, Program] | None:
        """Return a program that has run, for batches of up to len(x); None where the model cannot be compiled."""
        try:
            program = compiled(self.derivative, model, member, direction, x, labels)
            program(member.parameters, direction, member.rest, member.masks, x, labels)
        except Exception as error:  # a user's network, and the compiler, can raise anything
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            log.warning("not compiled, the scores are the same: %s: %s", type(error).__name__, first_line(error))
            return None
        return len(x), program


def compiled(
    derivative: Derivative, model: nn.Module, member: Member, direction: Parameters, x: Tensor, labels: Tensor
) -> Program:
    """Return `derivative` as a program of the numbers that it depends on, for inputs of the shapes given."""

    def pure(
        parameters: Parameters, u: Parameters, rest: Parameters, masks: Parameters, x: Tensor, labels: Tensor
    ) -> Tensor:
        at = replace(member, parameters=parameters, rest=rest, masks=masks)
        return derivative(model, at, u, x, labels)

    # fake tensors have shapes and no values: a forward that branches on values fails here, not silently later
    trace = make_fx(pure, tracing_mode="fake", _allow_non_fake_inputs=True)
    graph = trace(member.parameters, direction, member.rest, member.masks, x, labels)
    graph.graph.eliminate_dead_code()  # of questions that forward mode asks about shapes
    graph.recompile()
    program: Program = torch.compile(graph, fullgraph=True, dynamic=False)
    return program


def filled(values: Tensor, size: int) -> Tensor:
    """Return values (b, ...) followed by copies of the last up to `size` rows, in the same layout."""
    if len(values) == size:
        return values
    out = torch.empty_strided((size, *values.shape[1:]), values.stride(), dtype=values.dtype, device=values.device)
    out[: len(values)], out[len(values) :] = values, values[-1]
    return out


def first_line(error: Exception) -> str:
    """Return what went wrong without the compiler's output."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
