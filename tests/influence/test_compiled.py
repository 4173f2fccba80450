"""Compiled derivatives against the same derivatives as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from locale import getpreferredencoding
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from defense.data.splits import Split
from defense.errors import InputError
from defense.influence import compiled as module
from defense.influence.alignment import forward_derivative
from defense.influence.compiled import Compiled, filled
from defense.influence.members import Member, Parameters, dropout, gaussian, single
from defense.models.networks import cnn, mlp
from defense.runtime.progress import no_progress
from tests.calls import directional_derivatives
from tests.conftest import doubles, make_split
from tests.reference import inner_products

SHAPE = (3, 8, 8)


def has_compiler() -> bool:
    """Return whether torch can compile here: it reads files of its own in the encoding of the locale."""
    try:
        return bool(get_cpp_compiler()) and "utf" in getpreferredencoding(False).lower()
    except InvalidCxxCompiler:
        return False


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler here, or no UTF-8")


def network(builder: Callable[..., nn.Module], **changes: Any) -> nn.Module:
    """Return a network whose batch norms have statistics of their own, in training mode."""
    torch.manual_seed(0)
    model = builder(input_shape=SHAPE, classes=4, mean=[0.5] * 3, std=[0.3] * 3, **changes)
    with torch.no_grad():
        model(torch.rand(32, *SHAPE))
    return model


def along(member: Member, seed: int = 3) -> Parameters:
    chance = torch.Generator().manual_seed(seed)
    return {name: torch.randn(v.shape, generator=chance).to(v) for name, v in member.parameters.items()}


def scores(model: nn.Module, member: Member, split: Split, derivative: Any = forward_derivative) -> Tensor:
    direction = along(member)
    return directional_derivatives(
        model, member, split, direction, batch_size=4, progress=no_progress, derivative=derivative
    )


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@needs_compiler
@pytest.mark.parametrize(
    ("builder", "changes", "dtype", "tolerance"),
    [
        (mlp, {"hidden": [8]}, torch.float64, 1e-9),
        pytest.param(cnn, {"width": 4}, torch.float64, 1e-9, marks=pytest.mark.slow),
        pytest.param(cnn, {"width": 4}, torch.float32, 1e-5, marks=pytest.mark.slow),
        pytest.param(mlp, {"hidden": [8]}, torch.float32, 1e-5, marks=pytest.mark.slow),
    ],
)
def test_equals_eager(
    builder: Callable[..., nn.Module], changes: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    """The split of 10 ends in a batch of 2."""
    model, split = network(builder, **changes).to(dtype), make_split(10, 4, SHAPE)
    split = doubles(split) if dtype is torch.float64 else split
    derivative, member = Compiled(forward_derivative), single(model)
    found = scores(model, member, split, derivative)
    assert all(derivative.programs.values())
    assert distance(found, scores(model, member, split)) < tolerance


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """A list that grows by one with each program; programs are traced and guarded, but not made into C++."""
    made: list[object] = []
    original = torch.compile

    def counting(graph: nn.Module, **options: Any) -> Any:
        made.append(graph)
        return original(graph, backend="eager", **options)

    monkeypatch.setattr(module.torch, "compile", counting)
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield made


def test_members_share_programs_and_the_model_stays_as_it_is(traced: list[object]) -> None:
    """One program for the model and its noisy copies, one for all sub-networks."""
    model, split = network(mlp, hidden=[8]), make_split(10, 4, SHAPE)
    derivative, member = Compiled(forward_derivative), single(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = [set(vars(part)) for part in model.modules()]
    example = split.images.take(torch.arange(2))
    members = [
        *gaussian(member, count=2, std=0.1, seed=0),
        *dropout(member, model, example, count=4, max_rate=0.9, seed=0),
    ]
    for at in members:
        assert distance(scores(model, at, split, derivative), scores(model, at, split)) < 1e-5
    assert len(traced) == 2
    assert all(derivative.programs.values())
    assert [set(vars(part)) for part in model.modules()] == attributes
    assert all(part.training and not part._forward_pre_hooks for part in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        return self.head(self.inner(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_attention(traced: list[object]) -> None:
    torch.manual_seed(0)
    model, split = Attention(), make_split(6, 4, (3, 2, 4))
    found = scores(model, single(model), split, Compiled(forward_derivative))
    assert distance(found, scores(model, single(model), split)) < 1e-5
    assert len(traced) == 1


class Branches(nn.Module):
    """Looks at values, which no trace can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) if x.mean() > 0 else self.head(-x.flatten(1))


def test_a_model_that_cannot_be_compiled_is_said_once_and_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, split = Branches(), make_split(10, 4, SHAPE)
    with caplog.at_level(logging.WARNING):
        found = scores(model, single(model), split, Compiled(forward_derivative))
    assert caplog.text.count("not compiled, the scores are the same") == 1
    torch.testing.assert_close(found, scores(model, single(model), split))


def test_a_model_without_forward_mode_falls_back_as_it_does_uncompiled(caplog: pytest.LogCaptureFixture) -> None:
    from tests.influence.test_alignment import Squares

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), Squares(), nn.Linear(8, 4)).eval()
    split, member = make_split(7, 4, SHAPE), single(model)
    direction = {n: torch.autograd.grad(loss_of(model, split), p)[0] for n, p in model.named_parameters()}
    with caplog.at_level(logging.WARNING):
        found = directional_derivatives(
            model,
            member,
            split,
            direction,
            batch_size=4,
            progress=no_progress,
            derivative=Compiled(forward_derivative),
        )
    assert "gradients per sample instead" in caplog.text
    torch.testing.assert_close(found, inner_products(model, split, split), rtol=1e-4, atol=1e-6)


def loss_of(model: nn.Module, split: Split) -> Tensor:
    return nn.functional.cross_entropy(model(split.images.take(torch.arange(len(split)))), split.labels)


def test_out_of_memory_forgets_a_program_of_large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller batches would otherwise be filled up to the size that does not fit."""
    model, split = network(mlp, hidden=[8]), make_split(10, 4, SHAPE)
    sizes = []

    def small(*_: Any) -> Any:
        def program(*numbers: Any) -> Tensor:
            sizes.append(len(numbers[-1]))
            if len(sizes) > 1 and len(numbers[-1]) > 5:
                raise torch.OutOfMemoryError("no room")
            return torch.zeros(len(numbers[-1]))

        return program

    monkeypatch.setattr(module, "compiled", small)
    member, derivative = single(model), Compiled(forward_derivative)
    direction = along(member)
    found = directional_derivatives(
        model, member, split, direction, batch_size=None, progress=no_progress, derivative=derivative
    )
    assert len(found) == 10
    assert sizes == [10, 10, 5, 5, 5]  # the first run of each program is its trial
    with pytest.raises(InputError, match="batch_size=10: out of memory"):
        directional_derivatives(
            model, replace(member), split, direction, batch_size=10, progress=no_progress, derivative=derivative
        )


def test_filling_keeps_the_layout() -> None:
    x = torch.rand(3, 2, 4, 4).to(memory_format=torch.channels_last)
    found = filled(x, 5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, torch.cat([x, x[2:], x[2:]]))
