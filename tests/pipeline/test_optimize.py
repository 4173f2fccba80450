"""treatment=optimize: weights by a descent that one part of validation drives; the other decides its round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from defense.artifacts import Contributions, DescentRound, Scores, Treatment
from defense.errors import InputError
from defense.pipeline.descent import descend, measure_falls
from defense.pipeline.load import load_run
from defense.pipeline.run import Run
from defense.runtime import checkpoint as checkpoint
from defense.runtime.progress import Progress
from defense.stages.treat import untreated
from defense.store import stage as staging
from tests.conftest import TINY, changed, run_in

OPTIMIZE = [*TINY, "treatment=optimize", "data.validation_size=120", "train.epochs=6", "treatment.rounds=3"]
OPTIMIZE += ["evaluation.trusted_weights=[3]"]
SCORE = np.random.default_rng(0).normal(size=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose runs share a store."""
    return tmp_path_factory.mktemp("optimize")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """The result of a run on digits with a fifth of the labels wrong."""
    return run_in(folder / "out", *OPTIMIZE, f"store={folder / 'store'}")


def loaded(folder: Path, *overrides: str) -> Run:
    return load_run(changed(*OPTIMIZE, f"store={folder / 'store'}", *overrides))


def test_wrong_labels_end_with_lower_weights(folder: Path, found: dict[str, Any]) -> None:
    table = pd.read_parquet(folder / "out/scores.parquet")
    wrong = table["label"] != table["truth"]
    assert table["weight"].mean() == pytest.approx(1)
    assert table["weight"][wrong].mean() < 0.8 < table["weight"][~wrong].mean()
    assert (table["treated"] == (table["weight"] < 1)).all()


def test_the_round_with_the_lowest_objective_on_the_deciding_part_is_taken(found: dict[str, Any]) -> None:
    rounds = pd.DataFrame(found["descent"])
    assert rounds["round"].tolist() == [0, 1, 2, 3]
    assert rounds["chosen"].tolist() == (rounds["deciding"] == rounds["deciding"].min()).tolist()
    assert rounds["fall"].notna().tolist() == rounds["chosen"].tolist()
    assert 0 < rounds["fall_low"].max() < rounds["fall"].max() < rounds["fall_high"].max()
    assert rounds["driving"].min() < rounds["driving"][0]
    assert rounds["agreement"].isna().tolist() == [True, False, False, True]
    assert rounds["agreement"].mean() > 0.3
    assert found["sizes"]["validation"] == 84


def test_rivals_train_on_validation_too(found: dict[str, Any]) -> None:
    assert list(found["arms"]) == ["baseline", "control", "defended", "trusted", "trusted_3"]


def test_the_control_has_the_same_weights_shuffled(
    folder: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Treatment] = []
    control = Run.control

    def spying(self: Run, *given: Any, **more: Any) -> Treatment:
        drawn.append(control(self, *given, **more))
        return drawn[0]

    monkeypatch.setattr(Run, "control", spying)
    again = run_in(folder / "again", *OPTIMIZE, f"store={folder / 'store'}")
    assert set(again["reused"]) == set(found["keys"])
    own = pd.read_parquet(folder / "again/scores.parquet")["weight"].to_numpy()
    shuffled = drawn[0].table["weight"].to_numpy()
    assert not np.array_equal(own, shuffled)
    np.testing.assert_array_equal(np.sort(own), np.sort(shuffled))


