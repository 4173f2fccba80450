from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from defense.data.images import TensorImages
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from defense.models.build import build
from defense.reporting.progress import silent
from defense.schema import Train
from defense.training.augment import plan_epoch
from defense.training.loop import fit
from defense.training.recipes import as_they_are
from tests.conftest import recipe as default_recipe

MLP = {"_target_": "defense.models.networks.mlp", "hidden": [16], "mean": [0.3], "std": [0.4]}
RECIPE = default_recipe(epochs=2, batch_size=32, learning_rate=0.05)


def trained(
    data: Dataset,
    fabric: Fabric,
    recipe: Train = RECIPE,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    model = build(MLP, data, seed=0)
    count = len(data.train)
    keep = torch.ones(count, dtype=torch.bool) if keep is None else keep
    weights = torch.ones(count) if weights is None else weights
    epochs = fit(
        model,
        data.train,
        data.validation,
        recipe,
        keep=keep,
        weights=weights,
        harden=as_they_are,
        seed=0,
        fabric=fabric,
        watch=silent,
    )
    return model, list(epochs)


def test_one_step_is_the_weighted_gradient(digits: Dataset, fabric: Fabric) -> None:
    """The first batch holds everything: theta - lr (1 + momentum) mean_i w_i grad loss_i, for Nesterov."""
    recipe = default_recipe(epochs=1, batch_size=1000, learning_rate=0.1, momentum=0.5, weight_decay=0.0)
    weights = torch.rand(len(digits.train)) * 2
    model, _ = trained(digits, fabric, recipe, weights=weights)
    start = build(MLP, digits, seed=0)
    x = digits.train.images.take(torch.arange(len(digits.train)))
    loss = (weights * F.cross_entropy(start(x), digits.train.labels, reduction="none")).mean()
    gradients = torch.autograd.grad(loss, list(start.parameters()))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    rate = OneCycleLR(optimizer, max_lr=0.1, total_steps=1).get_last_lr()[0]
    for before, gradient, after in zip(start.parameters(), gradients, model.parameters(), strict=True):
        torch.testing.assert_close(after, before - rate * 1.5 * gradient, rtol=1e-4, atol=1e-6)


def test_removed_samples_leave_no_trace_and_the_order_of_the_rest(digits: Dataset, fabric: Fabric) -> None:
    keep = torch.rand(len(digits.train), generator=torch.Generator().manual_seed(0)) < 0.7
    seen: list[int] = []

    class Spy(TensorImages):
        def take(self, indices: Tensor) -> Tensor:
            seen.extend(indices.tolist())
            return super().take(indices)

    train = digits.train.with_images(Spy(digits.train.images.pixels))
    trained(replace(digits, train=train), fabric, keep=keep)
    orders = [plan_epoch(len(train), crop=0, flip=False, seed=0, epoch=epoch).order for epoch in (0, 1)]
    expected = [int(row) for order in orders for row in order if keep[row]]
    assert seen[-len(expected) :] == expected

    pixels = digits.train.images.pixels.clone()
    pixels[~keep] = 0.123
    spoiled = replace(digits, train=Split(train.ids, TensorImages(pixels), train.labels, train.truth))
    models = [trained(data, fabric, keep=keep)[0] for data in (digits, spoiled)]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_the_same_seed_gives_the_same_weights_and_the_loss_falls(digits: Dataset, fabric: Fabric) -> None:
    recipe = default_recipe(epochs=5, batch_size=16, learning_rate=0.1)
    first, history = trained(digits, fabric, recipe)
    second, again = trained(digits, fabric, recipe)
    assert history == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]


def test_no_batch_is_a_left_over_of_one(digits: Dataset, fabric: Fabric) -> None:
    sizes: list[int] = []

    class Spy(TensorImages):
        def take(self, indices: Tensor) -> Tensor:
            sizes.append(len(indices))
            return super().take(indices)

    keep = torch.arange(len(digits.train)) < 65
    train = digits.train.with_images(Spy(digits.train.images.pixels))
    trained(replace(digits, train=train), fabric, keep=keep)
    assert sizes[-6:] == [22, 22, 21] * 2


def test_a_loss_that_is_not_finite_stops(digits: Dataset, fabric: Fabric) -> None:
    with pytest.raises(InputError, match=r"train\.learning_rate=1e[+]30: the training loss is"):
        trained(digits, fabric, default_recipe(epochs=3, batch_size=16, learning_rate=1e30))


def test_weights_that_blow_up_in_the_last_step_stop_too(digits: Dataset, fabric: Fabric) -> None:
    with pytest.raises(InputError, match="the validation loss is"):
        trained(digits, fabric, default_recipe(epochs=1, batch_size=5000, learning_rate=1e30))


def test_out_of_memory_names_the_batch_size(
    digits: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(F, "cross_entropy", exhausted)
    with pytest.raises(InputError, match=r"train.batch_size=32: out of memory on a batch; lower this number"):
        trained(digits, fabric)
