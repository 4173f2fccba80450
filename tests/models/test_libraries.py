"""Networks of torchvision, timm and Hugging Face by their names, and input that is normalised for a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import Design, build, source_of
from defense.models.modes import evaluating
from tests.conftest import make_split

PLACE = "defense.models.libraries"
COLOUR, GREY = (3, 32, 32), (1, 32, 32)


def dataset(shape: tuple[int, int, int]) -> Dataset:
    train = make_split(12, 3, shape)
    return Dataset(train, make_split(6, 3, shape), make_split(6, 3, shape), ["a", "b", "c"], noise_known=False)


class Mean(nn.Module):
    """Logits that are the means of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def means() -> nn.Module:
    return Mean()


def means_that_normalise(mean: list[float], std: list[float]) -> nn.Module:
    model = Mean()
    model.given = mean, std
    return model


def test_a_network_that_expects_normalised_input_gets_it() -> None:
    data = dataset(COLOUR)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]
    model = build({"_target_": f"{__name__}.means", "mean": mean, "std": std}, data, seed=0)
    x = data.train.images.take(torch.arange(4))
    expected = (x.mean((2, 3)) - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(model(x), expected)
    with evaluating(model):
        torch.testing.assert_close(model(x), expected)


def test_a_network_that_names_mean_and_std_normalises_itself() -> None:
    data = dataset(COLOUR)
    path = f"{__name__}.means_that_normalise"
    told = build({"_target_": path, "mean": [0.5] * 3, "std": [0.2] * 3}, data, seed=0)
    assert told.given == ([0.5] * 3, [0.2] * 3)
    assert build({"_target_": path}, data, seed=0).given == data.pixel_statistics
    x = data.train.images.take(torch.arange(4))
    torch.testing.assert_close(told(x), x.mean((2, 3)))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"mean": [0.5], "std": [0.2] * 3}, r"model\.mean=\[0\.5\]: expected 3 numbers, one for each channel"),
        ({"mean": [0.5] * 3}, r"model\.std=null: expected 3 numbers"),
        ({"mean": [0.5] * 3, "std": [0.2, 0, 0.2]}, r"model\.std=.*: expected numbers above 0"),
        ({"mean": "imagenet", "std": [0.2] * 3}, r"model\.mean=imagenet: expected 3 numbers"),
    ],
)
def test_statistics_that_do_not_fit(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        build({"_target_": f"{__name__}.means", **settings}, dataset(COLOUR), seed=0)


@pytest.mark.parametrize("shape", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_of_torchvision(name: str, shape: tuple[int, int, int]) -> None:
    data = dataset(shape)
    model = build({"_target_": f"{PLACE}.torchvision", "name": name}, data, seed=0)
    x = data.train.images.take(torch.arange(3))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in data.pixel_statistics)
    known = {"name": name, "mean": [0.0] * 3, "std": [1.0] * 3}
    plain = build({"_target_": f"{PLACE}.torchvision", **known}, dataset(COLOUR), seed=0)
    colour = ((x - mean) / std).expand(-1, 3, -1, -1)
    with evaluating(model), evaluating(plain):
        assert model(x).shape == (3, 3)
        torch.testing.assert_close(model(x), plain(colour))


@pytest.mark.slow
def test_networks_of_torchvision_that_are_told_the_side() -> None:
    for name in ("vit_b_16", "googlenet"):
        model = build({"_target_": f"{PLACE}.torchvision", "name": name}, dataset(COLOUR), seed=0)
        assert model(torch.rand(2, *COLOUR)).shape == (2, 3)


@pytest.mark.extra("timm")
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_of_timm(name: str) -> None:
    model = build({"_target_": f"{PLACE}.timm", "name": name}, dataset(GREY), seed=0)
    assert model(torch.rand(2, *GREY)).shape == (2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT of ten classes, with its weights and the statistics of its preprocessor."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=10)
    place = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(config).save_pretrained(place)
    (place / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return place


@pytest.mark.extra("transformers")
def test_of_hugging_face(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The body is that of the folder, the head of three classes is drawn and named, input is as it says."""
    from transformers import ViTForImageClassification

    data, settings = dataset(COLOUR), {"_target_": f"{PLACE}.huggingface", "folder": str(folder)}
    model = build(settings, data, seed=0)
    reference, state = ViTForImageClassification.from_pretrained(folder).state_dict(), model.state_dict()
    assert state.keys() == reference.keys()
    assert all(torch.equal(state[name], reference[name]) for name in state if "classifier" not in name)
    assert state["classifier.weight"].shape == (3, 16)
    assert "classifier.weight" in caplog.text
    x = data.train.images.take(torch.arange(2))
    plain = build(settings | {"mean": [0.0] * 3, "std": [1.0] * 3}, data, seed=0)
    with evaluating(model), evaluating(plain):
        torch.testing.assert_close(model(x), plain((x - 0.5) / 0.5))


@pytest.mark.extra("transformers")
def test_the_folder_is_in_the_key(folder: Path) -> None:
    settings = {"_target_": f"{PLACE}.huggingface", "folder": str(folder)}
    identity = Design(settings, dataset(COLOUR), 0).identity
    assert identity["facts"]["mean"] == [0.5] * 3
    assert set(identity["source"]) == {"transformers", "folder"}


def test_the_version_of_the_library_is_in_the_key() -> None:
    from importlib.metadata import version

    assert source_of({"_target_": f"{PLACE}.torchvision"}) == {"torchvision": version("torchvision")}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"_target_": f"{PLACE}.torchvision", "name": "resnet19"},
            "no network of torchvision; the nearest are resnet18",
        ),
        (
            {"_target_": f"{PLACE}.torchvision", "name": "resnet18", "weights": "mine.pt"},
            r"model\.mean=null: expected that of the pictures",
        ),
        (
            {"_target_": f"{PLACE}.huggingface", "folder": None},
            r"model\.folder=null: expected a folder with config\.json",
        ),
        ({"_target_": f"{PLACE}.huggingface", "folder": "no"}, r"model\.folder=no: no config\.json there"),
    ],
)
def test_what_is_not_there(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        build(settings, dataset(COLOUR), seed=0)


def test_pictures_that_are_not_square() -> None:
    settings = {"_target_": f"{PLACE}.torchvision", "name": "vit_b_16"}
    with pytest.raises(InputError, match=r"model\.name=vit_b_16: takes square pictures alone"):
        build(settings, dataset((3, 32, 48)), seed=0)
