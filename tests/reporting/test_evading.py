"""The result and the page of task=evade: what survives from protocol to protocol, who is better and worse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.config.choices import Protocol
from defense.config.schema import plain as as_plain
from defense.robustness.checks import learned as learned_of
from defense.tasks.evade.report import Evaded, accuracies, evaded_page, evaded_result
from tests.cli.test_report import swept
from tests.conftest import DEFAULT, make_split

WAYS = ("clean", "frozen", "bounded", "adaptive")


def cell(seed: int, scorer: str, published: float, bounded: float) -> dict[str, Any]:
    """Return the result of a run that gains over the control: as published, and by the bounded attack.

    Over the baseline it gains two points more.
    """
    gains = {"published_frozen": published, "strict_bounded": bounded}
    spread = 0.1 * (-1) ** seed
    arms = {
        arm: {
            f"{protocol}_{way}": dict.fromkeys(
                ("5", "25", "mean"), level + (arm == "defended") * (gains.get(f"{protocol}_{way}", 0) + spread)
            )
            for protocol in ("published", "strict")
            for way in WAYS
        }
        for arm, level in (("baseline", 60), ("control", 62), ("defended", 62))
    }
    result = swept(seed, 0.0, scorer)
    result["config"]["task"] = "evade"
    return result | {"arms": arms, "task": "evade"}


def test_an_attack_made_anew_leaves_alone_what_is_wrong_and_the_published_one_does_not() -> None:
    """Four points, by hand; the last is not moved."""
    table = pd.DataFrame(
        {
            "id": range(4),
            "clean": [True, False, True, True],
            "frozen": [True, True, False, False],  # the second is turned right: 3 of 4 as published
            "bounded": [True, True, False, False],  # it is left wrong: 2 of 4
            "adaptive": [False, True, False, False],  # 1 of 4
        }
    )
    moved = np.array([True, True, True, False])
    ways = accuracies({(0.75, Protocol.strict): {"baseline": table}}, {0.75: moved})["baseline"]
    assert {way: found["75"] for way, found in ways.items()} == {
        "strict_clean": 75,
        "strict_frozen": 75,
        "strict_bounded": 50,
        "strict_adaptive": 25,
    }
    assert all(found["mean"] == found["75"] for found in ways.values())


def test_many_treatments_have_no_precision_and_no_recall() -> None:
    """Every share and protocol treats samples of its own; only the scores are compared with the known noise."""
    scores = pd.DataFrame({"label": [0, 1, 1, 0], "truth": [0, 1, 0, 0], "score": [0.3, -0.4, -0.2, 0.1]})
    parts: dict[str, Any] = {
        "train": make_split(4, 2, (1, 2, 2)),
        "validation": (),
        "test": (),
        "noise_known": True,
        "class_names": ["a", "b"],
        "left_out": [],
    }
    plain: dict[str, Any] = {name: {} for name in ("settings", "record", "keys", "seconds")}
    learned = as_plain(learned_of(np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1])))
    run = Evaded(
        config=DEFAULT,
        data=SimpleNamespace(**parts),  # type: ignore[arg-type]
        scores=scores,
        overrides=[],
        reused=[],
        device="cpu",
        tables={},
        chosen={},
        learned=learned,
        **plain,
    )
    # of the pairs of the one wrong label with a right one it has the lower score in two of three
    expected = {"precision": None, "recall": None, "auc": pytest.approx(2 / 3), "noise": 0.25}
    assert evaded_result(run)["selection"] == expected


RESULTS = [
    cell(seed, scorer, published, bounded)
    for seed in range(6)
    for scorer, published, bounded in (("ip", 4, -2), ("loss", 2, 1), ("random", 0, 0))
]


def test_the_answer_says_what_is_left_and_both_signs() -> None:
    """Of two settings, chance aside, by hand: (4 + 2) / 2 + 2 as published, (-2 + 1) / 2 bounded."""
    page = evaded_page(RESULTS, "evasion")
    assert page.headline == (
        "Under the strict protocol the gain turns into a loss against the bounded attack. As published: +5.0 "
        "(+4.9 to +5.1) points over no treatment. By the strict protocol, over a random control: -0.5 (-0.6 to "
        "-0.4) against a bounded attack, +0.0 (-0.1 to +0.1) against an unbounded one. These are means over "
        "shares of moved points and 6 seeds, of 2 settings (random aside), with 95 % intervals."
    )
    assert page.notes[0] == (
        "Setting by setting, after Holm's correction: published, over untreated 2 better, 0 worse; strict, "
        "bounded 1 better, 1 worse; strict, unbounded 0 better, 0 worse."
    )


@pytest.mark.parametrize(
    ("published", "bounded", "text"),
    [
        (
            4,
            3,
            "Under the strict protocol a gain is left against the bounded attack, none against the unbounded one.",
        ),
        (4, 0, "Under the strict protocol no gain is left that chance does not explain."),
        (-2, 0, "The published protocol itself shows no gain that chance does not explain."),
    ],
)
def test_the_first_sentence_is_the_answer(published: float, bounded: float, text: str) -> None:
    results = [cell(seed, "ip", published, bounded) for seed in range(6)]
    assert evaded_page(results, "evasion").headline.startswith(text)


def test_a_scorer_stands_beside_all_and_every_share_is_there() -> None:
    sections = {section.name: section for section in evaded_page(RESULTS, "evasion").sections}
    assert [row[:2] for row in sections["survival"].rows] == [("all", "2"), ("ip", "1"), ("loss", "1")]
    assert [row[0] for row in sections["shares"].rows] == ["5 %", "25 %"]
    data = sections["protocols_1"].data
    assert data is not None
    assert data["scorer"].tolist() == ["ip", "loss", "random"]
    assert data["strict, bounded"].tolist() == pytest.approx([-2, 1, 0])
    assert data["published, over random"].tolist() == pytest.approx([4, 2, 0])
    assert data["published, over untreated"].tolist() == pytest.approx([6, 4, 2])
    chance = data[data["scorer"] == "random"].iloc[0]
    assert chance["published, over untreated, p, Holm"] < 0.001 < chance["published, over random, p, Holm"]
    assert np.isfinite(data["strict, bounded, p, Holm"]).all()


@pytest.mark.parametrize(("hidden", "linear"), [([], True), ([256], False), (None, False)])
def test_what_holds_of_linear_models_is_said_of_them_alone(hidden: list[int] | None, linear: bool) -> None:
    model = {"_target_": "defense.models.networks.mlp"} | ({} if hidden is None else {"hidden": hidden})
    told = [result | {"config": result["config"] | {"model": model}} for result in RESULTS]
    facts = evaded_page(told, "evasion").notes
    assert any("For a linear model" in fact for fact in facts) is linear
    assert any("model logistic" in fact for fact in facts) is linear


def test_seeds_that_a_setting_lacks_do_not_count() -> None:
    """Else a seed with one of two settings would count as all of them."""
    there = [result for result in RESULTS if result["seed"] < 4 or "scorer=ip" in result["overrides"]]
    assert "and 4 seeds, of 2" in evaded_page(there, "evasion").headline


def test_one_seed_is_no_judgement() -> None:
    said = evaded_page(RESULTS[:3], "evasion").headline
    assert said.startswith("One seed: no interval, no judgement")
    assert "published, over random: +3.1" in said


def test_a_setting_of_one_seed_does_not_take_the_intervals_of_the_others() -> None:
    """Nor do settings of other seeds: they are in no mean, and the page says so."""
    thin = [result for result in RESULTS if "scorer=loss" not in result["overrides"] or result["seed"] == 0]
    other = [cell(seed, "datainf", 9.0, 9.0) for seed in (7, 8)]
    page = evaded_page([*thin, *other], "evasion")
    assert "+6.0 (+5.9 to +6.1) points over no treatment" in page.headline
    assert page.headline.endswith("means over shares of moved points and 6 seeds, with 95 % intervals.")
    assert "Of 4 settings 2 lack seeds that the others have, and are in no mean." in page.notes


def test_shares_that_some_settings_lack_are_in_no_row() -> None:
    def of_share(seed: int, share: str) -> dict[str, Any]:
        result = cell(seed, "ip", 4.0, -2.0)
        return result | {
            "overrides": [*result["overrides"], f"evade.shares=[{share}]"],
            "config": result["config"] | {"evade": {"shares": [share]}},
            "arms": {
                arm: {key: {name: values[name] for name in (share, "mean")} for key, values in ways.items()}
                for arm, ways in result["arms"].items()
            },
        }

    several = [of_share(seed, share) for seed in range(3) for share in ("5", "25")]
    assert "shares" not in {section.name for section in evaded_page(several, "evasion").sections}
    one = [of_share(seed, "25") for seed in range(3)]
    (section,) = (section for section in evaded_page(one, "evasion").sections if section.name == "shares")
    assert [row[0] for row in section.rows] == ["25 %"]


def test_chance_that_is_called_different_from_chance_is_said() -> None:
    lucky = [
        cell(result["seed"], "random", 0, 3) if "scorer=random" in result["overrides"] else result
        for result in RESULTS
    ]
    (note,) = [note for note in evaded_page(lucky, "evasion").notes if "by luck alone" in note]
    assert note.startswith(
        "Random scores, too, are called different from a random control, by luck alone: random +3.0 ("
    )
    assert "by strict, bounded" in note
    assert not [note for note in evaded_page(RESULTS, "evasion").notes if "by luck" in note]
