"""A GPU beside the CPU: scores, attacks, trainings and evaluations, equal within the bounds that each test states.

`pytest -m gpu` runs them, in less than eight minutes; without a GPU they are skipped. DEFENSE_CIFAR10 names a
folder with train_jpeg.npz, test_jpeg.npz (JPEG files end to end in `data`, cut at `offsets`) and labels.npz.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import defense
from defense.models.networks import cnn, mlp
from tests.calls import scores_by_row
from tests.conftest import result_of, run_in

DEVICE = "cuda"
CIFAR10 = Path(os.environ.get("DEFENSE_CIFAR10", "missing"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
# float32 has 24 bits of mantissa; cuDNN's convolutions may round their factors to 11 (TF32)
NETWORKS = {"mlp": (mlp, {"hidden": [64]}, 1e-3), "cnn": (cnn, {"width": 16}, 2e-2)}
SCORERS = [
    "ip", "ip_cosine", "ip_ensemble", "self_influence", "loss", "datainf", "influence_function", "lissa", "ekfac",
]  # fmt: skip
SHORT = [
    "data.train_size=600",
    "data.validation_size=200",
    "data.test_size=400",
    "evaluation.checked=0",
    "train.epochs=15",
]


def fitted(name: str) -> nn.Module:
    """Return a network that has been trained for some steps on `samples`."""
    torch.manual_seed(0)
    make, settings, _ = NETWORKS[name]
    model = make(input_shape=(3, 16, 16), classes=4, mean=[0.5] * 3, std=[0.3] * 3, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = samples(256, seed=0)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def samples(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return noisy pictures of four classes, each brighter in one quarter."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    pictures = torch.rand((count, 3, 16, 16), generator=chance)
    for label in range(4):
        rows, columns = slice(8 * (label // 2), 8 * (label // 2) + 8), slice(8 * (label % 2), 8 * (label % 2) + 8)
        pictures[labels == label, :, rows, columns] += 0.15
    return pictures.clamp(max=1), labels


def moved(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].to(DEVICE), pair[1].to(DEVICE)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_scores(name: str, scorer: str) -> None:
    """Within a thousandth of their norm for an MLP, within a fiftieth for a CNN; ranks within 0.1 %."""
    model, train, held_out = fitted(name), samples(256, seed=0), samples(64, seed=1)
    expected = scores_by_row(deepcopy(model), train, held_out, scorer=scorer)
    found = scores_by_row(model.to(DEVICE), moved(train), moved(held_out), scorer=scorer).cpu()
    assert float((found - expected).norm() / expected.norm()) < NETWORKS[name][2]
    assert spearman(found, expected) > 0.999


@pytest.mark.parametrize("model", ["smooth_mlp", "smooth_cnn"])
def test_metagradients(model: str, tmp_path: Path) -> None:
    """Of a short training, whose rounding grows from step to step: ranks within 2 %."""
    words = [*SHORT, f"model={model}", "scorer=metagradient", "train.epochs=4", "evaluation.trusted=false"]
    tables = []
    for kind in ("cpu", DEVICE):
        run_in(tmp_path / kind, *words, f"fabric.accelerator={kind}", f"store={tmp_path / 'store'}")
        tables.append(pd.read_parquet(tmp_path / kind / "scores.parquet").set_index("id")["score"])
    assert tables[0].corr(tables[1], method="spearman") > 0.98


def test_a_descent(tmp_path: Path) -> None:
    """The objective of each round within 5 %: weights differ by rounding, which grows from step to step."""
    words = [*SHORT, "treatment=optimize", "treatment.rounds=2", "train.epochs=4", "evaluation.trusted_weights=[]"]
    rounds = []
    for kind in ("cpu", DEVICE):
        more = (f"fabric.accelerator={kind}", f"store={tmp_path / 'store'}")
        found = run_in(tmp_path / kind, *words, *more)
        rounds.append(pd.DataFrame(found["descent"])[["driving", "deciding"]])
    pd.testing.assert_frame_equal(*rounds, rtol=0.05)


def spearman(a: Tensor, b: Tensor) -> float:
    return float(pd.Series(a.numpy()).corr(pd.Series(b.numpy()), method="spearman"))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", NETWORKS)
def test_attacks_and_evaluation(name: str, norm: str) -> None:
    """Robust accuracy within 1 point of 400 samples after every attack: starts are drawn on each device anew."""
    eps = {"Linf": 0.05, "L2": 0.5}[norm]
    model, pair = fitted(name), samples(400, seed=2)
    expected = defense.evaluate(deepcopy(model), pair, suite="standard", norm=norm, eps=eps)
    model = model.to(DEVICE)
    found = defense.evaluate(model, moved(pair), suite="standard", norm=norm, eps=eps)
    assert list(found) == list(expected)
    assert max(abs(found[attack] - expected[attack]) for attack in expected) <= 1.0, (found, expected)
    adversarial = defense.attack(model, moved(pair), attack="pgd", norm=norm, eps=eps)
    assert adversarial.device.type == DEVICE
    change = (adversarial.cpu() - pair[0]).flatten(1)
    assert float(change.norm(dim=1, p=2 if norm == "L2" else torch.inf).max()) <= eps + 1e-5
    assert 0 <= float(adversarial.min()) <= float(adversarial.max()) <= 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same run on the CPU, on the GPU, there again, and there in mixed precision: result, and scores by id."""
    folder = tmp_path_factory.mktemp("runs")
    own = [*SHORT, "model=cnn", f"store={folder / 'store'}"]
    kinds = {
        "cpu": ["fabric.accelerator=cpu"],
        "gpu": [f"fabric.accelerator={DEVICE}"],
        "again": [f"fabric.accelerator={DEVICE}"],
        "bf16": [f"fabric.accelerator={DEVICE}", "fabric.precision=bf16-mixed", "train.channels_last=true"],
    }
    found = {name: run_in(folder / name, *own, *words) for name, words in kinds.items()}
    for name, result in found.items():
        result["scores"] = pd.read_parquet(folder / name / "scores.parquet").set_index("id")["score"]
    return found


