"""What pages say where there is nothing to compare: no arm has learned anything, or the attack leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.cli.report import page_of, text_of
from defense.config.schema import plain
from defense.reporting.compare import compare
from defense.reporting.frame import settings_of
from defense.robustness.checks import compared_under, learned
from defense.tasks.defend.report import MAIN
from defense.tasks.detect.report import SHARES, detection_page
from defense.tasks.health import (
    SCORED,
    chance_of,
    doubts,
    flagged_cells,
    health_of,
    untold,
    verdict_of,
    warning,
)
from tests.cli.test_report import result, swept
from tests.conftest import TINY
from tests.reporting.test_repairing import RESULTS as REPAIRED

LABELS = np.arange(50) % 10
KNOWS = np.where(np.arange(50) < 30, LABELS, 0)
ONE = np.full(50, 3)
GUESS = (LABELS + 1) % 10
NAMES = [f"c{index}" for index in range(10)]
ARMS = ("baseline", "control", "defended")


def health(*given: np.ndarray, standing: Sequence[int] = (20, 20, 20)) -> dict[str, Any]:
    """Of a run whose arms make `given` of 50 samples of ten classes, with so many right under attack."""
    found = {arm: plain(learned(LABELS, own)) for arm, own in zip(ARMS, given, strict=True)}
    right = {arm: np.arange(50) < count for arm, count in zip(ARMS, standing, strict=True)}
    clean = {arm: np.ones(50, bool) for arm in ARMS}
    return health_of(found, NAMES, plain(compared_under(right, clean)))


@pytest.mark.parametrize(
    ("given", "conclusive"),
    [
        ((KNOWS, KNOWS, KNOWS), True),
        ((ONE, ONE, ONE), False),
        ((GUESS, GUESS, GUESS), False),
        ((ONE, KNOWS, ONE), False),
        ((KNOWS, ONE, ONE), False),
        ((KNOWS, KNOWS, ONE), True),  # the treatment has broken it: that can be said
        ((ONE, ONE, KNOWS), True),  # and so can that it has mended it
        ((ONE, KNOWS, KNOWS), True),
    ],
)
def test_nothing_can_be_said_if_what_is_compared_has_learned_nothing(
    given: tuple[np.ndarray, ...], conclusive: bool
) -> None:
    found = health(*given)
    assert found["conclusive"] is conclusive
    assert bool(verdict_of(found)) is not conclusive
    assert bool(warning({}, found)) is any(own is not KNOWS for own in given)


def test_the_sentences_name_arms_accuracies_and_the_largest_class() -> None:
    assert verdict_of(health(ONE, ONE, ONE)) == (
        "No arm is told from chance (clean accuracy on 50 test samples: baseline 10.0 %, control 10.0 %, "
        "defended 10.0 %, each with one class for every sample; the largest class (c0) has 10.0 %): nothing can "
        "be said about the treatment."
    )
    found = health(GUESS, KNOWS, ONE)
    assert verdict_of(found) == (
        "The baseline and defended are not told from chance (clean accuracy on 50 test samples: baseline 0.0 %, "
        "defended 10.0 % with one class for every sample; the largest class (c0) has 10.0 %): nothing can be said "
        "about the treatment."
    )
    assert warning({}, found) == (
        "Not to be believed without a closer look: not told from chance (clean accuracy: baseline 0.0 %); one "
        "class for every sample (clean accuracy: defended 10.0 %)."
    )
    said = "A model that always names the largest class (c0) is right on 10.0 % of 50 samples."
    assert chance_of(health(KNOWS, KNOWS, KNOWS)) == said
    assert found["arms"]["defended"]["predicted_class"] == {"index": 3, "name": "c3", "samples": 50}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("standing", "said", "eps"),
    [
        ((0, 2, 1), "No arm has more than 2 of 50 test samples right under attack", "smaller"),
        ((0, 0, 0), "No arm has any of 50 test samples right under attack", "smaller"),
        ((50, 48, 49), "The attack breaks at most 2 of 50 test samples of any arm", "larger"),
        ((50, 50, 50), "The attack breaks none of 50 test samples of any arm", "larger"),
    ],
)
def test_an_attack_that_tells_no_arms_apart_is_said(standing: tuple[int, ...], said: str, eps: str) -> None:
    found = health(KNOWS, KNOWS, KNOWS, standing=standing)
    kind = "strong" if eps == "smaller" else "weak"
    assert verdict_of(found) == (
        f"{said}: the attack is too {kind} to tell the arms apart, and nothing can be said about the "
        f"treatment; a {eps} threat.eps may tell."
    )
    assert warning({}, found).endswith(f": the attack is too {kind} to tell the arms apart.")


def test_a_setting_in_which_half_of_the_runs_say_nothing_is_not_judged() -> None:
    """However much it gains; the others are judged as if it were not there."""
    runs = [
        swept(seed, gain + 0.1 * (-1) ** seed, scorer)
        for seed in range(5)
        for scorer, gain in (("ip", 8.0), ("loss", 8.0))
    ]
    usual = {row.setting.row: row for row in compare(settings_of(runs), MAIN)}
    assert {row.word for row in usual.values()} == {"best", "better"}
    for idle in (3, 2):
        told = [
            run | {"health": health(ONE, ONE, ONE)}
            if "scorer=ip" in run["overrides"] and run["seed"] < idle
            else run
            for run in runs
        ]
        rows = {row.setting.row: row for row in compare(settings_of(told), MAIN)}
        if idle == 2:
            assert rows["ip"].holm == usual["ip"].holm
            continue
        assert (rows["ip"].word, rows["ip"].holm, rows["ip"].better) == (
            "not judged: clean accuracy is not told from chance",
            None,
            False,
        )
        assert rows["loss"].holm == pytest.approx(usual["loss"].pair.t)
        text = text_of(page_of(told))
        assert (
            "Nothing can be said about 3 of 10 runs (clean accuracy is not told from chance): scorer=ip seed=0; "
            in text
        )
        assert "The treatment is better than random removal" in text
        assert "Not judged: 1, as clean accuracy is not told from chance." in text
        assert "better than random removal" in text
        assert "+8.0 (" in text


def test_a_page_on_which_no_run_says_anything_calls_nothing_better() -> None:
    runs = [result(seed, 8.0 + seed, health=health(KNOWS, KNOWS, KNOWS, standing=(0, 0, 0))) for seed in range(5)]
    text = text_of(page_of(runs))
    assert "No setting can be judged: the attack is too strong." in text
    assert "not judged: the attack is too strong" in text
    assert "better than random" not in text


def test_pages_of_other_tasks_say_so_first() -> None:
    idle = health_of({arm: plain(learned(LABELS, ONE)) for arm in ARMS}, NAMES)
    answer = page_of([run | {"health": idle} for run in REPAIRED]).headline.splitlines()
    assert answer[0].startswith(
        "Nothing can be said about 15 of 15 runs (clean accuracy is not told from chance): scorer=ip seed=0;"
    )
    assert {line.partition(": ")[2] for line in answer[1:]} == {
        "No setting can be judged: clean accuracy is not told from chance."
    }
    scored = health_of({SCORED: plain(learned(LABELS, ONE))}, NAMES)
    shared: dict[str, Any] = {
        "selection": {"auc": 0.5, "precision": None},
        "recall_curve": SHARES.tolist(),
        "health": scored,
    }
    said = (
        "The scored model is not told from chance (clean accuracy on 50 training samples: scored model 10.0 % "
        "with one class for every sample; the largest class (c0) has 10.0 %): nothing can be said about the "
        "scores of a trained model."
    )
    assert detection_page([swept(0, 0.0, "ip") | shared], "x").headline.startswith(said)
    assert not detection_page([swept(0, 0.0, "random") | shared], "x").headline.startswith("The scored")


def test_results_of_before_and_sound_ones_say_nothing_more() -> None:
    older, sound = result(0, 1.0), result(0, 1.0, health=health(KNOWS, KNOWS, KNOWS))
    for runs in ([older], [sound], [older, sound | {"seed": 1}]):
        assert untold(runs) == flagged_cells(runs) == doubts(runs) == ""
    mixed = [sound, result(1, 1.0, health=health(KNOWS, ONE, KNOWS))]
    assert flagged_cells(mixed) == "Health checks flag 1 of 2 cells: seed=1."


NET = """
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Flatten(), nn.Linear(64, classes))
        with torch.no_grad():
            self[1].weight.zero_()
            self[1].bias.copy_(2 * torch.eye(classes)[3])
