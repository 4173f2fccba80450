"""`defense.defend` is the run of the command, on a network and samples that Python code has."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import defense
from defense.api import Defended
from defense.api.design import GivenDesign
from defense.config.choices import Source
from defense.config.compose import composed
from defense.data.load import load
from defense.errors import InputError
from defense.models.build import build
from defense.models.networks import mlp
from defense.store.fingerprint import canonical
from tests.conftest import TINY, computed_in, run_in

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "checked": 0,
    "eps": 0.1,
    "evaluation.attacks.pgd.steps": 5,
    "evaluation.attacks.apgd_t.steps": 5,
}
CONFIG = composed(*TINY)


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """The network of the command before its training, and the samples that it is trained and tested on."""
    data = load(CONFIG.data, seed=0)
    parts = {
        part: (data.splits[part].images.take(torch.arange(len(split))), split.labels)
        for part, split in data.splits.items()
    }
    return {"model": build(CONFIG.model, data, seed=0), **parts}


@pytest.fixture(scope="module")
def found(given: dict[str, Any]) -> Defended:
    ids = [f"photo {row}" for row in range(200)]
    return defense.defend(**given, ids=ids, **SETTINGS)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run by the command."""
    folder = tmp_path_factory.mktemp("command")
    run_in(folder / "run", *TINY, f"store={folder / 'store'}")
    return folder / "run"


def test_the_numbers_are_those_of_the_command(found: Defended, command: Path) -> None:
    result = json.loads((command / "result.json").read_text("utf-8"))
    assert found.table.loc["adaptive, worst", ["baseline", "control", "defended", "trusted"]].to_dict() == {
        arm: own["adaptive"]["worst"] for arm, own in result["arms"].items()
    }
    assert found.table.loc["clean", "defended"] == result["arms"]["defended"]["clean"]
    gain = result["gain_over_control"]
    assert found.table.loc["adaptive, worst", ["gain", "low", "high"]].tolist() == pytest.approx(
        [gain["mean"], gain["low"], gain["high"]], abs=0.01
    )
    assert found.verdict == result["verdict"]
    table = pd.read_parquet(command / "scores.parquet")
    assert found.samples["score"].tolist() == table["score"].tolist()
    assert found.samples["treated"].tolist() == table["treated"].tolist()


def test_samples_are_by_the_ids_of_the_user(found: Defended, given: dict[str, Any]) -> None:
    table = found.samples
    assert list(table) == ["score", "label", "prediction", "loss", "keep", "new_label", "weight", "treated"]
    assert table.index[:2].tolist() == ["photo 0", "photo 1"]
    assert table["label"].tolist() == given["train"][1].tolist()
    assert set(table.nsmallest(20, "score").index) == set(table.index[~table["keep"]])


def test_models_are_copies_with_the_weights_of_an_arm(found: Defended, given: dict[str, Any]) -> None:
    x, labels = given["test"]
    for arm in ("baseline", "control", "defended", "trusted"):
        model = found.model(arm)
        assert not model.training
        right = 100 * float((model(x).argmax(1) == labels).double().mean())
        assert right == pytest.approx(found.table.loc["clean", arm])
    assert found.model() is not found.model()
    with pytest.raises(InputError, match="arm=defend: expected one of defended, baseline, control, trusted"):
        found.model("defend")


def test_the_report_is_that_of_the_command(found: Defended, tmp_path: Path) -> None:
    page = found.save(tmp_path / "page")
    assert page.name == "report.html"
    names = {file.name for file in page.parent.iterdir()}
    assert {
        "report.html",
        "report.md",
        "result.json",
        "scores.csv",
        "scores.parquet",
        "per_sample.parquet",
    } <= names
    text = (page.parent / "report.md").read_text("utf-8")
    assert found.verdict in text
    assert "defense.defend(model, train, validation, test, **{'objective': 'robustness', 'scorer': 'ip', " in text
    assert "data given; model" in text
    assert "photo " in (page.parent / "scores.csv").read_text("utf-8")
    assert found.verdict.split(":")[0] in found._repr_html_()
    assert repr(found).startswith(found.verdict)