@pytest.mark.parametrize("kind", ["gpu", "bf16"])
def test_a_run(runs: dict[str, dict[str, Any]], kind: str) -> None:
    """Trained apart, so close and not equal: clean within 3 points, robust within 8, of 400 samples; ranks 0.9."""
    expected, found = runs["cpu"], runs[kind]
    assert found["device"].startswith(DEVICE)
    for arm in ("baseline", "control", "defended"):
        assert found["arms"][arm]["clean"] == pytest.approx(expected["arms"][arm]["clean"], abs=3)
        worst = expected["arms"][arm]["adaptive"]["worst"]
        assert found["arms"][arm]["adaptive"]["worst"] == pytest.approx(worst, abs=8)
    assert found["scores"].corr(expected["scores"], method="spearman") > 0.9


def test_a_run_again_computes_nothing(runs: dict[str, dict[str, Any]]) -> None:
    assert set(runs["again"]["reused"]) == set(runs["again"]["seconds"])
    assert runs["again"]["arms"] == runs["gpu"]["arms"]
    assert not set(runs["gpu"]["keys"].values()) & set(runs["cpu"]["keys"].values())


@pytest.mark.extra("hydra_plugins.hydra_joblib_launcher")
def test_two_processes_share_one_gpu(tmp_path: Path) -> None:
    """Both end, on the GPU, each with an accuracy that has been learned."""
    words = [*SHORT, "seed=0,1", "launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    words += [f"fabric.accelerator={DEVICE}"]
    subprocess.run([sys.executable, "-m", "defense", "-m", *words], cwd=tmp_path, check=True, capture_output=True)
    cells = [result_of(tmp_path / "sweep" / number) for number in ("0", "1")]
    assert all(cell["device"].startswith(DEVICE) for cell in cells)
    assert all(cell["arms"]["baseline"]["clean"] > 80 for cell in cells)


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="DEFENSE_CIFAR10 names no folder of CIFAR-10")
def test_a_resnet_on_fifty_thousand_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained to 85 % in 10 epochs, scored whole, and attacked; the seconds of each stage are printed."""
    arrays = {f"{part}_x": pictures(CIFAR10 / f"{part}_jpeg.npz") for part in ("train", "test")}
    labels = np.load(CIFAR10 / "labels.npz")
    arrays |= {f"{part}_y": labels[f"{part}_y"] for part in ("train", "test")}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    found = run_in(
        tmp_path / "out", "data=npz", f"data.path={tmp_path / 'cifar10.npz'}", "data.train_size=null",
        "data.crop=4", "data.flip=true", "data.test_size=2000", "model=resnet18", "train.epochs=10",
        "train.channels_last=true", "fabric.precision=bf16-mixed", f"fabric.accelerator={DEVICE}",
        f"store={tmp_path / 'store'}",
    )  # fmt: skip
    with capsys.disabled():
        print(f"\n{found['sizes']['train']} pictures: {found['seconds']}")
    assert found["sizes"]["train"] == len(arrays["train_x"]) - found["sizes"]["validation"]
    assert found["arms"]["baseline"]["clean"] > 85
    assert found["arms"]["baseline"]["adaptive"]["worst"] < found["arms"]["baseline"]["clean"] - 5


def pictures(path: Path) -> np.ndarray:
    """Return the pictures of a file of JPEGs end to end, uint8 (n, 32, 32, 3)."""
    arrays = np.load(path)
    whole, ends = arrays["data"].tobytes(), arrays["offsets"]
    files = [io.BytesIO(whole[start:end]) for start, end in pairwise(ends)]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
