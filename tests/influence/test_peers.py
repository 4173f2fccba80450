"""The inner product against captum and dattri, which form the gradient of every sample, in float64."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import Method, ObjectiveName, Peer
from defense.config.schema import Objective
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.influence.members import single
from defense.influence.objectives import mean_loss, value_and_gradient
from defense.influence.peers import PEERS as LIBRARIES
from defense.influence.peers import RIDGE, State, captum_scores, dattri_pairs, dattri_scores, trak_scores
from defense.influence.scorers import METHODS, ScoringContext
from defense.models.networks import cnn, mlp
from defense.runtime.progress import no_progress
from tests.calls import directional_derivatives
from tests.conftest import doubles, make_split, scorer

pytestmark = pytest.mark.extra("captum", "dattri")

SHAPE = (3, 8, 8)
TRAIN = doubles(make_split(7, 4, SHAPE))
VALIDATION = doubles(make_split(3, 4, SHAPE, seed=1))
NETWORKS = {"mlp": partial(mlp, hidden=[12]), "cnn": partial(cnn, width=4)}
PEERS = {
    "captum": partial(captum_scores, batch_size=4),
    "dattri": partial(dattri_scores, batch_sizes=(4, 2)),
}


def network(name: str) -> nn.Module:
    """Return a network in float64 and eval mode whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    model = NETWORKS[name](input_shape=SHAPE, classes=4, mean=[0.5] * 3, std=[0.3] * 3).double()
    model(torch.rand(32, *SHAPE, dtype=torch.float64))
    return model.eval()


def trajectory(model: nn.Module) -> list[State]:
    """Return the states of three steps of training, batch norm's statistics among them, and the rates there."""
    model, checkpoints = deepcopy(model).train(), []
    x = TRAIN.images.take(torch.arange(len(TRAIN)))
    for rate in (0.5, 0.1, 0.02):
        checkpoints.append((deepcopy(model.state_dict()), rate))
        gradients = torch.autograd.grad(
            nn.functional.cross_entropy(model(x), TRAIN.labels), list(model.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= rate * gradient
    return checkpoints


def inner_product(model: nn.Module, pattern: str = "*") -> Tensor:
    """Return grad v . grad loss_i (n,) at the model, over the parameters whose name matches `pattern`."""
    member = single(model, pattern=pattern)
    _, direction = value_and_gradient(model, member, VALIDATION, partial(mean_loss, positive=0), batch_size=4)
    return directional_derivatives(model, member, TRAIN, direction, batch_size=4, progress=no_progress)


def along(model: nn.Module, checkpoints: list[State]) -> Tensor:
    """Return sum_c rate_c * inner product at theta_c (n,)."""
    total = torch.zeros(len(TRAIN), dtype=torch.float64)
    for state, rate in checkpoints:
        at = deepcopy(model)
        at.load_state_dict(state)
        total += rate * inner_product(at)
    return total


def scored(model: nn.Module, validation: Split, *, cosine: bool) -> Tensor:
    """Return the scores (n,) of the whole scorer, as a run computes them."""
    objective = Objective({ObjectiveName.utility: 1.0}, positive=1)
    sets = Validation(validation, validation)
    spec = scorer(batch_size=4, cosine=cosine)
    problem = ScoringContext(model, TRAIN, None, sets, objective, spec, seed=0)
    return METHODS[Method.alignment](problem).total


def close(found: Tensor, expected: Tensor) -> None:
    """Each score to 1e-8 of itself, or of the largest score where it is small beside that."""
    assert found.dtype == expected.dtype == torch.float64
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * largest)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("peer", PEERS)
def test_one_checkpoint(name: str, peer: str) -> None:
    model = network(name)
    checkpoints = [(deepcopy(model.state_dict()), 1.0)]
    close(scored(model, VALIDATION, cosine=False), PEERS[peer](model, checkpoints, TRAIN, VALIDATION))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("peer", PEERS)
def test_several_checkpoints(name: str, peer: str) -> None:
    model = network(name)
    checkpoints = trajectory(model)
    close(along(model, checkpoints), PEERS[peer](deepcopy(model), checkpoints, TRAIN, VALIDATION))


@pytest.mark.parametrize("cosine", [False, True])
def test_each_pair(cosine: bool) -> None:
    """Against dattri's Grad-Dot and Grad-Cos: the score of a validation set of one sample."""
    model = network("cnn")
    checkpoints = [(deepcopy(model.state_dict()), 1.0)]
    expected = dattri_pairs(model, checkpoints, TRAIN, VALIDATION, batch_sizes=(4, 2), normalized=cosine)
    for column in range(len(VALIDATION)):
        close(scored(model, VALIDATION.subset(torch.tensor([column])), cosine=cosine), expected[:, column])


def test_linear_and_convolution_layers() -> None:
    """Captum's gradients of a whole batch know no batch norm; scores of separate parameters add up to theirs."""
    model = network("cnn")
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    expected = captum_scores(
        model, [(deepcopy(model.state_dict()), 1.0)], TRAIN, VALIDATION, batch_size=4, layers=layers
    )
    close(sum((inner_product(model, f"{name}.*") for name in layers), torch.zeros_like(expected)), expected)


def test_trak_is_the_formula_that_it_is_said_to_be() -> None:
    """By a loop over samples, with the projection that dattri draws."""
    from dattri.func.projection import random_project

    model = network("mlp")
    parameters = list(model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    eye = torch.eye(count, dtype=torch.float64)
    draw = random_project(eye, count, proj_dim=5, proj_max_batch_size=32, proj_seed=0, device="cpu")
    projection = draw(eye, ensemble_id=0) / count**0.5

    def features(split: Split) -> tuple[Tensor, Tensor]:
        rows, chances = [], []
        for x, label in zip(split.images.take(torch.arange(len(split))), split.labels, strict=True):
            chance = model(x[None])[0].softmax(0)[label]
            gradient = torch.autograd.grad(torch.log(chance / (1 - chance)), parameters)
            rows.append(torch.cat([part.flatten() for part in gradient]) @ projection)
            chances.append(chance.detach())
        return torch.stack(rows), torch.stack(chances)

    train, chances = features(TRAIN)
    kernel = train.T @ train + RIDGE * torch.eye(5, dtype=torch.float64)
    expected = (1 - chances) * (features(VALIDATION)[0] @ torch.linalg.solve(kernel, train.T)).mean(0)
    found = trak_scores(model, TRAIN, VALIDATION, batch_size=4, directions=5)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("peer", [peer for peer in Peer if LIBRARIES[peer].exact])
def test_those_called_exact_are(peer: Peer) -> None:
    """And leave the model as it is."""
    model = network("cnn")
    before = deepcopy(model.state_dict())
    close(LIBRARIES[peer].scores(model, TRAIN, VALIDATION), inner_product(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
