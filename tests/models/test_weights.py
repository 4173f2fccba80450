"""Weights from a file: they fit, or one line says which do not; no pickled object is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from defense.data.splits import Dataset
from defense.errors import InputError
from defense.models.build import Design, build

MLP = {"_target_": "defense.models.networks.mlp", "hidden": [8]}


@pytest.fixture
def trained(digits: Dataset) -> nn.Module:
    """A network whose weights no seed draws."""
    model = build(MLP, digits, seed=5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    return model


WRITTEN = {
    "mine.safetensors": lambda state: state,
    "mine.pt": lambda state: state,
    "checkpoint.pt": lambda state: {"epoch": 3, "state_dict": state},
    "net.pt": lambda state: {"epoch": 3, "net": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "lightning.pt": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    "both.pt": lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    "parallel.pt": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled.pt": lambda state: {"model": {f"_orig_mod.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_arm_begins_with_the_weights_of_the_file(
    name: str, trained: nn.Module, digits: Dataset, tmp_path: Path
) -> None:
    state = WRITTEN[name](trained.state_dict())
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    for seed in (0, 1):
        model = build(MLP | {"weights": str(path)}, digits, seed=seed)
        for key, value in trained.state_dict().items():
            assert torch.equal(model.state_dict()[key], value), key


def test_skipped_weights_are_those_of_the_seed(trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "mine.pt")
    settings = MLP | {"weights": str(tmp_path / "mine.pt"), "skip": ["5.*"]}
    names = list(trained.state_dict())
    head = [name for name in names if name.startswith("5.")]
    assert head
    model, fresh = build(settings, digits, seed=0), build(MLP, digits, seed=0)
    for name in names:
        source = fresh if name in head else trained
        assert torch.equal(model.state_dict()[name], source.state_dict()[name]), name


def test_the_content_of_the_file_is_in_the_key(trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    identities = []
    for factor in (1, 2):
        torch.save({name: factor * value for name, value in trained.state_dict().items()}, path)
        identities.append(Design(MLP | {"weights": str(path)}, digits, 0).identity)
    assert identities[0]["settings"] == identities[1]["settings"]
    assert identities[0]["source"] != identities[1]["source"]


def without(state: dict[str, Tensor]) -> Any:
    return {name: value for name, value in state.items() if name != "5.bias"}


BAD = {  # what is in the file, and the line
    "lacks one": (without, r"the file lacks 5\.bias; expected .*model\.skip=\[5\.\*\]"),
    "has one more": (lambda s: s | {"6.bias": torch.ones(2)}, r"the file has, and the network has not, 6\.bias"),
    "another shape": (
        lambda s: s | {"5.bias": torch.ones(3)},
        r"has in another shape 5\.bias \(3,\) for \(10,\); expected",
    ),
    "not a number": (lambda s: s | {"5.bias": torch.full((10,), torch.nan)}, r"not finite in 5\.bias"),
    "no tensors": (lambda s: {"epoch": 3}, "holds a dict with the entries epoch, of which 0 are a state_dict"),
    "two": (lambda s: {"student": s, "teacher": s}, "entries student, teacher, of which 2 are a state_dict"),
    "a list": (lambda s: [1, 2], "holds a list without tensors"),
}


@pytest.mark.parametrize("name", BAD)
def test_weights_that_do_not_fit(name: str, trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    change, line = BAD[name]
    torch.save(change(trained.state_dict()), tmp_path / "mine.pt")
    with pytest.raises(InputError, match=line) as caught:
        build(MLP | {"weights": str(tmp_path / "mine.pt")}, digits, seed=0)
    assert caught.value.field == "model.weights"


def test_a_pickled_network_is_refused(trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    torch.save(trained, tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"holds Python objects.*expected torch\.save\(model\.state_dict\(\)"):
        build(MLP | {"weights": str(tmp_path / "whole.pt")}, digits, seed=0)


@pytest.mark.parametrize("name", ["mine.pt", "mine.safetensors"])
def test_a_file_that_is_none(name: str, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(InputError, match="No such file or directory; expected a file of weights"):
        build(MLP | {"weights": str(path)}, digits, seed=0)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=re.escape(f"model.weights={path}: ")) as caught:
        build(MLP | {"weights": str(path)}, digits, seed=0)
    assert "\n" not in str(caught.value)


def test_a_pattern_that_matches_nothing(trained: nn.Module, digits: Dataset, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "mine.pt")
    with pytest.raises(InputError, match=r"model\.skip=fc\.\*: expected a pattern of weights, as 0\.mean"):
        build(MLP | {"weights": str(tmp_path / "mine.pt"), "skip": ["fc.*"]}, digits, seed=0)
