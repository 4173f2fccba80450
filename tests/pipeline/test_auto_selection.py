"""treatment.budget=auto: the choice is made on samples that nothing else looks at, and may be to do nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from defense.config.choices import TreatmentName
from defense.config.compose import composed
from defense.config.schema import Treat
from defense.data.load import held_out, load
from defense.errors import InputError
from defense.pipeline.run import Run
from defense.pipeline.selection import Candidate, candidates
from defense.reporting.statistics import Mean
from defense.store.fingerprint import key_of
from tests.conftest import TINY, data, run_in

Command = Callable[..., tuple[int, str, str]]
AUTO = ["treatment.budget=auto", "treatment.budgets=[0.1,0.2]", "data.validation_size=200", "data.train_size=400"]


def test_what_is_held_out_is_part_of_validation_and_of_nothing_else() -> None:
    whole = load(data(train_size=200, validation_size=60, test_size=80), seed=0)
    cut = held_out(whole, 0.5, seed=0)
    assert cut.choice is not None
    ids = {name: set(split.ids.tolist()) for name, split in cut.splits.items()}
    assert ids["choice"] | ids["validation"] == set(whole.validation.ids.tolist())
    assert sum(map(len, ids.values())) == len(set().union(*ids.values())) == 340
    assert len(ids["choice"]) == 30
    for share, aside in ((0.05, 3), (0.999, 60)):
        with pytest.raises(InputError, match=rf"treatment\.held_out={share}: sets {aside} of 60"):
            held_out(whole, share, seed=0)


def test_candidates_are_every_treatment_with_every_budget() -> None:
    spec = composed("treatment.names=[remove,reweight]", "treatment.budgets=[0.1,0.3]").treatment
    found = [(candidate.name, candidate.budget) for candidate in candidates(spec)]
    assert found == [(TreatmentName.remove, 0.1), (TreatmentName.remove, 0.3), (TreatmentName.reweight, 0.1)]


def run(command: Command, tmp_path: Path, *overrides: str) -> dict:  # type: ignore[type-arg]
    return run_in(tmp_path / "out", *TINY, *AUTO, *overrides)


def test_the_best_of_what_beats_its_control_is_chosen(command: Command, tmp_path: Path) -> None:
    """With every wrong label known, removing them beats random removal where there is much noise."""
    found = run(
        command,
        tmp_path,
        "scorer=oracle",
        "data.harm_rate=0.4",
        "treatment.budgets=[0.1,0.4]",
        "train.epochs=15",
    )
    rows = pd.DataFrame(found["candidates"])
    assert rows["treatment"].tolist() == ["none", "remove", "remove"]
    worthy = rows[(rows["low"] > 0) | (rows["treatment"] == "none")]
    chosen = rows[rows["chosen"]]
    assert len(chosen) == 1
    assert chosen["defended"].item() == worthy["defended"].max()
    assert chosen["budget"].item() == 0.4
    assert found["sizes"]["treated"] == 160
    assert found["sizes"]["validation"] == 100
    assert np.allclose(rows["gain"], rows["defended"] - rows["control"])
    page = (tmp_path / "out/report.md").read_text("utf-8")
    assert "How the treatment was chosen" in page
    assert (tmp_path / "out/figures/candidates.svg").exists()


def test_where_nothing_beats_random_nothing_is_treated(command: Command, tmp_path: Path) -> None:
    found = run(command, tmp_path, "scorer=random", "train.epochs=2")
    assert [row["chosen"] for row in found["candidates"]] == [True, False, False]
    assert found["sizes"]["treated"] == 0
    assert "none of 2 candidates beat its random control on held-out validation" in found["verdict"]
    assert found["arms"]["defended"] == found["arms"]["baseline"]


def test_where_weights_do_not_help_none_are_given(command: Command, tmp_path: Path) -> None:
    """Weights read no budget: of budget 0 they would be given all the same."""
    found = run(command, tmp_path, "scorer=random", "treatment=reweight", "train.epochs=2")
    assert [row["chosen"] for row in found["candidates"]] == [True, False]
    assert found["sizes"]["treated"] == 0
    assert found["arms"]["defended"] == found["arms"]["baseline"]


def test_what_is_chosen_is_trained_again_beside_another_control(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The luck of the training that won the choice must not reach the test."""
    keys: list[str] = []
    controls: list[list[bool]] = []
    evaluate, control = Run.evaluate, Run.control

    def spying(self: Run, arm: str, model: Any, *rest: Any, **more: Any) -> Any:
        keys.append(key_of(model.identity))
        return evaluate(self, arm, model, *rest, **more)

    def drawing(self: Run, *stages: Any, **more: Any) -> Any:
        found = control(self, *stages, **more)
        controls.append(found.table["treated"].tolist())
        return found

    monkeypatch.setattr(Run, "evaluate", spying)
    monkeypatch.setattr(Run, "control", drawing)
    found = run(
        command,
        tmp_path,
        "scorer=oracle",
        "data.harm_rate=0.4",
        "treatment.budgets=[0.4]",
        "train.epochs=15",
    )
    assert found["sizes"]["treated"] == 160
    (baseline, *tried), (again, *final) = keys[:3], keys[3:]
    assert baseline != again
    assert len(final) == 3  # control, defended and trusted
    assert not set(tried) & set(final)
    first, *_, last = controls
    assert sum(first) == sum(last) == 160
    assert first != last


