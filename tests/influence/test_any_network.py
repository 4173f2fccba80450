"""Scores of networks with uncommon habits, against a plain loop of backward passes in float64."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.config.choices import Direction, Members, Method
from defense.config.compose import composed
from defense.config.schema import Scorer
from defense.errors import InputError
from tests.calls import scores_by_row
from tests.conftest import scorer
from tests.habits import HABITS, Around, Attends, Counts, Remembers, Spectral, UnusedHead, small

CHANCE = torch.Generator().manual_seed(0)
X, XV = torch.rand(14, 1, 8, 8, generator=CHANCE), torch.rand(8, 1, 8, 8, generator=CHANCE)
Y, YV = torch.arange(14) % 3, torch.arange(8) % 3
DAMPING = 0.5
OBJECTIVE = composed("objective=utility").objective


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return HABITS[name]().eval()


def exact(model: nn.Module) -> nn.Module:
    """Return the network in float64, and of TorchScript the network that it was made of."""
    if isinstance(model, torch.jit.ScriptModule):
        plain = small()
        plain.load_state_dict(model.state_dict())
        return plain.double().eval()
    for module in model.modules():
        if "weight_g" in module._parameters:  # the old weight norm keeps a tensor that cannot be copied
            del vars(module)["weight"]
    return copy.deepcopy(model).double().eval()


def real(values: list[Tensor]) -> Tensor:
    """Return all entries in one vector, of complex ones both parts."""
    return torch.cat([torch.view_as_real(v).flatten() if v.is_complex() else v.flatten() for v in values])


def gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient (p,) of the mean loss, by `Tensor.backward`."""
    parameters = list(model.parameters())
    model.zero_grad()
    F.cross_entropy(model(x.clone()), labels).backward()
    return real([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters])


