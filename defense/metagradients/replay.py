"""The states of a training run, and its steps again from one state to the next.

States are kept before every k-th step, k about sqrt(T) of T steps, and at the end. A segment between two of them
is computed again when the reverse pass comes to it, so that about 2 sqrt(T) states are in memory at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from defense.errors import InputError
from defense.influence.members import Parameters
from defense.metagradients.reverse import Step
from defense.runtime.checkpoint import Checkpointer, ThrottledCheckpoint, packed, unpacked
from defense.runtime.runtime import Runtime
from defense.training.sgd import TrainingRun

State = dict[str, Tensor]  # as `packed` has it


def marks(total: int) -> list[int]:
    """Return the steps before which states of a run of `total` steps are kept, and the end."""
    return [*range(0, total, math.ceil(math.sqrt(total))), total]


def segments(total: int) -> list[tuple[int, int]]:
    """Return the stretches (start, stop) between the states that are kept."""
    return list(itertools.pairwise(marks(total)))


def state_of(run: TrainingRun, done: int) -> State:
    """Return a copy of the state of a run after `done` steps."""
    state: dict[str, Any] = run.state.state(done)
    return {name: value.detach().cpu().clone() for name, value in packed(state).items()}


def take(run: TrainingRun, start: int, stop: int, before: Callable[[Step], None] = lambda step: None) -> None:
    """Take the steps from `start` to `stop`, and call `before` with each just before it is taken."""
    for epoch in range(start // run.steps, math.ceil(stop / run.steps)):
        with run.epoch(epoch), deterministic_kernels():
            for number in range(max(start, epoch * run.steps), min(stop, (epoch + 1) * run.steps)):
                batch = run.batch(number)
                attacked = run.attacked(batch)
                before(Step(number, run.rate, None if attacked is batch.images else attacked))
                run.step(batch, attacked)


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Let cuDNN take kernels that give the same bits each time while inside; those of the CPU do."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def record_states(run: TrainingRun, total: int, runtime: Runtime) -> dict[int, State]:
    """Take the first `total` steps of a run, and return the states that `marks` names.

    A killed run goes on after the states that the checkpoint of `runtime` has. Raises InputError if the disk has
    no room for the states.
    """
    checkpoint = ThrottledCheckpoint(runtime.checkpoint)
    parts, states = segments(total), states_kept(checkpoint)
    if states:
        run.state.begin(unpacked(states[max(states)]))
    else:
        states[0] = state_of(run, 0)
    check_room(states[max(states)], 2 * len(parts), checkpoint)  # those that a kill leaves, and those of the entry
    done, saved = max(states), 0 if len(states) == 1 else len(states)
    for start, stop in parts:
        if start < done:
            continue
        take(run, start, stop, lambda step: runtime.progress(step.number + 1, total))
        states[stop] = state_of(run, stop)
        if checkpoint.due():
            new = dict(list(states.items())[saved:])
            checkpoint.save(f"states from {saved}", by_name(new))
            saved = len(states)
    return states


def check_room(state: State, count: int, checkpoint: Checkpointer) -> None:
    """Raise InputError if there is no room for `count` states like this one."""
    needed = count * sum(value.nbytes for value in state.values())
    if needed > checkpoint.free():
        sizes = f"{needed / 2**30:.2g} GiB for the states of the training, and {checkpoint.free() / 2**30:.2g} GiB"
        raise InputError("store", "its disk", f"expected {sizes} are free; make room, or use another scorer")


def states_kept(checkpoint: Checkpointer) -> dict[int, State]:
    """Return the states in the checkpoint of a killed training, in order."""
    states: dict[int, State] = {}
    while (found := checkpoint.load(f"states from {len(states)}")) is not None:
        states |= states_of(found)
    return states


def by_name(states: Mapping[int, State]) -> dict[str, Tensor]:
    """Return states as tensors, each named after its step."""
    return {f"{step}/{name}": value for step, state in states.items() for name, value in state.items()}


def states_of(tensors: Mapping[str, Tensor]) -> dict[int, State]:
    """Return the states that `by_name` has named, in order of steps."""
    states: dict[int, State] = {}
    for name, value in tensors.items():
        step, _, own = name.partition("/")
        states.setdefault(int(step), {})[own] = value
    return dict(sorted(states.items()))


def replay(run: TrainingRun, states: Mapping[int, State], start: int, stop: int) -> list[tuple[Step, Parameters]]:
    """Return the steps of one segment, taken again from its first state, and the network's state before each.

    See `segments`. Raises InputError unless they end at the bits of the next state.
    """
    run.state.begin(unpacked(states[start]))
    taken: list[tuple[Step, Parameters]] = []
    take(run, start, stop, lambda step: taken.append((step, copy_of(run.model))))
    again, known = state_of(run, stop), states[stop]
    if again.keys() != known.keys() or not all(torch.equal(again[name], known[name]) for name in known):
        found = f"steps {start + 1} to {stop} of the training end at other bits than before"
        raise InputError("scorer", "metagradient", f"{found}; expected the processor and packages of that time")
    return taken


def copy_of(model: nn.Module) -> Parameters:
    """Return a copy of the parameters and buffers of a network, by name in its state_dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
