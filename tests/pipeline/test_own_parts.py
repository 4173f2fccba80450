"""Functions of the user in place of parts: they do what the parts do that they were copied from, in every task."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from defense.pipeline.load import load_run
from defense.reporting.frame import settings_of
from tests.conftest import TINY, changed, computed_in, result_of, run_in

MORE = '''
import numpy as np
import pandas as pd
import torch.nn.functional as F


def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


def relabel(samples, *, budget, classes, seed):
    """As treatment=relabel: of the samples that the model gives another label, the lowest get that label."""
    other = samples[samples["prediction"] != samples["label"]]
    lowest = other.sort_values("score", kind="stable").index[: round(budget * len(samples))]
    label = samples["label"].where(~samples.index.isin(lowest), samples["prediction"])
    return pd.DataFrame({"weight": 1.0, "label": label, "keep": True})[::-1]


def truth(model, train, validation, *, objective, seed):
    return (train.labels == train.truth).float()


def reweight(samples, *, budget, classes, seed, factor):
    """As treatment=reweight, times a factor."""
    score = samples["score"].to_numpy().astype(float)
    raw = np.exp(((score - score.mean()) / score.std()).clip(max=np.log(2)))
    return samples[["label"]].assign(keep=True, weight=factor * raw)
'''


RUNS = ("alignment", "error_norm", "margin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with more functions of a user, that is on the path."""
    found = tmp_path_factory.mktemp("own")
    (found / "more_parts.py").write_text(MORE, encoding="utf-8")
    sys.path.append(str(found))
    return found


@pytest.fixture(scope="module")
def words(folder: Path) -> list[str]:
    return [*TINY, "train.epochs=6", "attack.random_start=false", f"store={folder / 'store'}"]


@pytest.fixture(scope="module")
def plain_run(folder: Path, words: list[str]) -> Path:
    """A run of parts of the package."""
    run_in(folder / "plain", *words)
    return folder / "plain"


def scores_in(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "scores.csv")


def arms_of(run: Path) -> dict[str, Any]:
    arms: dict[str, Any] = result_of(run)["arms"]
    return arms


def test_the_inner_product_by_vmap_is_that_by_jvp(folder: Path, words: list[str], plain_run: Path) -> None:
    run_in(folder / "alignment", *words, "scorer._target_=my_parts.alignment")
    assert computed_in(folder / "alignment") & {"score", "train_baseline", "attack_validation"} == {"score"}
    found, expected = (scores_in(run)["score"].to_numpy() for run in (folder / "alignment", plain_run))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    run_in(folder / "error_norm", *words, "scorer._target_=my_parts.error_norm", "objective=utility")
    run_in(folder / "margin", *words, "objective._target_=my_parts.margin")
    rows = [each.row for each in settings_of([result_of(folder / name) for name in RUNS])]
    assert rows == ["alignment", "error_norm, utility", "ip, margin"]
    page = (folder / "alignment/report.md").read_text("utf-8")
    assert "that alignment ranks lowest" in page
    assert "A score is computed by my_parts.alignment" in page


def test_error_norms_are_those_of_a_loop(folder: Path, words: list[str]) -> None:
    run = load_run(changed(*words, "scorer._target_=my_parts.error_norm", "scorer.arguments.order=1"))
    baseline = run.baseline()
    found = run.scores([baseline]).table["score"]
    model, train = baseline.model.network, run.data.train
    for row in range(0, len(train), 20):
        p = model(train.images.take(torch.tensor([row]))).softmax(1)[0].detach()
        error = p - F.one_hot(train.labels[row], 10)
        assert found[row] == pytest.approx(-float(error.abs().sum()), rel=1e-4)


def test_a_copy_of_pgd_makes_the_pictures_of_pgd(folder: Path, words: list[str], plain_run: Path) -> None:
    own = ["attack._target_=my_parts.ascent", "evaluation.attacks={mine: {_target_: my_parts.ascent, name: own}}"]
    run_in(folder / "ascent", *words, *own)
    same = [*words, "evaluation.attacks={mine: {name: pgd, steps: 10, random_start: false}}"]
    run_in(folder / "pgd", *same)
    assert computed_in(folder / "ascent") >= {"attack_validation", "evaluate_baseline"}
    assert arms_of(folder / "ascent") == arms_of(folder / "pgd")
    pd.testing.assert_frame_equal(scores_in(folder / "ascent"), scores_in(plain_run))


