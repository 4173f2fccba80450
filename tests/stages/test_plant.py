from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from defense.artifacts import Planted, load, save
from defense.config.choices import Harm, Keep, Norm, Recipe
from defense.config.schema import Training
from defense.data.images import FolderImages
from defense.data.load import load as load_data
from defense.data.splits import Dataset, Split
from defense.errors import InputError
from defense.models.build import build
from defense.robustness.attacks import toward
from defense.runtime.progress import no_progress
from defense.stages.plant import ball_of, harmed, planter_training
from defense.stages.treat import untreated
from tests.calls import plant, restore, train
from tests.conftest import data, make_split, recipe, threat

MLP = {"_target_": "defense.models.networks.mlp", "hidden": [32]}


@pytest.fixture(scope="module")
def clean() -> Dataset:
    return load_data(data(harm=Harm.none, train_size=300, validation_size=60, test_size=80), seed=0)


@pytest.fixture(scope="module")
def ordinary(clean: Dataset, fabric: Fabric) -> nn.Module:
    common = {"threat": threat(), "seed": 5, "fabric": fabric, "progress": no_progress}
    trained = train(MLP, clean, recipe(epochs=20), untreated(clean.train), **common)
    return restore(MLP, clean, trained, seed=5, device=torch.device("cpu"))


def planted(model: nn.Module, split: Split, *, seed: int = 0, norm: Norm = Norm.Linf, **changes: Any) -> Planted:
    spec = data(**changes)
    within = ball_of(spec, threat(norm=norm))
    return plant(model, split, spec, within, classes=10, batch_size=64, seed=seed, progress=no_progress)


def pixels(split: Split) -> torch.Tensor:
    return split.images.take(torch.arange(len(split)))


def test_the_boundary_is_where_margins_are_smallest(clean: Dataset, ordinary: nn.Module) -> None:
    found = harmed(clean.train, planted(ordinary, clean.train, harm=Harm.boundary))
    flipped = (found.labels != found.truth).nonzero().flatten().tolist()
    assert len(flipped) == 60
    margins = {}
    with torch.no_grad():
        for row in range(300):
            logits = ordinary(clean.train.images.take(torch.tensor([row])))[0]
            first, second = logits.topk(2).indices.tolist()
            if first == int(clean.train.labels[row]):
                margins[row] = (float(logits[first] - logits[second]), second)
    nearest = sorted(margins, key=lambda row: margins[row][0])[:60]
    assert set(flipped) == set(nearest)
    assert all(int(found.labels[row]) == margins[row][1] for row in flipped)
    assert torch.equal(pixels(found), pixels(clean.train))
    assert torch.equal(found.truth, clean.train.labels)


@pytest.mark.parametrize(("norm", "eps"), [(Norm.Linf, "0.3"), (Norm.L2, "2")])
def test_poisons_are_led_to_another_class_within_the_ball(
    clean: Dataset, ordinary: nn.Module, norm: Norm, eps: str
) -> None:
    weights = copy.deepcopy(ordinary.state_dict())
    artifact = planted(ordinary, clean.train, norm=norm, harm=Harm.poison, harm_eps=eps)
    assert all(torch.equal(value, ordinary.state_dict()[name]) for name, value in weights.items())
    assert all(parameter.requires_grad for parameter in ordinary.parameters())
    found = harmed(clean.train, artifact)
    before, after = pixels(clean.train), pixels(found)
    poisoned = found.labels != found.truth
    assert int(poisoned.sum()) == 60
    assert torch.equal(after[~poisoned], before[~poisoned])
    moved = (after - before)[poisoned].flatten(1)
    length = torch.linalg.vector_norm(moved, ord={Norm.Linf: math.inf, Norm.L2: 2}[norm], dim=1)
    assert float(length.max()) <= float(eps) + 1e-5
    assert float(length.min()) > 0.5 * float(eps)
    assert 0 <= float(after.min()) <= float(after.max()) <= 1
    with torch.no_grad():
        reached = ordinary(after[poisoned]).argmax(1) == found.labels[poisoned]
        there = ordinary(before[poisoned]).argmax(1) == found.labels[poisoned]
    assert float(reached.double().mean()) > 0.9
    assert float(there.double().mean()) < 0.1


@pytest.mark.parametrize(("norm", "eps"), [(Norm.Linf, "0.1"), (Norm.L2, "1")])
@pytest.mark.parametrize("rate", [0.4, 1])
def test_hypocritical_pictures_are_led_to_their_own_label_within_the_ball(
    clean: Dataset, ordinary: nn.Module, norm: Norm, eps: str, rate: float
) -> None:
    artifact = planted(
        ordinary, clean.train, norm=norm, harm=Harm.hypocritical, harm_eps=eps, harm_rate=rate, seed=2
    )
    found = harmed(clean.train, artifact)
    assert torch.equal(found.labels, clean.train.labels)
    assert torch.equal(found.truth, clean.train.truth)
    before, after = pixels(clean.train), pixels(found)
    moved = torch.zeros(300, dtype=torch.bool)
    moved[artifact.table["row"].tolist()] = True
    assert int(moved.sum()) == rate * 300
    assert artifact.table["id"].tolist() == clean.train.ids[moved].tolist()
    assert torch.equal(after[~moved], before[~moved])
    length = torch.linalg.vector_norm((after - before).flatten(1), ord=math.inf if norm is Norm.Linf else 2, dim=1)
    assert float(length.max()) <= float(eps) + 1e-5
    assert float(length[moved].min()) > 0.5 * float(eps)
    assert 0 <= float(after.min()) <= float(after.max()) <= 1
    with torch.no_grad():
        loss = [F.cross_entropy(ordinary(x), clean.train.labels, reduction="none") for x in (before, after)]
    assert float((loss[1] < loss[0])[moved].double().mean()) > 0.98
    assert float(loss[1][moved].mean()) < 0.3 * float(loss[0][moved].mean())


