from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from defense.config.choices import Norm, Recipe
from defense.config.compose import composed
from defense.config.schema import Threat, Train
from defense.data.images import TensorImages
from defense.data.load import load
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from defense.models.build import build
from defense.runtime.progress import Progress, no_progress
from defense.training.augment import plan_epoch
from defense.training.recipes import RECIPES
from defense.training.sgd import averaged
from tests.calls import fit, losses_of, measuring
from tests.conftest import recipe as default_recipe
from tests.conftest import threat

MLP = {"_target_": "defense.models.networks.mlp", "hidden": [16], "mean": [0.3], "std": [0.4]}
CNN = {"_target_": "defense.models.networks.cnn", "width": 4}
RECIPE = default_recipe(epochs=2, batch_size=32, learning_rate=0.05)


def trained(
    data: Dataset,
    fabric: Fabric,
    recipe: Train = RECIPE,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    settings: dict[str, Any] = MLP,
    ball: Threat | None = None,
    progress: Progress = no_progress,
    ends: list[Mapping[str, Tensor]] | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Return the network and the numbers of its epochs; the weights after each are put into `ends`."""
    model = build(settings, data, seed=0)
    count, ball = len(data.train), ball or threat(eps=0.1)
    history = []
    for end in fit(
        model,
        data.train,
        recipe,
        keep=torch.ones(count, dtype=torch.bool) if keep is None else keep,
        weights=torch.ones(count) if weights is None else weights,
        losses=losses_of(recipe, ball, data.classes),
        measure=measuring(data.validation, recipe, ball, classes=data.classes, seed=0, fabric=fabric),
        seed=0,
        fabric=fabric,
        progress=progress,
    ):
        history.append(end.numbers)
        if ends is not None:
            ends.append({name: value.clone() for name, value in end.weights.items()})
    return model, history


def test_one_step_is_the_weighted_gradient(digits: Dataset, fabric: Fabric) -> None:
    """The first batch holds everything: theta - lr (1 + momentum) mean_i w_i grad loss_i, for Nesterov."""
    recipe = default_recipe(epochs=4, batch_size=1000, learning_rate=0.1, momentum=0.5, weight_decay=0.0)
    weights = torch.linspace(0, 3, len(digits.train))
    ends: list[Mapping[str, Tensor]] = []
    trained(digits, fabric, recipe, weights=weights, ends=ends)
    start = build(MLP, digits, seed=0)
    x = digits.train.images.take(torch.arange(len(digits.train)))
    loss = (weights * F.cross_entropy(start(x), digits.train.labels, reduction="none")).mean()
    gradients = torch.autograd.grad(loss, list(start.parameters()))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    rate = OneCycleLR(optimizer, max_lr=0.1, total_steps=4).get_last_lr()[0]
    assert rate > 1e-3
    for (name, before), gradient in zip(start.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(ends[0][name] - before, -rate * 1.5 * gradient, rtol=1e-2, atol=1e-6)


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


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("norm", [Threat(Norm.Linf, 0.1), Threat(Norm.L2, 0.5)])
def test_a_loss_that_is_not_finite_stops_every_recipe(
    digits: Dataset, fabric: Fabric, name: Recipe, norm: Threat
) -> None:
    """Also where it is the attack that notices: in L2 there is no step along such a gradient."""
    spec = default_recipe(recipe=name, epochs=3, batch_size=16, learning_rate=1e30, attack_steps=1)
    with pytest.raises(InputError, match=r"train\.learning_rate=1e[+]30: the .* in epoch 1; lower it"):
        trained(digits, fabric, spec, ball=norm)


def test_averaged_weights_are_the_running_mean_of_the_steps(digits: Dataset, fabric: Fabric) -> None:
    """decay * average + (1 - decay) * weights after each step, the first being taken whole; buffers too."""
    spec = replace(RECIPE, ema=0.7)
    steps: list[dict[str, Tensor]] = []
    model = build(CNN, digits, seed=0)

    def note(*_: object, **__: object) -> None:
        steps.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    arguments: dict[str, Any] = {"losses": losses_of(spec, threat(), 10), "measure": lambda *_: {}, "seed": 0}
    arguments |= {"keep": torch.ones(200, dtype=torch.bool), "weights": torch.ones(200), "fabric": fabric}
    *_, end = fit(model, digits.train, spec, **arguments, progress=note)
    assert len(steps) == 2 * 7
    for name, found in end.weights.items():
        if not found.dtype.is_floating_point:
            continue
        expected = steps[0][name]
        for step in steps[1:]:
            expected = 0.7 * expected + 0.3 * step[name]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(end.weights["stage1.1.running_var"], steps[-1]["stage1.1.running_var"])


def test_what_is_validated_are_the_averaged_weights(digits: Dataset, fabric: Fabric) -> None:
    ends: list[Mapping[str, Tensor]] = []
    spec = replace(RECIPE, ema=0.9)
    model, history = trained(digits, fabric, spec, settings=CNN, ends=ends)
    raw = {name: value.clone() for name, value in model.state_dict().items()}
    x, labels = digits.validation.images.take(torch.arange(60)), digits.validation.labels
    losses = []
    for state in (ends[-1], raw):
        model.load_state_dict(state)
        losses.append(F.cross_entropy(model.eval()(x), labels).item())
    assert history[-1]["validation_loss"] == pytest.approx(losses[0], rel=1e-5)
    assert losses[1] != pytest.approx(losses[0], rel=1e-3)


def test_an_average_of_the_untrained_start_is_refused(digits: Dataset, fabric: Fabric) -> None:
    with pytest.raises(
        InputError, match=r"train.ema=0.999: after \d+ steps the average still holds 9\d % of the first weights"
    ):
        trained(digits, fabric, replace(RECIPE, ema=0.999))


def test_averages_take_whole_numbers_over() -> None:
    """Rounding 0.995 * 3 + 0.005 * 3 down would make positions wrong."""
    network = nn.Linear(1, 1)
    network.register_buffer("positions", torch.arange(100))
    average = averaged(network, 0.9, steps=50)
    assert average is not None
    for _ in range(3):
        network.weight.data += 1
        average.update_parameters(network)
    assert torch.equal(average.module.get_buffer("positions"), torch.arange(100))
    start = network.weight.data - 3
    steps = [start + k for k in (1, 2, 3)]
    torch.testing.assert_close(average.module.weight.data, 0.81 * steps[0] + 0.09 * steps[1] + 0.1 * steps[2])


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("norm", [Threat(Norm.Linf, 0.05), Threat(Norm.L2, 0.5)])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_channels_last_is_the_same_training(
    colours: Dataset, fabric: Fabric, name: Recipe, norm: Threat, ema: float | None
) -> None:
    """Of pictures of three channels, whose layouts differ; the network is laid out so while it trains."""
    spec = default_recipe(recipe=name, epochs=2, batch_size=8, attack_steps=2, learning_rate=0.01, ema=ema)
    layouts: set[bool] = set()
    states = []
    for last in (False, True):
        ends: list[Mapping[str, Tensor]] = []
        layout = torch.channels_last if last else torch.contiguous_format
        model, _ = trained(colours, fabric, replace(spec, channels_last=last), settings=CNN, ball=norm, ends=ends)
        weight = model.get_submodule("stage2.0").weight
        layouts.add(weight.is_contiguous(memory_format=layout))
        states.append(ends[-1])
    assert layouts == {True}
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-2, atol=2e-3)


@pytest.fixture
def colours(npz: Path) -> Dataset:
    return load(composed("data=npz", f"data.path={npz}", "data.validation_size=12").data, seed=0)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Networks are traced and guarded, but not made into C++; counts what was compiled."""
    made: Counter[str] = Counter()
    original = torch.compile

    def counting(network: nn.Module, **_: Any) -> Any:
        made[type(network).__name__] += 1
        return original(network, backend="eager")

    monkeypatch.setattr(torch, "compile", counting)
    return made


@pytest.mark.slow
def test_compiled_is_the_same_training(digits: Dataset, fabric: Fabric, traced: Counter[str]) -> None:
    spec = replace(RECIPE, recipe=Recipe.trades, epochs=1, batch_size=50, attack_steps=2, ema=0.5)
    plain, _ = trained(digits, fabric, spec, settings=CNN)
    assert not traced
    compiled, _ = trained(digits, fabric, replace(spec, compile=True, channels_last=True), settings=CNN)
    assert traced == {"ChannelsLast": 1}
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=1e-2, atol=2e-3)


def test_what_cannot_be_compiled_is_one_line(
    digits: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("there is no compiler here")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    with pytest.raises(InputError, match=r"train\.compile=true: .*there is no compiler here.*expected false"):
        trained(digits, fabric, replace(RECIPE, compile=True))


def test_the_host_does_not_read_a_number_after_every_step(
    digits: Dataset, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU each would wait for all that was asked of it before."""
    reads: Counter[int] = Counter()
    size = 0
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        original = getattr(Tensor, name)

        def counted(tensor: Tensor, original: Any = original) -> Any:
            reads[size] += 1
            return original(tensor)

        monkeypatch.setattr(Tensor, name, counted)
    for size in (50, 5):
        trained(digits, fabric, replace(RECIPE, epochs=1, batch_size=size))
    assert reads[50] == reads[5] > 0