@pytest.mark.parametrize(("attacked", "objective"), [("true", "robustness"), ("false", "utility")])
def test_a_cross_entropy_of_the_user_is_the_objective(
    folder: Path, words: list[str], attacked: str, objective: str
) -> None:
    names = ("own", objective)
    own = ["objective._target_=more_parts.cross_entropy", f"objective.attacked={attacked}"]
    for name, settings in zip(names, (own, [f"objective={objective}"]), strict=True):
        run_in(folder / f"{name}-{objective}", *words, *settings)
    found, expected = (scores_in(folder / f"{name}-{objective}")["score"] for name in names)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    page = (folder / f"own-{objective}/report.md").read_text("utf-8")
    assert "ranks lowest for cross_entropy" in page


def test_terms_of_the_user_and_of_the_package_add_up(words: list[str], folder: Path) -> None:
    utility = [*words, "objective=utility"]
    own = ["objective._target_=more_parts.cross_entropy", "objective.attacked=false"]
    weights = ["objective.weights.utility=0.25", "objective.weights.own=0.5"]
    run, other = load_run(changed(*utility, *own, *weights)), load_run(changed(*utility))
    found, expected = (each.scores([each.baseline()]).table["score"] for each in (run, other))
    np.testing.assert_allclose(found, 0.75 * expected, rtol=1e-4, atol=1e-6)
    assert str(run.config.objective) == "0.25 utility + 0.5 cross_entropy"


def test_metagradients_take_an_objective_of_the_user(folder: Path, words: list[str]) -> None:
    meta = [*words, "scorer=metagradient", "train.epochs=2"]
    own = ["objective._target_=more_parts.cross_entropy", "objective.attacked=false"]
    runs = [load_run(changed(*meta, *settings)) for settings in (own, ["objective=utility"])]
    found, expected = (each.scores([each.baseline()]).table["score"] for each in runs)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("own", "known"), [("my_parts.drop_lowest", "remove"), ("more_parts.relabel", "relabel")])
def test_a_copy_of_a_treatment_treats_alike_and_so_does_its_control(
    folder: Path, words: list[str], own: str, known: str
) -> None:
    runs = [load_run(changed(*words, each)) for each in (f"treatment._target_={own}", f"treatment={known}")]
    scores = runs[1].scores([runs[1].baseline()])
    for arm in ("defended", "control"):
        tables = []
        for run in runs:
            treatment = run.treat(scores, run.config.treatment)
            treatment = treatment if arm == "defended" else run.control(scores, treatment, run.config.treatment)
            tables.append(treatment.table)
        assert tables[0]["treated"].any()
        pd.testing.assert_frame_equal(tables[0], tables[1])


def test_weights_are_divided_by_their_mean_and_shuffled_for_the_control(folder: Path, words: list[str]) -> None:
    own = ["treatment._target_=more_parts.reweight", "treatment.arguments.factor=3"]
    run, known = load_run(changed(*words, *own)), load_run(changed(*words, "treatment=reweight"))
    scores = run.scores([run.baseline()])
    defended = run.treat(scores, run.config.treatment)
    np.testing.assert_allclose(
        defended.table["weight"], known.treat(scores, known.config.treatment).table["weight"]
    )
    control = run.control(scores, defended, run.config.treatment).table
    assert sorted(control["weight"]) == sorted(defended.table["weight"])
    assert not np.allclose(control["weight"], defended.table["weight"])


def test_a_whole_run_by_a_treatment_of_the_user(folder: Path, words: list[str]) -> None:
    found = run_in(folder / "treated", *words, "treatment._target_=my_parts.correct_or_drop")
    assert found["sizes"]["treated"] > 0
    page = (folder / "treated/report.md").read_text("utf-8")
    assert "does treating samples by correct_or_drop help?" in page
    assert "the same treatment of samples drawn at random" in page


def test_a_treatment_of_the_user_may_be_one_of_several(folder: Path, words: list[str]) -> None:
    own = ["treatment._target_=my_parts.drop_lowest", "treatment.names=[remove,own]", "treatment.budget=auto"]
    found = run_in(folder / "auto", *words, *own, "treatment.budgets=[0.1]", "task=defend")
    names = [(each["treatment"], each["gain"]) for each in found["candidates"]]
    assert [name for name, _ in names] == ["none", "drop_lowest", "drop_lowest"]  # remove was the name of own


