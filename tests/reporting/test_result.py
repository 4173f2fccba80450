"""The sentence that a run opens with: what was treated, or why nothing was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from defense.config.choices import TreatmentName
from defense.tasks.defend.verdict import among, untouched
from tests.conftest import DEFAULT, TINY


@pytest.mark.parametrize(
    ("changes", "predictions", "said"),
    [
        ({"budget": 0.0}, [0, 1], "budget 0"),
        ({"threshold": -5.0}, [0, 1], "no score is below the threshold -5"),
        ({"name": TreatmentName.reweight}, [0, 1], "all scores are alike"),
        ({"name": TreatmentName.relabel}, [1, 2], "the model gives no sample another label"),
        (
            {"name": TreatmentName.relabel, "threshold": -5.0},
            [0, 1],
            "no score is below the threshold -5 among the samples that the model gives another label",
        ),
    ],
)
def test_why_nothing_was_treated(changes: dict[str, Any], predictions: list[int], said: str) -> None:
    run = SimpleNamespace(
        config=replace(DEFAULT, treatment=replace(DEFAULT.treatment, **changes)),
        candidates=None,
        descent=None,
        scores=pd.DataFrame({"label": [1, 2], "prediction": predictions}),
        data=SimpleNamespace(classes=3),
    )
    assert untouched(run) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "said"), [("remove", " in every class"), ("reweight", ""), ("relabel", " in every class")]
)
def test_a_treatment_that_reads_no_balance_has_none(name: str, said: str) -> None:
    spec = replace(DEFAULT.treatment, name=TreatmentName(name), balance="class")
    two = SimpleNamespace(config=replace(DEFAULT, treatment=spec), data=SimpleNamespace(classes=2))
    assert among(two) == said  # type: ignore[arg-type]


def test_what_the_lowest_scores_are_the_lowest_of_is_said(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    own = ["treatment=relabel", "treatment.balance=class", "objective=utility"]
    assert command(*TINY, *own, "hydra.run.dir=out")[0] == 0
    verdict = json.loads((tmp_path / "out/result.json").read_text("utf-8"))["verdict"]
    words = "ip ranks lowest for utility in every class among the samples that the model gives another label took"
    assert words in verdict