"""


def test_a_run_of_a_network_that_says_one_class_says_so_without_health_checks(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "own_constant.py").write_text(NET)
    own = ["model._target_=own_constant.Net", "train.learning_rate=1e-12", "train.epochs=1", "scorer=random"]
    code, out, error = command(*TINY, *own, "treatment.balance=class", "hydra.run.dir=out")
    assert code == 0, error
    found = json.loads((tmp_path / "out/result.json").read_text("utf-8"))
    right = int((pd.read_parquet(tmp_path / "out/per_sample.parquet").query("arm == 'control'")["clean"]).sum())
    assert found["health"]["arms"]["control"]["right"] == right
    assert found["verdict"].startswith("No arm is told from chance (clean accuracy on 80 test samples: baseline ")
    assert found["verdict"].endswith("nothing can be said about the treatment.")
    end = 100 * 1.959964**2 / (80 + 1.959964**2)
    for gain in (found["gain_over_control"], *found["clean_change"].values()):
        assert (gain["mean"], gain["samples"]) == (0, 80)
        assert (gain["low"], gain["high"]) == pytest.approx((-end, end), abs=1e-3)
    flag = "Not to be believed without a closer look: one class for every sample (clean accuracy: baseline "
    page = (tmp_path / "out/report.md").read_text("utf-8")
    for text in (out, page, (tmp_path / "out/report.html").read_text("utf-8")):
        assert found["verdict"] in text
        assert flag in text
    assert "+0.0 to +0.0" not in page
