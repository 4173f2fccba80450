from __future__ import annotations

import pytest
import torch
from torch import nn

from defense.models.modes import bare, channels_last, evaluating, frozen, hooks_of
from tests.habits import Attends, Checkpointed, Counts, Remembers, WorksInPlace, small


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


X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_gets_a_copy_of_its_pictures_in_its_own_type(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = WorksInPlace().to(dtype), X.clone()
    expected = model(x.to(dtype, copy=True))
    with evaluating(model), evaluating(model):
        found = model(x)
    assert torch.equal(x, X)
    assert found.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    assert torch.equal(found, expected.to(found.dtype))


def test_the_gradient_of_pictures_passes_through_the_copy() -> None:
    torch.manual_seed(0)
    model, x = WorksInPlace(), X.clone().requires_grad_()
    with evaluating(model), frozen(model):
        (found,) = torch.autograd.grad(model(x).sum(), x)
    y = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(y * 1).sum(), y)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("anew", [False, True])
def test_buffers_and_attributes_come_back(anew: bool) -> None:
    counts, remembers = Counts(anew=anew), Remembers()
    counts(X)
    buffer = counts.calls
    with evaluating(counts), evaluating(remembers):
        counts(X)
        remembers(X)
        assert int(counts.calls) == 2
    assert int(counts.calls) == 1
    assert counts.calls is buffer
    assert remembers.features is None
    remembers(X)
    kept = remembers.features
    with evaluating(remembers):
        remembers(X)
    assert remembers.features is kept


def test_a_padding_mask_is_one_function_with_and_without_gradients() -> None:
    """The fast path of transformers zeroes what is masked, the path of gradients does not."""
    torch.manual_seed(0)
    model = Attends(padded=True).eval()
    with torch.no_grad():
        fast = model(X)
    slow = model(X.clone().requires_grad_()).detach()
    assert float((fast - slow).abs().max()) > 1e-3  # else there is nothing to mend
    with evaluating(model), torch.no_grad():
        torch.testing.assert_close(model(X), slow)
    assert torch.backends.mha.get_fastpath_enabled()


def test_reentrant_checkpoints_have_a_gradient_by_the_pictures_alone() -> None:
    torch.manual_seed(0)
    model, x = Checkpointed(reentrant=True), X.clone().requires_grad_()
    with evaluating(model), frozen(model):
        (found,) = torch.autograd.grad(model(x).sum(), x)
    model(x).sum().backward()
    torch.testing.assert_close(found, x.grad)
    with pytest.raises(RuntimeError, match="use_reentrant"):
        torch.autograd.grad(model(x).sum(), x)


def test_hooks_put_on_inside_are_taken_away_and_others_stay() -> None:
    model = small()
    own = model[1].register_forward_hook(lambda *_: None)

    def inside() -> None:
        with hooks_of(model):
            model[1].register_forward_hook(lambda *_: None)
            model[3].register_forward_pre_hook(lambda *_: None)
            raise KeyError("anything")

    with pytest.raises(KeyError, match="anything"):
        inside()
    assert list(model[1]._forward_hooks) == [own.id]
    assert not model[3]._forward_pre_hooks


def test_wrappers_are_taken_off() -> None:
    model = small()
    assert bare(nn.DataParallel(model)) is model
    assert bare(torch.compile(nn.DataParallel(model))) is model  # type: ignore[arg-type]
    assert bare(model) is model
    scripted = bare(torch.jit.trace(model, X))
    torch.testing.assert_close(scripted(X), model(X))