def test_an_attack_may_go_through_a_class_of_torchattacks(words: list[str], folder: Path) -> None:
    own = ["+evaluation.attacks.mine={_target_: my_parts.momentum}"]
    table = run_in(folder / "momentum", *words, *own)["arms"]["baseline"]["adaptive"]
    assert list(table) == ["fgsm", "pgd", "apgd_t", "mine", "worst"]


def test_scores_of_a_file_are_judged_like_those_that_are_computed(
    folder: Path, words: list[str], plain_run: Path
) -> None:
    scores_in(plain_run).sample(frac=1, random_state=0).to_csv(folder / "scores.csv", index=False)
    given = ["scorer=file", f"scorer.path={folder / 'scores.csv'}"]
    run_in(folder / "given", *words, *given)
    assert arms_of(folder / "given") == arms_of(plain_run)
    assert computed_in(folder / "given") <= {"score_by_file", "treat_defended", "control"}
    table = scores_in(plain_run)
    table.assign(score=-table["score"]).to_parquet(folder / "scores.parquet")
    other = ["scorer=file", f"scorer.path={folder / 'scores.parquet'}"]
    run_in(folder / "other", *words, *other)
    assert "score_by_file" in computed_in(folder / "other")
    assert scores_in(folder / "other")["treated"].sum() == table["treated"].sum()
    assert not (scores_in(folder / "other")["treated"] & table["treated"]).any()


HELPED = """
import pandas as pd
import torch
from helper import SCALE


def objective(logits, labels):
    return SCALE * torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def attack(model, x, y, *, norm, eps, seed):
    return (x + eps * SCALE / 10).clamp(0, 1)


def scorer(model, train, validation, *, objective, seed):
    return -SCALE * torch.cat([x.flatten(1).norm(dim=1) for _, x, _ in train.batches(64)])


def treatment(samples, *, budget, classes, seed):
    keep = samples["score"].rank(method="first") > SCALE * budget * len(samples)
    return pd.DataFrame({"keep": keep, "label": samples["label"], "weight": 1.0})
"""


def run_in_a_process(folder: Path, name: str, *words: str) -> set[str]:
    """Run a cell in a process that has not imported the functions; return the stages that it has computed."""

    def run() -> None:
        sys.path.append(str(folder))
        run_in(folder / name, *TINY, "evaluation.trusted=false", f"store={folder / 'store'}", *words)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 0
    return computed_in(folder / name)


def test_a_change_of_a_helper_gives_new_numbers_and_no_change_is_taken_from_the_store(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HELPED, encoding="utf-8")
    (tmp_path / "helper.py").write_text("SCALE = 1\n", encoding="utf-8")
    parts = [f"{part}._target_=mine.{part}" for part in ("objective", "attack", "scorer", "treatment")]
    suite = ["+evaluation.attacks.mine={_target_: mine.attack}"]
    first = run_in_a_process(tmp_path, "first", *parts, *suite)
    assert first >= {"train_baseline", "score", "treat_by_user_defended", "attack_validation"}
    assert run_in_a_process(tmp_path, "again", *parts, *suite) == set()
    (tmp_path / "helper.py").write_text("SCALE = 2\n", encoding="utf-8")
    anew = run_in_a_process(tmp_path, "anew", *parts, *suite)
    assert anew >= {"score", "treat_by_user_defended", "control_of_user", "attack_validation", "evaluate_baseline"}
    assert "train_baseline" not in anew
    before, after = (scores_in(tmp_path / name) for name in ("first", "anew"))
    np.testing.assert_allclose(after["score"], 2 * before["score"], rtol=1e-5)
    assert [int(table["treated"].sum()) for table in (before, after)] == [20, 40]


def test_a_scorer_does_not_see_which_labels_are_known_to_be_wrong(folder: Path, words: list[str]) -> None:
    run = load_run(changed(*words, "scorer._target_=more_parts.truth"))
    assert (run.data.train.labels != run.data.train.truth).any()
    assert (run.scores([run.baseline()]).table["score"] == 1).all()
