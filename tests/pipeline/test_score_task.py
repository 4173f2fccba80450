"""task=score: scores and the accuracy of the model as it is, and nothing that takes a second training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.config.choices import Task
from defense.tasks.planning import plan
from defense.tasks.score.report import score_page
from tests.conftest import TINY, changed, computed_in, result_of, run_in
from tests.same_numbers import write_texts

CHECKED = ["evaluation.checked=10"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of task=score with its checks, and the run of task=defend of the same settings, which came first."""
    folder = tmp_path_factory.mktemp("score")
    run_in(folder / "defend", *TINY, *CHECKED, f"store={folder / 'store'}")
    run_in(folder / "score", *TINY, *CHECKED, f"store={folder / 'store'}", "task=score")
    return folder


def test_it_computes_what_the_baseline_of_defend_needs_and_no_more(done: Path, tmp_path: Path) -> None:
    assert computed_in(done / "score") == set()
    run_in(tmp_path / "alone", *TINY, *CHECKED, f"store={tmp_path}", "task=score")
    stages = {"train_baseline", "attack_validation", "score", "evaluate_baseline", "check_baseline"}
    assert computed_in(tmp_path / "alone") == stages


def test_its_numbers_are_those_of_the_baseline_of_defend(done: Path) -> None:
    found, whole = result_of(done / "score"), result_of(done / "defend")
    assert found["arms"] == {"baseline": whole["arms"]["baseline"]}
    assert found["checks"] == {"baseline": whole["checks"]["baseline"]}
    assert found["health"]["arms"]["baseline"] == whole["health"]["arms"]["baseline"]
    scores, other = (pd.read_parquet(done / name / "scores.parquet") for name in ("score", "defend"))
    assert scores.equals(other[scores.columns])
    csv = pd.read_csv(done / "score/scores.csv")
    assert csv["id"].tolist() == sorted(scores["id"]) == scores["id"].tolist()
    np.testing.assert_allclose(csv["score"], scores["score"], rtol=1e-5)
    below, wrong = scores["score"] < 0, scores["label"] != scores["truth"]
    assert found["harmful"] == {"count": int(below.sum()), "share": pytest.approx(100 * below.mean())}
    assert found["selection"]["precision"] == pytest.approx((below & wrong).sum() / below.sum())
    assert not (done / "score/kept.csv").exists()
    samples = pd.read_parquet(done / "score/per_sample.parquet")
    assert 100 * samples["adaptive.worst"].mean() == pytest.approx(found["arms"]["baseline"]["adaptive"]["worst"])


def test_the_page_says_first_what_was_found_and_judges_nothing(done: Path) -> None:
    found, text = result_of(done / "score"), (done / "score/report.md").read_text("utf-8")
    arm, count = found["arms"]["baseline"], found["harmful"]["count"]
    worst = arm["adaptive"]["worst"]
    first = next(line for line in text.splitlines() if line.startswith("**"))
    assert first.startswith(
        f"**The model is right on {arm['clean']:.1f} % of 80 test samples, and on {worst:.1f} % under "
        f"attack (Linf, eps 0.1). ip calls {count} of 200 training samples harmful for robustness"
    )
    assert "defense-report samples RUN --lowest 50" in text
    assert "task=defend does that: defense data.train_size=200" in text
    assert not re.search("better|worse than|distinguishable|helped", text)
    headings = re.findall("^## (.*)", text, re.MULTILINE)
    assert headings[:4] == ["Most harmful", "Most helpful", "Scores of the training samples", "Scores by class"]
    assert {"Training", "Can these numbers be believed?"} <= {*headings}
    scores = pd.read_parquet(done / "score/scores.parquet").sort_values("score", kind="stable")
    ids = re.findall(r"training sample (\d+)", text)
    assert list(map(int, ids)) == [*scores["id"].head(16), *scores["id"].tail(16)[::-1]]
    rows = pd.read_csv(done / "score/tables/classes.csv").set_index("class")
    below = scores[scores["score"] < 0].groupby("label").size()
    assert {label: int(str(cell).split()[0]) for label, cell in rows["score below 0"].items()} == {
        label: int(below.get(label, 0)) for label in range(10)
    }


def test_a_score_without_a_sign_only_orders(tmp_path: Path, done: Path) -> None:
    """Every loss is above 0, so that its score, which is below, says nothing by its sign."""
    run_in(tmp_path / "loss", *TINY, f"store={done / 'store'}", "task=score", "scorer=loss", "data.harm=none")
    found, text = result_of(tmp_path / "loss"), (tmp_path / "loss/report.md").read_text("utf-8")
    assert found["harmful"] is None
    assert "loss puts 200 training samples in order: the lowest are suspected." in text
    assert "score below 0" not in text