def test_discrete_removes_the_lowest_weights_up_to_the_budget(
    folder: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On so few samples removal does not help, so that the comparison is told to find a gain."""
    compared: list[Treatment] = []

    def gain(run: Run, treatment: Treatment) -> np.ndarray:
        compared.append(treatment)
        return np.linspace(0.5, 1.5, 36)

    monkeypatch.setattr("defense.pipeline.descent.measure_falls", gain)
    changes = ["treatment.discrete=true", "treatment.budget=0.25"]
    removed = run_in(folder / "discrete", *OPTIMIZE, f"store={folder / 'store'}", *changes)
    assert {"descent_0", "descent_3"} <= set(removed["reused"])
    table = pd.read_parquet(folder / "discrete/scores.parquet")
    weights = pd.read_parquet(folder / "out/scores.parquet")["weight"]
    assert removed["sizes"]["treated"] == table["treated"].sum() == 50
    (asked,) = compared
    assert asked.table["treated"].tolist() == table["treated"].tolist()
    assert weights[table["treated"]].max() <= weights[~table["treated"]].min()
    assert set(table["weight"]) == {1.0}
    pd.testing.assert_series_equal(table["descent_weight"], weights, check_names=False)
    said = "Removing the 50 of 200 training samples of the lowest weights by metagradient descent"
    assert said in removed["verdict"]
    assert "as many at random" in removed["verdict"]


def scores_of(run: Run) -> Scores:
    """Return scores of a run that nothing has to be trained for."""
    train = run.data.train
    columns = {"id": train.ids, "label": train.labels, "prediction": train.labels, "score": train.labels.double()}
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    return Scores(table, pd.DataFrame({"name": [], "value": []}))


@contextmanager
def measuring(
    score: np.ndarray, *, alternate: bool = True, fall: float = 9.0, **objective: Sequence[float]
) -> Iterator[list[tuple[int, int, np.ndarray]]]:
    """Let round k measure the k-th of these objectives, and this score; yield its number, training and weights.

    alternate: the sign of the score with the index of the training. fall: of the objective by the treatment, in
    the comparison; single samples differ from it by 0.5 up or down.
    """
    taken: list[tuple[int, int, np.ndarray]] = []

    def given(self: Run, number: int, which: int, treatment: Treatment) -> DescentRound:
        taken.append((number, which, treatment.table["weight"].to_numpy()))
        index = number + which
        scores = pd.DataFrame({"id": self.data.train.ids.numpy(), "score": score * (-1) ** (index * alternate)})
        rows = [{"part": part, "objective": each[number], "accuracy": 50.0} for part, each in objective.items()]
        return DescentRound(scores, pd.DataFrame(rows))

    def contributed(self: Run, arm: str, which: int, treatment: Treatment) -> Contributions:
        assert self.data.choice is not None
        ids = self.data.choice.ids.numpy()
        falls = (fall + np.resize([0.5, -0.5], len(ids))) * (arm == "untreated")
        return Contributions(pd.DataFrame({"id": ids, "contribution": falls}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "descent", given)
        patch.setattr(Run, "deciding", contributed)
        yield taken


def test_several_trainings_a_round_are_averaged(folder: Path) -> None:
    """Opposite scores of both move no weight."""
    run = loaded(folder, "scorer.seeds=2", "treatment.rounds=2")
    with measuring(SCORE, validation=[1.0, 1, 1], choice=[1.0, 1, 1]) as taken:
        rounds = descend(run, scores_of(run)).rounds
    assert rounds is not None
    assert rounds["agreement"].fillna(0).tolist() == [0, 0, 0]  # equal derivatives have no order
    assert [each[:2] for each in taken] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    for *_, weights in taken:
        np.testing.assert_allclose(weights, 1)


def outcome(
    folder: Path, score: np.ndarray, *overrides: str, fall: float = 9.0, **objective: Sequence[float]
) -> Mapping[str, Any]:
    """Return the result and the page of a run whose rounds measure these objectives; see `measuring`."""
    with measuring(score, fall=fall, **objective):
        found = run_in(folder, *OPTIMIZE, f"store={folder.parent / 'store'}", *overrides)
    return found | {"page": (folder / "report.md").read_text("utf-8")}


@pytest.mark.parametrize("discrete", ["false", "true"])
def test_if_no_round_is_better_on_the_deciding_part_nothing_is_treated(folder: Path, discrete: str) -> None:
    numbers = {"validation": [2.0, 1.0, 0.5, 0.4], "choice": [1.0, 1.1, 1.2, 1.3]}
    found = outcome(folder / f"nothing {discrete}", SCORE, f"treatment.discrete={discrete}", **numbers)
    assert found["sizes"]["treated"] == 0
    assert found["arms"]["defended"] == found["arms"]["baseline"]
    why = "no round of the descent lowers the objective on the part of validation that decides"
    assert f"Nothing was treated ({why})" in found["verdict"]
    assert "(1 with all weights 1, 1.1 at best after): nothing is treated." in found["page"]
    assert "does not lower it on the part that drives" not in found["page"]


LOWER = {"validation": [2.0, 1.0, 0.5, 0.6], "choice": [2.0, 1.0, 0.5, 0.6]}  # round 2, by far


def test_a_treatment_that_raises_the_objective_is_not_made(folder: Path) -> None:
    found = outcome(folder / "rises", SCORE, fall=-0.1, **LOWER)
    assert found["sizes"]["treated"] == 0
    assert found["arms"]["defended"] == found["arms"]["baseline"]
    assert [row["chosen"] for row in found["descent"]] == [True, False, False, False]
    assert (
        "it falls there by -0.1 (95 % interval -0.27 to 0.072 over samples): nothing is treated." in found["page"]
    )
    assert "beside no treatment the descent does not lower the objective" in found["verdict"]


def test_confidence_asks_for_an_interval_above_zero(folder: Path) -> None:
    """The objective falls by 0.1, in a 95 % interval of -0.07 to 0.27 on 36 samples."""
    half = 0.5 * stats.t.ppf(0.975, 35) / np.sqrt(35)
    any_gain = outcome(folder / "any gain", SCORE, fall=0.1, **LOWER)
    assert any_gain["sizes"]["treated"] > 0
    fall = any_gain["descent"][2]
    assert fall["fall"] == pytest.approx(0.1)
    assert (fall["fall_low"], fall["fall_high"]) == pytest.approx((0.1 - half, 0.1 + half))
    said = "In a comparison from the same fresh first weights it falls there by 0.1 (95 % interval -0.072 to 0.27"
    assert f"{said} over samples), which chance may explain." in any_gain["page"]
    assert "It is taken if the objective falls." in any_gain["page"]
    sure = outcome(folder / "sure", SCORE, "treatment.confidence=0.95", fall=0.1, **LOWER)
    assert sure["sizes"]["treated"] == 0
    assert f"{said} over samples), whose 95 % interval includes 0: nothing is treated." in sure["page"]
    assert "It is taken if the 95 % interval of the fall lies above 0." in sure["page"]
    assert "does not surely enough lower the objective" in sure["verdict"]
    enough = outcome(folder / "enough", SCORE, "treatment.confidence=0.7", fall=0.1, **LOWER)
    assert enough["sizes"]["treated"] > 0


def test_a_descent_that_does_not_descend_says_so(folder: Path) -> None:
    found = outcome(folder / "up", SCORE, validation=[1.0, 1.5, 1.2, 1.4], choice=[1.0, 1.1, 1.2, 1.3])
    assert "The descent does not lower it on the part that drives either (1, then 1.2 at best)" in found["page"]
    assert "a lower treatment.rate, a smoother network" in found["page"]


def test_one_order_that_says_little_of_another_is_said(folder: Path) -> None:
    """The score of every other training has the other sign."""
    found = outcome(folder / "orders", SCORE, validation=[1.0, 0.9, 0.8, 0.7], choice=[1.0, 0.9, 0.8, 0.7])
    assert [row["agreement"] for row in found["descent"]] == [None, pytest.approx(-1), pytest.approx(-1), None]
    said = "correlation of -1.00. If one order says little of another, scorer.seeds=4 takes the mean over four"
    assert said in found["page"]


def test_a_first_step_that_takes_a_class_treats_nothing(folder: Path) -> None:
    score = np.where(loaded(folder).data.train.labels.numpy() == 3, -9.0, 1.0)
    with measuring(score, validation=[1.0], choice=[1.0], alternate=False):
        found = run_in(folder / "first", *OPTIMIZE, f"store={folder / 'store'}", "treatment.rate=3")
    assert "(the first step of the descent would leave a class with nearly no weight)" in found["verdict"]
    page = (folder / "first/report.md").read_text("utf-8")
    assert "Nothing is treated. The descent ended after 0 of 3 rounds" in page


def test_it_ends_before_a_class_loses_its_weight(folder: Path) -> None:
    """A step divides the weights of a class by exp(3.6) beside others: a second would leave a thousandth."""
    labels = loaded(folder).data.train.labels.numpy()
    falling = [1.0, 0.9, 0.8, 0.7]
    harmful = np.where(labels == 3, -9.0, 1.0)
    with measuring(harmful, validation=falling, choice=falling, alternate=False) as taken:
        found = run_in(folder / "class", *OPTIMIZE, f"store={folder / 'store'}", "treatment.rate=1.2")
    assert [number for number, *_ in taken] == [0, 1]
    assert found["descent"][1]["chosen"]
    page = (folder / "class/report.md").read_text("utf-8")
    assert (
        "The descent ended after 1 of 3 rounds: the next step would leave a class with nearly no weight." in page
    )


def test_pages_tell_the_descent(folder: Path, found: dict[str, Any]) -> None:
    assert "Weighing samples by metagradient descent for robustness (round " in found["verdict"]
    assert "the same weights shuffled to" in found["verdict"]
    assert "points over shuffled weights" in found["verdict"]
    for name in ("report.md", "report.html"):
        page = (folder / "out" / name).read_text("utf-8")
        assert "84 validation samples drive the descent, 36 others decide" in page
        assert "Samples whose label is known to be wrong weigh" in page
        assert "objective, deciding" in page
        assert "the same weights shuffled" in page
        assert "the lowest scores treated" not in page
    title = (folder / "out/report.md").read_text("utf-8").splitlines()[0]
    assert title == "# digits: does weighing samples by metagradient descent help?"
    assert (folder / "out/figures/descent.svg").exists()


def test_repair_weighs_for_accuracy_where_nobody_attacks(folder: Path) -> None:
    """A fifth of the labels is wrong; the objective is the clean loss, and no validation sample is attacked."""
    more = ["task=repair", "objective=utility", f"store={folder / 'store'}", "train.epochs=20"]
    found = run_in(folder / "repair", *OPTIMIZE, *more)
    assert not [key for key in found["keys"] if key.startswith("attack")]
    rounds = pd.DataFrame(found["descent"])
    assert rounds["driving"].min() < rounds["driving"][0]
    table = pd.read_parquet(folder / "repair/scores.parquet")
    wrong = table["label"] != table["truth"]
    assert table["weight"][wrong].mean() < 0.8 < table["weight"][~wrong].mean()
    assert found["arms"]["defended"]["accuracy"] > found["arms"]["control"]["accuracy"]
    page = (folder / "repair/report.md").read_text("utf-8")
    assert "84 validation samples drive the descent, 36 others decide" in page
    assert "What the descents did" in page


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["treatment.rounds=0"], r"treatment\.rounds=0: expected a whole number of at least 1"),
        (["treatment.rate=0"], r"treatment\.rate=0\.0: expected a number in \(0, 10\]"),
        (["treatment.rate=-1"], r"treatment\.rate=-1\.0: expected a number in"),
        (["treatment.confidence=1"], r"treatment\.confidence=1\.0: expected a number of at least 0 and below 1"),
        (["treatment.rate=nan"], r"treatment\.rate=nan: expected a number in"),
        (["scorer=ip"], r"scorer\.method=alignment: expected scorer=metagradient, for treatment=optimize"),
        (["scorer.proxy=fast"], r"scorer\.proxy=fast: expected null, for treatment=optimize"),
        (["treatment.threshold=0"], r"treatment\.threshold=0\.0: expected null, for treatment=optimize"),
        (["treatment.budget=auto", "treatment.names=[remove]"], r"treatment\.budget=auto: expected a fraction,"),
        (["treatment.discrete=true", "treatment.budget=0"], r"treatment\.budget=0: expected a fraction above 0,"),
        (["train.keep=robust"], r"train\.keep=robust: expected last, the end of its trainings, for"),
        (["treatment.rate=300"], r"treatment\.rate=300\.0: expected a number in \(0, 10\]"),
        (["treatment.budget=auto"], r"treatment\.names=.*optimize.*: expected no optimize with treatment"),
        (["task=evade"], r"task=evade: expected defend or repair, for treatment=optimize"),
        (["fabric.devices=2"], r"fabric\.devices=2: expected 1: scorer is a metagradient"),
    ],
)
def test_what_has_no_descent_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        changed("treatment=optimize", *overrides)


def test_too_few_validation_samples_to_divide_are_refused(tmp_path: Path) -> None:
    said = r"data\.validation_size=12: too few to set some aside; expected 20, two of each class, at least"
    with pytest.raises(InputError, match=said):
        run_in(tmp_path / "out", *OPTIMIZE, "data.validation_size=12", f"store={tmp_path / 'store'}")


def test_a_removal_that_leaves_too_few_is_refused_before_any_training(folder: Path) -> None:
    said = r"treatment\.budget=0\.96: leaves 8 training samples for 10 classes; expected a milder treatment"
    with pytest.raises(InputError, match=said):
        loaded(folder, "treatment.discrete=true", "treatment.budget=0.96")


def test_no_training_of_a_descent_is_that_of_an_arm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def given(runtime: Any, design: Any, *rest: Any, **more: Any) -> None:
        seeds.append(design.seed)

    monkeypatch.setattr("defense.pipeline.run.descent", given)
    run = loaded(folder, "scorer.seeds=2")
    for number in range(4):
        for which in range(2):
            run.descent(number, which, untreated(run.data.train))
    assert len(set(seeds)) == 8
    assert not set(seeds) & {run.design(index).seed for index in (0, -1, -2)}


def test_a_comparison_trains_both_from_the_same_first_weights(folder: Path, found: dict[str, Any]) -> None:
    """Those are no arm's. The fall of a sample is its mean over the trainings."""
    run = loaded(folder, "scorer.seeds=2")
    nothing, table = untreated(run.data.train), untreated(run.data.train).table
    half = Treatment(table.assign(weight=np.where(np.arange(200) < 100, 0.0, 2.0), treated=True))
    pairs = [[run.deciding(arm, which, half).table for arm in ("untreated", "treated")] for which in range(2)]
    for one, other in pairs:
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert not pairs[0][0].equals(pairs[1][0])
    falls = [
        run.deciding("untreated", which, nothing).table["contribution"] - pairs[which][1]["contribution"]
        for which in range(2)
    ]
    np.testing.assert_array_equal(measure_falls(run, half), (falls[0] + falls[1]) / 2)


class Killed(Exception):
    """Stands for SIGKILL, in the middle of a round."""


@pytest.mark.slow
def test_a_descent_that_is_killed_twenty_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process takes a few steps of a training or its reverse before it is killed."""
    whole = run_in(tmp_path / "whole", *OPTIMIZE, f"store={tmp_path / 'one'}")
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    left = 0

    @contextmanager
    def shown(label: str) -> Iterator[Progress]:
        def progress(done: int, total: int, **numbers: float) -> None:
            nonlocal left
            left -= label.startswith("descent")
            if left == 0:
                raise Killed

        yield progress

    monkeypatch.setattr(staging, "show_progress", shown)
    for kill in range(20):
        left = 9
        with pytest.raises(Killed):
            run_in(tmp_path / f"killed {kill}", *OPTIMIZE, f"store={tmp_path / 'two'}")
    left = -1
    found = run_in(tmp_path / "found", *OPTIMIZE, f"store={tmp_path / 'two'}")
    assert found["descent"] == whole["descent"]
    assert found["arms"] == whole["arms"]
    one, two = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("whole", "found"))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
