"""experiment=paper/noisy_labels from the command line, on a small file with noisy labels beside known ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.extra("cleanlab")

Command = Callable[..., tuple[int, str, str]]
SMALL = [
    "data.train_labels=train_y_noisy",
    "data.train_size=40",
    "data.validation_size=12",
    "model.width=4",
    "train.epochs=1",
    "treatment.budget=0.1",
    "scorer.folds=2",
]


@pytest.mark.slow
def test_every_score_is_beside_confident_learning_and_chance(command: Command, npz: Path, tmp_path: Path) -> None:
    code, out, err = command(
        "experiment=paper/noisy_labels",
        f"data.path={npz}",
        "seed=0,1",
        "scorer=confident_learning,random",
        *SMALL,
    )
    assert (code, err) == (0, "")
    assert "Accuracy: " in out
    (page,) = (tmp_path / "runs" / "noisy_labels").glob("*/report.md")
    assert all(name in page.read_text("utf-8") for name in ("confident_learning", "random", "precision", "AUC"))
    results = [json.loads(file.read_text("utf-8")) for file in page.parent.glob("*/result.json")]
    assert len(results) == 4
    for result in results:
        assert set(result["arms"]["defended"]) == {"accuracy"}
        assert result["sizes"]["treated"] == 4
        assert 0 <= result["selection"]["precision"] <= 1
        assert result["selection"]["noise"] == pytest.approx(0.2, abs=0.1)


@pytest.mark.slow
def test_sizes_of_the_ensemble_are_an_override(command: Command, npz: Path, tmp_path: Path) -> None:
    code, _, err = command(
        "experiment=paper/noisy_labels",
        "name=noisy_labels_ensemble",
        f"data.path={npz}",
        "seed=0",
        "scorer=ip_ensemble",
        "scorer.count=1,3",
        "scorer.max_rate=0.5",
        *SMALL,
    )
    assert (code, err) == (0, "")
    (page,) = (tmp_path / "runs" / "noisy_labels_ensemble").glob("*/report.md")
    assert all(row in page.read_text("utf-8") for row in ("ip_ensemble count=1", "ip_ensemble count=3"))


def test_cleanlab_that_is_not_installed_is_said_before_any_training(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)  # an import of it then fails
    code, out, err = command("scorer=confident_learning", "objective=utility", "task=detect")
    assert (code, "train" in out) == (2, False)
    assert err.startswith('defense: scorer=confident_learning: is computed by cleanlab: pip install -e ".[noise]"')
