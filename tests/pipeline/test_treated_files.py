"""kept.csv and weights.csv: what a run leaves for training elsewhere, by the rows of the user's arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from tests.conftest import run_in

COUNT = 60
LABELS = np.arange(COUNT) % 3
NAMES = [f"=pic {number}.png" for number in range(COUNT)]
SMALL = [
    "data=npz", "data.validation_size=12", "model.hidden=[4]", "train.epochs=1", "evaluation.checked=0",
    "evaluation.attacks.pgd.steps=1", "evaluation.attacks.apgd_t.steps=1", "treatment.budget=0.25",
]  # fmt: skip
CASES = {
    "remove": ["task=defend"],
    "relabel": ["task=defend", "treatment=relabel"],
    "reweight": ["task=defend", "treatment=reweight"],
    "repair": ["task=repair", "objective=utility"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of pictures whose first pixel is their row; validation is drawn from the training part."""
    folder = tmp_path_factory.mktemp("arrays")
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4), dtype=np.uint8)
    pixels[:, 0, 0] = np.arange(COUNT)
    test = {"test_x": pixels[:30], "test_y": LABELS[:30]}
    np.savez(folder / "my.npz", train_x=pixels, train_y=LABELS, train_names=NAMES, **test)
    return folder


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Path]:
    words = [*SMALL, *CASES[request.param], f"data.path={folder / 'my.npz'}", f"store={folder / 'store'}"]
    run_in(folder / request.param, *words)
    return request.param, folder / request.param


def table(folder: Path, name: str) -> pd.DataFrame:
    """Return a CSV file of a run with names as they are in the data, and ids that are the rows of train_x."""
    found = pd.read_csv(folder / name)
    found["name"] = found["name"].str.removeprefix("'")
    assert found["name"].tolist() == [NAMES[row] for row in found["id"]]
    assert found["id"].is_monotonic_increasing
    return found


def test_weights_are_of_every_training_sample_and_nought_if_it_is_removed(case: tuple[str, Path]) -> None:
    name, folder = case
    scores, weights = pd.read_parquet(folder / "scores.parquet"), table(folder, "weights.csv")
    assert weights.columns.tolist() == ["id", "name", "weight", "label"]
    assert weights["id"].tolist() == scores["id"].tolist()
    assert len(weights) == COUNT - 12
    changed = weights["label"] != LABELS[weights["id"]]
    if name == "reweight":
        np.testing.assert_allclose(weights["weight"], scores["weight"])
        assert weights["weight"].nunique() > 3
    elif name == "relabel":
        assert weights["weight"].eq(1).all()
        assert changed.tolist() == scores["treated"].tolist()
        assert weights["label"][changed].tolist() == scores["prediction"][changed].tolist()
    else:
        assert weights["weight"].tolist() == (~scores["treated"]).astype(float).tolist()
        assert weights["weight"].eq(0).sum() == 12
    assert changed.any() is np.bool_(name == "relabel")


def test_a_subset_of_the_own_data_by_kept_is_what_the_defended_arm_was_trained_on(case: tuple[str, Path]) -> None:
    """The lines of the guide: ids are rows of the source's training part."""
    name, folder = case
    arrays: Any = np.load(folder.parent / "my.npz")
    dataset = TensorDataset(torch.tensor(arrays["train_x"]), torch.tensor(arrays["train_y"]))

    kept = table(folder, "kept.csv")
    train = Subset(dataset, kept["id"].tolist())

    scores = pd.read_parquet(folder / "scores.parquet")
    removes = name in ("remove", "repair")
    expected = scores["id"][~scores["treated"]] if removes else scores["id"]
    assert [int(pixels[0, 0]) for pixels, _ in train] == expected.tolist()
    assert [int(label) for _, label in train] == scores["label"].loc[expected.index].tolist()
    assert kept.columns.tolist() == ["id", "name", *(["label"] if name == "relabel" else [])]
    if name == "relabel":
        assert kept["label"].tolist() == pd.read_csv(folder / "weights.csv")["label"].tolist()


def test_labels_that_a_function_of_the_user_changes_are_those_to_train_on(folder: Path) -> None:
    own = ["task=defend", "scorer=loss", "treatment._target_=my_parts.correct_or_drop"]
    run_in(folder / "own", *SMALL, *own, f"data.path={folder / 'my.npz'}", f"store={folder / 'store'}")
    kept, weights = table(folder / "own", "kept.csv"), table(folder / "own", "weights.csv")
    left = weights[weights["weight"] > 0]
    assert len(left) < len(weights)
    assert (left["label"] != LABELS[left["id"]]).any()
    assert kept["id"].tolist() == left["id"].tolist()
    assert kept["label"].tolist() == left["label"].tolist()