@pytest.fixture(autouse=True)
def slow_path() -> Any:
    """Take the path of transformers that has gradients, in the reference too."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def references(model: nn.Module) -> dict[str, Tensor]:
    """Return the right scores by scorer."""
    double = exact(model)
    x, xv = X.double(), XV.double()
    v = gradient(double, xv, YV)
    each = torch.stack([gradient(double, x[i : i + 1], Y[i : i + 1]) for i in range(len(x))])
    p = torch.cat([double(x[i : i + 1].clone()) for i in range(len(x))]).softmax(1).detach()
    rows = [
        (p[i, c] / len(x)).sqrt() * gradient(double, x[i : i + 1], torch.tensor([c]))
        for i in range(len(x))
        for c in range(3)
    ]
    matrix = torch.stack(rows)
    inverse = torch.linalg.solve(matrix.T @ matrix + DAMPING * torch.eye(len(v), dtype=v.dtype), v)
    return {
        "ip": each @ v,
        "self_influence": -each.square().sum(1),
        "ip_cosine": each @ v / (each.norm(dim=1) * v.norm()),
        "cg": each @ inverse,
    }


SCORERS = {
    "ip": scorer(),
    "ip_cosine": scorer(cosine=True),
    "self_influence": scorer(method=Method.self_influence),
    "cg": scorer(direction=Direction.cg, damping=DAMPING, tolerance=1e-4),
    "ekfac": scorer(direction=Direction.ekfac),
    "datainf": scorer(direction=Direction.datainf, damping=0.1),
}


def scores(model: nn.Module, settings: str | Scorer, **more: Any) -> Tensor:
    settings = SCORERS[settings] if isinstance(settings, str) else settings
    return scores_by_row(model, (X, Y), (XV, YV), objective=OBJECTIVE, scorer=settings, **more)


@pytest.mark.parametrize("name", HABITS)
def test_scores_are_those_of_a_loop_and_the_model_comes_back(name: str) -> None:
    model = made(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = [*model.parameters(), *model.buffers()]
    expected = references(model)
    before = torch.get_rng_state()
    for kind, right in expected.items():
        if kind == "cg" and name == "complex weights":
            continue  # refused, see below
        error = float((scores(model, kind).double() - right).abs().max() / right.abs().max())
        assert error < 1e-3, f"{kind} is off by {error:.2g}"
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(now is then for now, then in zip([*model.parameters(), *model.buffers()], tensors, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["buffer that counts", "buffer made anew", "features kept", "unused head"])
@pytest.mark.parametrize("kind", ["ip", "self_influence", "cg", "ekfac", "datainf"])
def test_nothing_of_the_model_is_changed(name: str, kind: str) -> None:
    model = made(name)
    model(X)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    kept = getattr(model, "features", None)
    gradients = [parameter.grad for parameter in model.parameters()]
    scores(model, kind)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert getattr(model, "features", None) is kept
    assert [parameter.grad for parameter in model.parameters()] == gradients
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model(X).sum().backward()


FALLBACKS = {
    "GRU": ("self_influence", "vmap fails"),
    "checkpoint": ("self_influence", "saved tensor hooks"),
    "LSTM": ("ip", "instead of forward mode"),
    "hook on a gradient": ("ip", "another derivative than autograd"),
    "straight-through function": ("ip", "instead of forward mode"),
    "cdist": ("cg", "the Gauss-Newton matrix by gradients, 3 of each sample, once"),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_a_way_back_is_said_once_with_its_cost(name: str, caplog: pytest.LogCaptureFixture) -> None:
    kind, words = FALLBACKS[name]
    with caplog.at_level(logging.WARNING):
        scores(made(name), kind)
    assert caplog.text.count(words) == 1


def test_the_usual_network_is_not_slowed_down(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for kind in ("ip", "self_influence", "cg", "datainf"):
            scores(made("plain"), kind)
    assert not caplog.text


@pytest.mark.parametrize("direction", [Direction.cg, Direction.lissa, Direction.ekfac, Direction.hessian])
def test_an_inverse_of_complex_parameters_is_refused(direction: Direction) -> None:
    with pytest.raises(InputError, match="filter is complex"):
        scores(Spectral().eval(), scorer(direction=direction))


def test_datainf_of_complex_parameters_counts_both_parts() -> None:
    torch.manual_seed(0)
    model = Spectral().eval()
    found = scores(model, scorer(direction=Direction.datainf, damping=0.1))
    double = exact(model)
    v = gradient(double, XV.double(), YV)
    each = torch.stack([gradient(double, X[i : i + 1].double(), Y[i : i + 1]) for i in range(len(X))])
    sizes = [p.numel() * (2 if p.is_complex() else 1) for p in model.parameters()]
    expected = torch.zeros(len(X), dtype=torch.float64)
    for own, g in zip(v.split(sizes), each.split(sizes, 1), strict=True):
        strength = 0.1 * g.square().sum(1).mean() / g.shape[1]
        shares = (g @ own) / (strength + g.square().sum(1))
        expected += g @ ((own - (shares[:, None] * g).mean(0)) / strength)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


class Frozen(Around):
    """No path from the weights to the logits."""

    def between(self, h: Tensor) -> Tensor:
        return h.detach()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


def test_a_network_without_gradients_by_its_weights_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot be differentiated by its weights"):
        scores(Frozen().eval(), "ip")


def test_datainf_passes_over_a_tensor_that_no_loss_depends_on() -> None:
    torch.manual_seed(0)
    plain, more = small().eval(), UnusedHead().eval()
    more.body, more.head = plain[1], plain[3]
    expected = scores(plain, "datainf")
    torch.testing.assert_close(scores(more, "datainf"), expected)


EKFAC: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "unused head": (UnusedHead, 2),
    "called, and used by nothing": (lambda: UnusedHead(dead=True), 2),
    "attention": (Attends, 8),
    "called twice": (HABITS["layer called twice"], 2),
    "tied": (HABITS["tied weights"], 1),
    "weight norm": (HABITS["old weight norm"], 3),
}


@pytest.mark.parametrize("name", EKFAC)
def test_ekfac_keeps_the_gradient_where_there_are_no_factors(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, without = EKFAC[name]
    torch.manual_seed(0)
    with caplog.at_level(logging.INFO):
        found = scores(make().eval(), "ekfac")
    assert found.isfinite().all()
    assert f"{without} parameter tensors have no Kronecker factors" in caplog.text


def test_ekfac_of_a_layer_with_a_hook_is_that_of_the_layer_in_a_function() -> None:
    """A hook that doubles an output makes another layer of it, which has no factors."""
    torch.manual_seed(0)
    hooked = small().eval()
    hooked[1].register_forward_hook(lambda module, given, output: 2 * output)
    head = scorer(direction=Direction.ekfac, damping=0.1)
    every = scores(hooked, head)
    torch.manual_seed(0)
    doubled = small().eval()
    plain = scorer(direction=Direction.ekfac, damping=0.1, parameters="3.*")
    with torch.no_grad():
        doubled[1].weight *= 2
        doubled[1].bias *= 2
    of_head = scores(doubled, plain)
    body = scorer(parameters="1.*")
    rest = scores(hooked, body) / 0.1
    torch.testing.assert_close(every, of_head + rest, rtol=1e-3, atol=1e-5)


def test_an_inverse_at_a_checkpoint_has_the_statistics_of_the_checkpoint() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3))
    model[0].weight.requires_grad_(False)  # held fixed, and another one at the checkpoint
    early = copy.deepcopy(model)
    early.train()(3 * X - 1)
    with torch.no_grad():
        early[0].weight *= 1.5
        early[4].weight += 0.1
    for direction in (Direction.cg, Direction.lissa, Direction.ekfac, Direction.datainf, Direction.hessian):
        spec = scorer(direction=direction, damping=0.5, iterations=100, tolerance=1e-5)
        right = scores(early.eval(), spec)
        at = scorer(**{**vars(spec), "members": Members.checkpoints})
        points = [(1.0, early.state_dict())]
        found = scores(model.eval(), at, checkpoints=points)
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)


def test_counts_and_remembers_are_what_they_say() -> None:
    """The habits that the tests above rest on are there."""
    counts, remembers = Counts().eval(), Remembers().eval()
    counts(X)
    remembers(X)
    assert int(counts.calls) == 1
    assert remembers.features is not None