def test_the_model_and_the_generators_come_back_untouched(given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10)
    )
    model[0].requires_grad_(False)
    model[1].eval()
    model.register_buffer("mark", torch.ones(2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = [*model.parameters(), *model.buffers()]
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    loaders = [DataLoader(TensorDataset(*given[part]), batch_size=64) for part in ("train", "validation", "test")]
    found = defense.defend(model, *loaders, seed=1, **SETTINGS)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(a is b for a, b in zip([*model.parameters(), *model.buffers()], tensors, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert [value.requires_grad for value in model.parameters()] == [False, False, True, True, True, True]
    assert all(value.grad is None for value in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]
    defended = found.model()
    assert torch.equal(defended[0].weight, model[0].weight)  # frozen in every arm
    assert not torch.equal(defended[5].weight, model[5].weight)
    assert [value.requires_grad for value in defended.parameters()] == [False, False, True, True, True, True]
    assert defense.defend(model, *loaders, seed=1, **SETTINGS).samples.equals(found.samples)


def test_a_store_is_found_again(given: dict[str, Any], tmp_path: Path) -> None:
    options = {**SETTINGS, "store": tmp_path / "store"}
    defense.defend(**given, **options).save(tmp_path / "first")
    defense.defend(**given, **options).save(tmp_path / "again")
    assert computed_in(tmp_path / "first")
    assert not computed_in(tmp_path / "again")
    with torch.no_grad():
        given["model"][-1].bias[0] += 0.5  # other weights to begin with are another network
    defense.defend(**given, **options).save(tmp_path / "other")
    with torch.no_grad():
        given["model"][-1].bias[0] -= 0.5
    assert {"train_baseline", "score", "evaluate_defended"} <= computed_in(tmp_path / "other")


def test_what_a_network_is_made_of_enters_its_identity(given: dict[str, Any]) -> None:
    data = load(CONFIG.data, seed=0)

    def identity(network: nn.Module) -> str:
        return json.dumps(canonical(GivenDesign({}, data, 0, network)))

    networks = [nn.Sequential(nn.Flatten(), nn.Dropout(rate), nn.Linear(64, 10)) for rate in (0.1, 0.1, 0.2)]
    for each in networks[1:]:
        each.load_state_dict(networks[0].state_dict())
    assert identity(networks[0]) == identity(networks[1])
    assert identity(networks[0]) != identity(networks[2])
    networks[1][2].bias.requires_grad_(False)
    assert identity(networks[0]) != identity(networks[1])
    assert set(GivenDesign({}, data, 0, Mine()).identity["source"]) >= {Mine.__module__}


class Mine(nn.Module):
    """A network of a user's file."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out


def test_a_class_without_a_file_has_no_store(given: dict[str, Any], tmp_path: Path) -> None:
    kind = type("Typed", (Mine,), {"__module__": "builtins"})
    parts = {name: value for name, value in given.items() if name != "model"}
    with pytest.raises(InputError, match="store=Typed: the code of Typed is in no file"):
        defense.defend(kind(), **parts, **SETTINGS, store=tmp_path)


def test_settings_have_the_names_of_the_configuration(given: dict[str, Any]) -> None:
    options = {
        **SETTINGS,
        "recipe": "adversarial",
        "treatment": "relabel",
        "objective": {"utility": 1.0},
        "scorer": {"name": "ip", "cosine": True},
        "suite": "quick",
        "norm": "L2",
        "eps": 0.5,
        "budget": 0.05,
        "trusted": False,
        "evaluation.batch_size": 64,
    }
    found = defense.defend(**given, **options)
    config = found.finished.config
    assert str(config.train.recipe) == "adversarial"
    assert (str(config.treatment.name), config.treatment.budget) == ("relabel", 0.05)
    assert (str(config.threat), config.evaluation.batch_size) == ("L2, eps 0.5", 64)
    assert config.scorer.cosine
    assert list(found.table) == ["baseline", "control", "defended", "gain", "low", "high"]
    assert (found.samples["new_label"] != found.samples["label"]).sum() == found.samples["treated"].sum()


def test_given_samples_are_no_source_of_the_command() -> None:
    with pytest.raises(
        InputError, match=r"data\.source=given: its samples were given by a call of defense.defend"
    ):
        load(replace(CONFIG.data, source=Source.given), seed=0)


class Silent(nn.Module):
    """Logits in eval mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out[:, :1] if self.training else out


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown setting": ({"epoch": 3}, "epoch=3: no such setting; expected one of epochs, seed"),
    "an unknown dotted one": ({"train.epoch": 3}, "train.epoch=3: .*epoch"),
    "one of no part": ({"data.source": "digits"}, "data.source=digits: no such setting"),
    "a value out of range": ({"epochs": 0}, "train.epochs=0: expected a whole number of at least 1"),
    "a value of another type": ({"epochs": "many"}, "train.epochs=many: .*Integer"),
    "a treatment": ({"treatment": "drop"}, "treatment='drop': expected one of"),
    "a scorer": ({"scorer": "ekfca"}, "scorer='ekfca': expected one of ekfac, "),
    "an eps": ({"eps": 8}, "threat.eps=8: expected at most 1"),
    "devices": ({"fabric.devices": 2}, "fabric.devices=2: expected 1 from Python"),
    "other pictures": (
        {"test": (torch.rand(80, 1, 9, 9), torch.arange(80) % 10)},
        r"test pictures=shape \(1, 9, 9\): expected \(1, 8, 8\), as of train",
    ),
    "features": ({"train": (torch.rand(80, 64), torch.arange(80) % 10)}, r"train pictures=shape \(80, 64\)"),
    "a label too high": (
        {"test": (torch.rand(80, 1, 8, 8), torch.arange(80))},
        "test labels=0 to 79: expected 0 to 9, as the model has logits",
    ),
    "a frozen model": (
        {"model": mlp(input_shape=(1, 8, 8), classes=10, mean=[0.0], std=[1.0]).requires_grad_(False)},
        "model=Sequential: no parameter asks for a gradient",
    ),
    "float64": (
        {"model": mlp(input_shape=(1, 8, 8), classes=10, mean=[0.0], std=[1.0]).double()},
        r"model=Sequential: has weights of torch.float64, .*; model.float\(\) casts them",
    ),
    "TorchScript": (
        {"model": torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.rand(2, 1, 8, 8))},
        "model=Scripted: TorchScript is not trained",
    ),
    "no logits in training": ({"model": Silent()}, r"model=Silent: gives \(8, 1\) .* in training"),
    "no model": ({"model": len}, "model=builtin_function_or_method: expected a torch.nn.Module"),
    "ids": ({"ids": ["a"] * 200}, "ids=a: is there twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_before_any_compute(name: str, given: dict[str, Any]) -> None:
    options, said = WRONG[name]
    with pytest.raises(InputError, match=said) as error:
        defense.defend(**{**given, **SETTINGS, **options})
    assert len(str(error.value).splitlines()) == 1


class Dicts(nn.Module):
    """A network whose output is a dict."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(x), "features": x.flatten(1)}


def test_a_network_of_dicts_is_trained_on_its_logits(given: dict[str, Any], found: Defended) -> None:
    wrapped = defense.defend(**given | {"model": Dicts(given["model"])}, **SETTINGS)
    pd.testing.assert_frame_equal(wrapped.table, found.table, atol=2.6)  # two of 80 samples
    x, _ = given["test"]
    output = wrapped.model()(x)
    assert set(output) == {"logits", "features"}
    torch.testing.assert_close(output["logits"], found.model()(x))
    assert not given["model"]._forward_hooks
