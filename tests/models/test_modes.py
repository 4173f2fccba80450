from __future__ import annotations

import pytest
import torch
from torch import nn

from defense.models.modes import channels_last, evaluating, frozen


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.1))).train()
    model[1][0].eval()
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("state", [evaluating, frozen])
def test_put_back_module_by_module_even_after_an_error(state) -> None:  # type: ignore[no-untyped-def]
    model = network()
    modes = [module.training for module in model.modules()]
    asked = [parameter.requires_grad for parameter in model.parameters()]

    def inside() -> None:
        with state(model):
            assert state is frozen or not any(module.training for module in model.modules())
            assert state is evaluating or not any(parameter.requires_grad for parameter in model.parameters())
            raise KeyError("anything")

    with pytest.raises(KeyError, match="anything"):
        inside()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == asked


def test_weights_are_laid_out_anew_and_put_back_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    x = torch.rand(2, 3, 8, 8)
    pointers, expected = [weight.data_ptr() for weight in model.parameters()], model(x)

    def inside() -> None:
        with channels_last(model):
            assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(model(x), expected)
            given = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model(given).sum(), given)
            assert gradient.is_contiguous()
            raise KeyError("anything")

    with pytest.raises(KeyError, match="anything"):
        inside()
    assert [weight.data_ptr() for weight in model.parameters()] == pointers
    assert torch.equal(model(x), expected)