def test_a_model_that_has_learned_nothing_is_said_first(tmp_path: Path) -> None:
    run_in(tmp_path / "idle", *TINY, f"store={tmp_path}", "task=score", "train.learning_rate=1e-9")
    text = (tmp_path / "idle/report.md").read_text("utf-8")
    first = next(line for line in text.splitlines() if line.startswith("**"))
    assert "not told from chance" in first
    assert "nothing can be said about the scores of a trained model" in first


def test_a_finished_network_is_scored_and_evaluated_as_it_stands(done: Path, tmp_path: Path) -> None:
    """The weights of the baseline of a run, from a file: the same scores and accuracies, and no training."""
    weights = done / "store" / result_of(done / "score")["keys"]["train_baseline"] / "weights.safetensors"
    words = [*TINY, *CHECKED, f"store={tmp_path}", "task=score", "train=none", f"model.weights={weights}"]
    run_in(tmp_path / "out", *words)
    assert not [stage for stage in computed_in(tmp_path / "out") if stage.startswith("train")]
    assert result_of(tmp_path / "out")["arms"] == result_of(done / "score")["arms"]
    one, other = (pd.read_parquet(folder / "scores.parquet") for folder in (tmp_path / "out", done / "score"))
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-5)
    text = (tmp_path / "out/report.md").read_text("utf-8")
    assert "## Training\n" not in text
    assert f"model.weights={weights} task=defend" in text


def test_a_sweep_shows_accuracies_by_scorer(done: Path) -> None:
    """The mean over seeds of each metric, by hand; a scorer without a sign has no share below 0."""
    one = result_of(done / "score")
    two = json.loads(json.dumps(one))
    two |= {"seed": 1, "overrides": [*two["overrides"], "seed=1"]}
    two["arms"]["baseline"]["clean"], two["config"]["seed"] = one["arms"]["baseline"]["clean"] + 10, 1
    three = json.loads(json.dumps(one))
    three |= {"overrides": [*three["overrides"], "scorer=loss"], "harmful": None}
    three["config"]["scorer"] |= {"name": "loss", "method": "loss"}
    page = score_page([one, two, three], "x")
    (table,) = page.sections
    assert table.data is not None
    ip, loss = table.data.to_dict("records")
    assert ip["clean"] == pytest.approx(one["arms"]["baseline"]["clean"] + 5)
    assert (ip["seeds"], loss["seeds"]) == (2, 1)
    assert ip["share"] == pytest.approx(one["harmful"]["share"])
    assert np.isnan(loss["share"])
    assert [row[0] for row in table.rows] == ["ip", "loss"]
    assert page.headline.splitlines()[-2].startswith("2 settings, 3 runs: clean accuracy ")
    assert page.headline.endswith("defense-report samples RUN RUN ... (those of one setting) --lowest 50")
    assert score_page([one, two], "x").headline.endswith("defense-report samples SWEEP --lowest 50")


def test_it_is_planned(done: Path) -> None:
    found = plan(changed(*TINY, *CHECKED, f"store={done / 'store'}", "task=score"))
    assert found.complete
    assert {stage.label for stage in found.stages} >= {"train baseline", "score", "evaluate baseline"}
    assert not found.left


def test_nothing_is_treated_by_it(command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, error = command(*TINY, "task=score", "treatment.threshold=0")
    assert (code, "nothing is treated by task=score" in error) == (2, True)
    assert Task.score.reads == {"evaluation"}


@pytest.mark.extra("transformers", "peft")
def test_texts_are_scored_and_measured_without_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inputs").mkdir()
    write_texts(tmp_path / "inputs")
    monkeypatch.chdir(tmp_path)
    words = [
        "data=text", "data.path=inputs/train.tsv", "data.test_path=inputs/test.tsv", "data.length=10",
        "data.tokenizer=inputs/encoder", "data.validation_size=20", "model=lora", "model.layers=1",
        "model.adapted=1", "train.epochs=1", "objective=utility", "task=score",
    ]  # fmt: skip
    run_in(tmp_path / "out", *words, f"store={tmp_path / 'store'}")
    found: dict[str, Any] = result_of(tmp_path / "out")
    assert set(found["arms"]["baseline"]) == {"clean"}
    assert found["checks"] == {}
    assert found["harmful"]["count"] == (pd.read_csv(tmp_path / "out/scores.csv")["score"] < 0).sum()
    samples = pd.read_parquet(tmp_path / "out/per_sample.parquet")
    assert 100 * samples["clean"].mean() == pytest.approx(found["arms"]["baseline"]["clean"])
    text = (tmp_path / "out/report.md").read_text("utf-8")
    assert "under attack" not in text
    assert "## Most harmful\n" in text
    assert not [file for file in (tmp_path / "out/figures").glob("*.png")]
