"""Small real inputs for the tests: nothing is downloaded, nothing outside a temporary folder is written."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: workers are as many as cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf

from defense.__main__ import main
from defense.config.compose import CONF, checked, composed, register
from defense.config.schema import Config, Data, Scorer, Threat, Train
from defense.data.images import TensorImages
from defense.data.load import load
from defense.data.splits import Dataset, Split
from tests.texts import tiny_encoder

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples"))  # functions of a user, as my_parts.margin
DEFAULT = composed()
TINY = [
    "data.train_size=200",
    "data.validation_size=60",
    "data.test_size=80",
    "train.epochs=2",
    "evaluation.checked=0",
    "evaluation.attacks.pgd.steps=5",
    "evaluation.attacks.apgd_t.steps=5",
]

LAUNCHERS = {  # of conf/launcher, by the package that it needs
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load(data(train_size=200, validation_size=60, test_size=80), seed=0)


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny pretrained encoder of texts."""
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """A file of 3 classes of 8x8 colour pictures with noisy labels beside the known ones."""
    rng = np.random.default_rng(0)
    path = tmp_path / "small.npz"
    train_y, test_y = np.arange(60) % 3, np.arange(30) % 3
    np.savez(
        path,
        train_x=rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        train_y=train_y,
        train_y_noisy=(train_y + (np.arange(60) < 12)) % 3,
        test_x=rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8),
        test_y=test_y,
    )
    return path


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `defense` with arguments in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        return (run_here(*arguments), *capfd.readouterr())

    return call


def run_here(*arguments: str) -> int:
    """Run `defense` in this process; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["defense", *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of optional packages that are not installed."""
    for item in items:
        for package in {name for mark in item.iter_markers("extra") for name in mark.args}:
            if not installed(package):
                item.add_marker(pytest.mark.skip(reason=f"{package} is missing: pip install -e '.[all]'"))


def installed(package: str) -> bool:
    """Return whether a package, or a module in one, can be imported."""
    parents = package.split(".")[:-1]
    return all(find_spec(".".join(parents[: n + 1])) for n in range(len(parents))) and bool(find_spec(package))


@pytest.fixture(autouse=True)
def quick_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no chart outside tests/reporting: half of the time of a small run is matplotlib's."""
    if "reporting" not in request.path.parts and "charts" not in request.keywords:
        drawing = "matplotlib.backends.backend_svg.FigureCanvasSVG.print_svg"
        monkeypatch.setattr(drawing, lambda self, file, **options: file.write("<svg></svg>"))


def run_in(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run a cell of these settings into `folder`, as `defense` does once Hydra has composed them."""
    from defense.cli.launch import launched

    folder.mkdir(parents=True)
    found: dict[str, Any] = launched(changed(*overrides), folder, list(overrides))
    return found


def changed(*overrides: str) -> Config:
    """Return what `composed` does, faster: Hydra composes the groups once, and single values are set on them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [each for each in parsed if "." in each.key_or_group and not each.is_add() and not each.is_delete()]
    whole = deepcopy(grouped(tuple(str(each.input_line) for each in parsed if each not in values)))
    for each in values:
        OmegaConf.update(whole, each.key_or_group, each.value(), merge=True)
    return checked(whole)


@cache
def grouped(overrides: tuple[str, ...]) -> DictConfig:
    """Return the settings as Hydra composes them, before they are checked."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def result_of(folder: Path) -> dict[str, Any]:
    """Return the result.json of a run."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return found


def computed_in(folder: Path) -> set[str]:
    """Return the stages that a run has computed, and not found in the store; pages are drawn, not computed."""
    found = result_of(folder)
    return set(found["seconds"]) - set(found["reused"]) - {"pages"}


def data(**changes: Any) -> Data:
    """Return the default data settings with changes."""
    return replace(DEFAULT.data, **changes)


def recipe(**changes: Any) -> Train:
    """Return the default recipe with changes."""
    return replace(DEFAULT.train, **changes)


def threat(**changes: Any) -> Threat:
    """Return the default threat model with changes."""
    return replace(DEFAULT.threat, **changes)


def scorer(**changes: Any) -> Scorer:
    """Return the default scorer with changes."""
    return replace(DEFAULT.scorer, **changes)


class Doubles(TensorImages):
    """Pictures that come in float64."""

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return super().take(indices).double()


def doubles(split: Split) -> Split:
    """Return the split with pictures in float64."""
    return split.with_images(Doubles(split.images.take(torch.arange(len(split)))))


def make_split(count: int, classes: int, shape: tuple[int, int, int], *, seed: int = 0) -> Split:
    """Return random pictures and labels."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = TensorImages(torch.rand((count, *shape), generator=chance))
    return Split(torch.arange(count), images, labels, labels)
