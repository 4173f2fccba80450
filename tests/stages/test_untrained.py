"""train=none: a finished network is scored and attacked as it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import defense
from defense.config.checks import TRAINED_HARM
from defense.config.choices import Recipe
from defense.data.load import load
from defense.errors import InputError
from defense.models.build import build
from defense.stages.plant import PLANTERS
from tests.conftest import changed, run_in

SMALL = ("data.train_size=60", "data.validation_size=30", "data.test_size=30", "model.hidden=[8]")
MINE = (*SMALL, "task=detect", "train=none", "objective=utility")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    config = changed(*SMALL)
    model = build(config.model, load(config.data, seed=0), seed=7)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    return str(tmp_path / "mine.pt")


def test_the_scores_are_those_of_the_network_in_the_file(weights: str, tmp_path: Path) -> None:
    result = run_in(tmp_path / "run", *MINE, f"model.weights={weights}")
    assert not [key for key in result["keys"] if key.startswith("train")]
    config = changed(*MINE, f"model.weights={weights}")
    assert config.train.recipe is Recipe.none
    data = load(config.data, seed=0)
    model = build(changed(*SMALL).model, data, seed=7)
    parts = (
        (split.images.take(torch.arange(len(split))), split.labels) for split in (data.train, data.validation)
    )
    expected = np.asarray(defense.score(model, *parts, objective="utility", scorer="ip"))
    scores = pd.read_parquet(tmp_path / "run" / "scores.parquet")["score"].to_numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["task=defend"], "task=defend: expected one of .*, with train=none, which trains nothing"),
        (["scorer=metagradient"], "scorer.method=metagradient: expected another scorer"),
        (["scorer=confident_learning"], "scorer.method=confident_learning: expected another scorer"),
        (["scorer=tracin"], "scorer.members=checkpoints: expected another"),
        (["scorer.seeds=2"], "scorer.seeds=2: expected 1"),
        (["data.harm=boundary"], "data.harm=boundary: expected another"),
        (["scorer.proxy=none"], "scorer.proxy=none: expected a recipe that trains, or null"),
    ],
)
def test_whatever_trains_is_refused(overrides: list[str], line: str) -> None:
    with pytest.raises(InputError, match=line):
        changed(*MINE, "model.weights=mine.pt", *overrides)


def test_every_harm_that_takes_a_trained_model_is_refused() -> None:
    assert set(TRAINED_HARM) == set(PLANTERS)


def test_random_weights_of_ours_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.weights=null: expected a file of weights, with train=none"):
        changed(*MINE)
