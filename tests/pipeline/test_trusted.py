"""The trusted arm of a run: its epoch, its keys, and where it stands in what the run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from defense.pipeline.load import load_run
from tests.conftest import TINY, changed, computed_in, result_of, run_in

SMALL = [*TINY, "train.epochs=4", "evaluation.trusted_weights=[10,3]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with trusted arms of three weights, and its store."""
    folder = tmp_path_factory.mktemp("trusted")
    run_in(folder / "out", *SMALL, f"store={folder / 'store'}", "evaluation.checked=10", "train.keep=clean")
    return folder


def test_it_stands_beside_the_others_wherever_they_do(folder: Path) -> None:
    out = folder / "out"
    found = result_of(out)
    arms = ["baseline", "control", "defended", "trusted", "trusted_10", "trusted_3"]
    assert list(found["arms"]) == arms
    samples = pd.read_parquet(out / "per_sample.parquet")
    assert samples["arm"].unique().tolist() == arms
    right = samples.pivot(index="id", columns="arm", values="adaptive.worst")
    for arm in arms[3:]:
        assert found["arms"][arm]["adaptive"]["worst"] == pytest.approx(100 * right[arm].mean())
        gain = 100 * (right["defended"].astype(int) - right[arm].astype(int)).mean()
        assert found[f"gain_over_{arm}"]["mean"] == pytest.approx(gain)
        higher = right[arm].sum() > right["defended"].sum()
        assert (arm in found["checks"]) == higher  # a check of what the verdict cannot name is spared
    header = "| baseline | control | defended | trusted | trusted x3 | trusted x10 |"
    page = (out / "report.md").read_text("utf-8")
    assert header in " ".join(page.split())
    assert "in trusted x10 they weigh 10 times as much" in page
    html = (out / "report.html").read_text("utf-8")
    heads = [f'<th scope="col">{arm}</th>' for arm in ("defended", "trusted", "trusted x3", "trusted x10")]
    assert "".join(heads) in html
    assert set(found["health"]["arms"]) == set(arms)
    assert found["health"]["attack"]["standing"].keys() == {"baseline", "control", "defended"}


def test_its_epoch_is_the_one_that_the_baseline_keeps(folder: Path) -> None:
    run = load_run(changed(*SMALL, f"store={folder / 'store'}", "train.keep=clean"))
    baseline = run.baseline().model
    history = baseline.artifact.history
    (epoch,) = history["epoch"][history["kept"]]
    assert baseline.kept == epoch
    for arm in ("trusted", "trusted_3"):
        treatment, model = run.train_trusted(arm, baseline)
        own = model.artifact.history
        assert own["epoch"].tolist() == list(range(1, epoch + 1))
        assert own["epoch"][own["kept"]].tolist() == [epoch]
        assert len(treatment.table) == 260
        assert not [name for name in model.artifact.checkpoints]
    assert {"train_trusted", "train_trusted_3"} <= set(run.runner.reused)  # of the run before


def test_without_it_all_other_stages_are_as_they_were(folder: Path, tmp_path: Path) -> None:
    words = [*TINY, "train.epochs=4", f"store={folder / 'store'}", "evaluation.checked=10", "train.keep=clean"]
    before = result_of(folder / "out")
    found = run_in(tmp_path / "out", *words, "evaluation.trusted=false")
    assert list(found["arms"]) == ["baseline", "control", "defended"]
    assert computed_in(tmp_path / "out") == set()
    assert not [name for name in found if "trusted" in name]
    for stage in found["keys"].keys() - {"pages"}:
        assert before["keys"][stage] == found["keys"][stage]
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert "trusted</" not in page
    settings = json.loads((tmp_path / "out/result.json").read_text("utf-8"))["config"]["evaluation"]
    assert (settings["trusted"], settings["trusted_weights"]) == (False, [])


def test_what_is_held_out_for_a_choice_is_trusted_too(tmp_path: Path) -> None:
    words = [*TINY, "treatment.budget=auto", "treatment.budgets=[0.1]", f"store={tmp_path / 'store'}"]
    run = load_run(changed(*words))
    assert len(run.data.validation) == 30
    treatment, _ = run.train_trusted("trusted", run.baseline().model)
    assert len(treatment.table) == 260