def test_test_samples_play_no_part_in_the_choice(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    evaluate = Run.evaluate

    def spying(self: Run, arm: str, *rest: Any, part: str = "test") -> Any:
        seen.append((part, arm))
        return evaluate(self, arm, *rest, part=part)

    monkeypatch.setattr(Run, "evaluate", spying)
    run(command, tmp_path, "scorer=random", "train.epochs=2")
    first_test = [part for part, _ in seen].index("test")
    tried = [f"{arm}_remove_{budget}" for budget in (0.1, 0.2) for arm in ("defended", "control")]
    assert seen[:first_test] == [("choice", arm) for arm in ("baseline_none", *tried)]
    assert all(part == "test" for part, _ in seen[first_test:])


def test_what_does_not_beat_its_control_is_not_chosen(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where it is the most accurate of all; and of those that do, the most accurate is."""
    gains = iter([Mean(9, -1, 19, 100), Mean(3, 1, 5, 100), Mean(2, 1, 3, 100)])
    accuracies = iter([90.0, 80.0, 70.0])

    def measured(run: Run, spec: Treat, *treatments: Any, confidence: float) -> Candidate:
        assert confidence == pytest.approx(1 - 0.05 / 3)
        return Candidate(spec, 1.0, next(accuracies), next(gains))

    monkeypatch.setattr("defense.pipeline.selection.measured", measured)
    found = run(command, tmp_path, "treatment.budgets=[0.1,0.15,0.2]", "train.epochs=3", "threat.eps=0.05")
    assert [row["budget"] for row in found["candidates"] if row["chosen"]] == [0.15]
    assert "(chosen from 3 candidates on held-out validation)" in found["verdict"]


def test_what_cannot_be_treated_is_said_before_training(command: Command) -> None:
    code, out, error = command(*TINY, *AUTO, "treatment.budgets=[0.1,0.99]")
    assert (code, "train defended" in out) == (2, False)
    assert "treatment.budgets=0.99: leaves no sample of class" in error


def test_the_proxy_is_an_arm_where_scores_come_from_one(command: Command, tmp_path: Path) -> None:
    code, _, _ = command(*TINY, "scorer.proxy=adversarial", "hydra.run.dir=out")
    assert code == 0
    found = json.loads((tmp_path / "out/result.json").read_text("utf-8"))
    assert list(found["arms"]) == ["baseline", "control", "defended", "trusted", "proxy"]
    samples = pd.read_parquet(tmp_path / "out/per_sample.parquet").query("arm == 'proxy'")
    assert found["arms"]["proxy"]["adaptive"]["worst"] == pytest.approx(100 * samples["adaptive.worst"].mean())
    assert found["arms"]["proxy"]["adaptive"] != found["arms"]["baseline"]["adaptive"]
    assert torch.isfinite(torch.tensor(found["arms"]["proxy"]["transfer"]))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["treatment.budget=some"], r"treatment\.budget=some: expected a fraction in \[0, 1\), or auto"),
        (["treatment.budget=true"], r"treatment\.budget=true"),
        (["treatment.budget=auto", "treatment.budgets=[]"], "expected a fraction or more to choose from"),
        (["treatment.budget=auto", "treatment.names=[]"], "expected a treatment or more to choose from"),
        (["treatment.budgets=[0,0.1]"], r"treatment\.budgets=\[0\.0, 0\.1\]: expected fractions in \(0, 1\)"),
        (["treatment.budget=auto", "treatment.threshold=0"], r"treatment\.threshold=0\.0: expected null with"),
        (["treatment.held_out=1"], r"treatment\.held_out=1\.0"),
        (["treatment.budget=auto", "task=detect"], "expected a fraction: nothing is treated by task=detect"),
    ],
)
def test_what_cannot_be_chosen_from_is_said(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        composed(*overrides)
