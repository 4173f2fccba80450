"""Confident learning as a score: planted errors come first, and the order is cleanlab's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from defense.influence.confident import label_quality

pytestmark = pytest.mark.extra("cleanlab")


def predictions(labels: torch.Tensor, *, sure: float) -> torch.Tensor:
    """Return probabilities (n, 3) that give the true label `sure` and some noise."""
    chance = torch.Generator().manual_seed(0)
    noise = torch.rand((len(labels), 3), generator=chance)
    return torch.nn.functional.normalize(noise + sure * torch.nn.functional.one_hot(labels, 3), p=1, dim=1)


def test_planted_errors_are_lowest_and_in_the_order_of_cleanlab() -> None:
    truth = torch.arange(90) % 3
    given = truth.clone()
    given[:9] = (truth[:9] + 1) % 3
    probabilities = predictions(truth, sure=3.0)
    scores = label_quality(given, probabilities)
    assert set(scores.argsort()[:9].tolist()) == set(range(9))
    from cleanlab.filter import find_label_issues

    ranked = find_label_issues(
        given.numpy(), probabilities.double().numpy(), return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert scores.argsort()[: len(ranked)].tolist() == np.asarray(ranked).tolist()
    right = torch.arange(9, 90)
    assert torch.allclose(scores[right].float(), probabilities[right, given[right]])