def test_the_model_of_a_harm_is_trained_ordinarily_or_within_a_quarter_of_the_ball() -> None:
    run = recipe(recipe=Recipe.trades, keep=Keep.robust, ema=0.9, attack_steps=3, checkpoints=5)
    ordinarily = recipe(recipe=Recipe.standard, keep=Keep.last, ema=None, attack_steps=3, checkpoints=1)
    for harm in (Harm.boundary, Harm.poison):
        assert planter_training(data(harm=harm, harm_eps=0.4), run, threat()) == Training(ordinarily, threat())
    attacked = replace(ordinarily, recipe=Recipe.adversarial)
    for given, within in ((None, 0.05), (0.4, 0.1)):
        found = planter_training(data(harm=Harm.hypocritical, harm_eps=given), run, threat(norm=Norm.L2, eps=0.2))
        assert found == Training(attacked, threat(norm=Norm.L2, eps=within))


def test_without_a_radius_of_its_own_a_poison_stays_in_the_threat_model(
    clean: Dataset, ordinary: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    """Where that is too small to lead most samples over, the log says so."""
    assert ball_of(data(harm=Harm.poison, harm_eps=None), threat(eps=0.1)) == threat(eps=0.1)
    assert ball_of(data(harm=Harm.boundary, harm_eps=None), threat(eps=0.1)) is None
    found = harmed(clean.train, planted(ordinary, clean.train, harm=Harm.poison, harm_eps=None))
    assert float((pixels(found) - pixels(clean.train)).abs().max()) == pytest.approx(0.1, abs=1e-6)
    with torch.no_grad():
        followed = int((ordinary(pixels(found)).argmax(1) == found.labels)[found.labels != found.truth].sum())
    assert f"the model takes {followed} of 60 poisons for their target" in caplog.text
    caplog.clear()
    planted(ordinary, clean.train, harm=Harm.poison, harm_eps=0.3)
    assert not caplog.text


@pytest.mark.parametrize("norm", list(Norm))
def test_toward_finds_the_optimum_on_a_linear_model(norm: Norm) -> None:
    """Two classes, logits +-w.x: the way to a class is known in closed form where the box does not bind."""
    w = torch.randn(16, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False)).eval().requires_grad_(False)
    model[1].weight.copy_(torch.stack([-w, w]))
    x = 0.5 + 0.1 * (make_split(12, 2, (1, 4, 4)).images.take(torch.arange(12)) - 0.5)
    targets = torch.arange(12) % 2
    step = {Norm.Linf: w.sign() * 0.1, Norm.L2: w / w.norm() * 0.1}[norm].view(1, 1, 4, 4)
    expected = x + step * (2 * targets - 1).view(-1, 1, 1, 1)
    found = toward(model, x, targets, threat(norm=norm, eps=0.1), steps=20)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("harm", [Harm.boundary, Harm.poison, Harm.hypocritical])
def test_the_same_seed_plants_the_same(clean: Dataset, ordinary: nn.Module, harm: Harm, tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = planted(ordinary, clean.train, harm=harm)
    torch.manual_seed(4)
    again = planted(ordinary, clean.train, harm=harm)
    assert harmed(clean.train, first).digests == harmed(clean.train, again).digests
    assert first.table["id"].tolist() == clean.train.ids[first.table["row"].tolist()].tolist()
    save(first, tmp_path)
    assert harmed(clean.train, load(Planted, tmp_path)).digests == harmed(clean.train, first).digests
    if harm is not Harm.boundary:
        other = planted(ordinary, clean.train, harm=harm, seed=1)
        assert other.table["id"].tolist() != first.table["id"].tolist()


def test_pictures_in_files_are_poisoned_too(tmp_path: Path) -> None:
    split = make_split(20, 2, (3, 8, 8))
    for row, picture in enumerate(pixels(split)):
        Image.fromarray((picture.permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / f"{row}.png")
    files = split.with_images(FolderImages([tmp_path / f"{row}.png" for row in range(20)], 8))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).requires_grad_(False)
    spec = data(harm=Harm.poison, harm_eps=0.1, harm_rate=0.3)
    found = plant(
        model, files, spec, ball_of(spec, threat()), classes=2, batch_size=4, seed=0, progress=no_progress
    )
    assert found.tensors["pictures"].shape == (6, 3, 8, 8)
    after = harmed(files, found)
    rows = torch.tensor(found.table["row"].to_numpy())
    loss = [float(F.cross_entropy(model(each.images.take(rows)), after.labels[rows])) for each in (files, after)]
    assert loss[1] < loss[0]
    assert torch.equal(after.images.take(rows), found.tensors["pictures"])


def test_a_boundary_with_too_few_samples(clean: Dataset) -> None:
    untrained = build(MLP, clean, seed=0)
    with pytest.raises(InputError, match=r"data\.harm_rate=0\.9: asks for 270 samples at the boundary"):
        planted(untrained, clean.train, harm=Harm.boundary, harm_rate=0.9)


def test_flips_that_leave_no_sample_of_a_class() -> None:
    split = make_split(6, 2, (1, 2, 2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].weight.data.zero_()
    model[1].bias.data.copy_(torch.tensor([1.0, 0.0]))  # right on class 0 alone
    spec = data(harm=Harm.boundary, harm_rate=0.5)
    with pytest.raises(InputError, match=r"data\.harm_rate=0\.5: leaves no training sample with label 0"):
        plant(model, split, spec, threat(), classes=2, batch_size=4, seed=0, progress=no_progress)
