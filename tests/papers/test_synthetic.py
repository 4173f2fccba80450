"""experiment=paper/synthetic, whole, with one seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_synthetic(command: Command, tmp_path: Path) -> None:
    smaller = ["hydra.sweeper.params.seed=0", "train.epochs=5", "model.hidden=[]"]
    code, out, _ = command("experiment=paper/synthetic", *smaller, "hydra.sweep.dir=out")
    assert code == 0
    assert "the rank correlation of ip with exact influence is" in out
    assert "; of random scores it is " in out
    found = [json.loads((tmp_path / f"out/{cell}/result.json").read_text("utf-8")) for cell in range(4)]
    assert [result["config"]["data"]["source"] for result in found] == ["blobs", "blobs", "moons", "moons"]
    for cell, result in enumerate(found):
        points, dampings = result["points"], result["order"]["dampings"]
        assert len(points["train"]["x"]) == len(points["score"]) == 250
        assert np.not_equal(points["train"]["label"], points["train"]["truth"]).sum() == 20
        scores = pd.read_parquet(tmp_path / f"out/{cell}/scores.parquet")["score"]
        for row in dampings:
            reference = points["reference"][f"{row['damping']:g}"]
            assert row["spearman"] == pytest.approx(float(spearmanr(scores, reference).statistic), abs=1e-2)
    assert found[0]["order"]["dampings"][-1]["spearman"] > 0.95  # logistic regression, much damping
    assert found[0]["order"]["angles"]["harmful"]["mean"] > 90 > found[0]["order"]["angles"]["others"]["mean"]
    assert {"reference", "train_baseline", "score_angles"} <= set(found[1]["reused"])
    for name in ("points_1", "points_2", "angles_1", "angles_2"):
        assert (tmp_path / f"out/figures/{name}.svg").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["order.reference=identity"], "order.reference=identity: expected an inverse, as hessian or cg"),
        (["order.dampings=[]"], "order.dampings=[]: expected numbers above 0, one at least"),
        (["order.dampings=[0.1,-1]"], "order.dampings=[0.1, -1.0]: expected numbers above 0"),
        (["order.dampings=[0.1,0.1]"], "order.dampings=[0.1, 0.1]: expected numbers that differ"),
        (["order.share=1"], "order.share=1.0: expected a fraction in (0, 1)"),
        (["data=moons", "data.spread=0"], "data.spread=0.0: expected a number above 0"),
        (["model.hidden=[200]"], "order.reference=hessian: the dense Hessian of 15010 parameters is too large"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(
    command: Command, tmp_path: Path, overrides: list[str], said: str
) -> None:
    code, _, error = command("task=order", "objective=utility", "hydra.run.dir=out", *overrides)
    assert code == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "runs/store/train").exists()


def test_a_hessian_that_is_too_large_as_a_scorer(command: Command) -> None:
    code, _, error = command("task=detect", "objective=utility", "scorer=hessian")
    assert (code, "scorer.direction=hessian: the dense Hessian of" in error) == (2, True)
