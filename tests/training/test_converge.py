"""The minimum against scikit-learn's, and what it does not depend on."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from defense.data.splits import Dataset
from defense.models.build import build
from defense.runtime.progress import no_progress
from tests.calls import fit_lbfgs, losses_of, measuring
from tests.conftest import recipe, threat

DECAY = 0.05
SETTINGS = {"_target_": "defense.models.networks.mlp", "hidden": [], "mean": [0.0], "std": [1.0]}


def converged(
    data: Dataset,
    fabric: Fabric,
    *,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
    seed: int = 0,
    **changes: object,
) -> tuple[nn.Module, list[dict[str, float]]]:
    count = len(data.train)
    model = build(SETTINGS, data, seed=seed)
    spec = recipe(**{"epochs": 2000, "tolerance": 1e-9, "weight_decay": DECAY} | changes)
    ends = fit_lbfgs(
        model,
        data.train,
        spec,
        keep=torch.ones(count, dtype=torch.bool) if keep is None else keep,
        weights=torch.ones(count) if weights is None else weights,
        losses=losses_of(spec, threat(), data.classes),
        measure=measuring(data.validation, spec, threat(), classes=data.classes, seed=seed, fabric=fabric),
        seed=seed,
        fabric=fabric,
        progress=no_progress,
    )
    return model, [end.numbers for end in ends]


def test_equals_scikit_learn(digits: Dataset, fabric: Fabric) -> None:
    """It minimises sum_i w_i loss_i + |theta|^2 / (2 C); the bias is a feature that is always one."""
    count = len(digits.train)
    keep = torch.arange(count) % 3 > 0
    weights = torch.where(keep, 0.5 + torch.rand(count, generator=torch.Generator().manual_seed(0)), 1.0)
    model, (numbers,) = converged(digits, fabric, keep=keep, weights=weights)
    x = digits.train.images.take(torch.arange(count)).flatten(1).double().numpy()[keep]
    x = np.hstack([x, np.ones((len(x), 1))])
    peer = LogisticRegression(C=1 / (DECAY * len(x)), fit_intercept=False, tol=1e-10, max_iter=10_000)
    peer.fit(x, digits.train.labels[keep].numpy(), sample_weight=weights[keep].double().numpy())
    head = model[-1]
    found = torch.cat([head.weight, head.bias[:, None]], dim=1).detach()
    torch.testing.assert_close(found, torch.tensor(peer.coef_, dtype=torch.float32), rtol=1e-3, atol=1e-5)
    assert numbers["epoch"] == 1
    right = peer.predict(x) == digits.train.labels[keep].numpy()
    assert numbers["train_accuracy"] == pytest.approx(100 * right.mean())


def test_the_start_does_not_matter(digits: Dataset, fabric: Fabric) -> None:
    first, other = (converged(digits, fabric, seed=seed)[0] for seed in (0, 1))
    for a, b in zip(first.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_too_few_iterations_are_said(digits: Dataset, fabric: Fabric, caplog: pytest.LogCaptureFixture) -> None:
    threads = torch.get_num_threads()
    with caplog.at_level(logging.WARNING):
        converged(digits, fabric, epochs=2)
    assert "training has not converged: a gradient of" in caplog.text
    assert torch.get_num_threads() == threads
