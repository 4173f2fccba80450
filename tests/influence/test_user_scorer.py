"""A scorer of the user: what it is given, and that it leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import defense
from defense.config.choices import Method, ObjectiveName
from defense.config.schema import Objective
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.errors import InputError
from defense.models.build import build
from defense.runtime.progress import no_progress
from tests.calls import score, scores_by_row
from tests.conftest import scorer
from tests.reference import inner_products

SPOILS = '''
import torch


def spoils(model, train, validation, *, objective, seed):
    """Train the model for a step, and leave it in disorder."""
    model.train()
    value = objective(model)
    value.backward()
    drawn = torch.rand(())
    with torch.no_grad():
        for weight in model.parameters():
            weight -= weight.grad
            weight.requires_grad_(False)
    return torch.full((len(train),), float(value)) + 0 * drawn
'''
MARGIN = Objective({ObjectiveName.own: 1.0}, positive=1, _target_="my_parts.margin")


def network(data: Dataset) -> nn.Module:
    return build({"_target_": "defense.models.networks.mlp", "hidden": [8]}, data, seed=0).eval()


def test_a_scorer_leaves_the_model_as_it_was(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spoils.py").write_text(SPOILS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    model = network(digits).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    objective = Objective({ObjectiveName.utility: 2.0}, positive=1)
    spec = scorer(_target_="spoils.spoils", method=Method.own, name="spoils")
    table = score(
        model, digits.train, Validation(digits.validation, None), objective, spec, seed=0, progress=no_progress
    ).table
    assert torch.equal(torch.rand(1), expected_next)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    x = digits.validation.images.take(torch.arange(len(digits.validation)))
    expected = 2 * F.cross_entropy(model.eval()(x), digits.validation.labels).item()
    assert table["score"].tolist() == pytest.approx([expected] * len(digits.train))


def test_a_notebook_takes_functions_by_their_path(digits: Dataset) -> None:
    """The margin objective under a copy of ip, and under ip itself, beside a loop."""
    model = network(digits)
    splits = [
        (part.images.take(torch.arange(len(part))), part.labels) for part in (digits.train, digits.validation)
    ]
    found = scores_by_row(model, *splits, objective=MARGIN, scorer=scorer(_target_="my_parts.alignment"))
    by_ip = scores_by_row(model, *splits, objective=MARGIN, scorer="ip")
    torch.testing.assert_close(found, by_ip, rtol=1e-3, atol=1e-5)
    mapped = scores_by_row(model, *splits, scorer={"_target_": "my_parts.alignment"})
    torch.testing.assert_close(
        mapped, inner_products(model, digits.train, digits.validation), rtol=1e-3, atol=1e-5
    )
    with pytest.raises(InputError, match=r"scorer=file: expected one that computes scores"):
        defense.score(model, *splits, scorer="file")
    with pytest.raises(InputError, match=r"objective\._target_=margin: expected the dotted path"):
        defense.score(model, *splits, objective=replace(MARGIN, _target_="margin"))
