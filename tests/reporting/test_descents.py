"""Descents of a sweep on its page: rows beside scores, and what each of them did."""

from __future__ import annotations

from typing import Any

from defense.reporting.facts import treated
from defense.reporting.frame import settings_of
from defense.tasks.defend.report import defending_page
from tests.cli.test_report import swept

HARMS = ("data.harm=symmetric", "data.harm=none")


def rounds(*deciding: float) -> list[dict[str, Any]]:
    """Return rounds with these objectives on the part that decides; accuracy is 100 minus ten times as much."""
    lowest = deciding.index(min(deciding))
    return [
        {
            "round": number, "driving": value / 2, "deciding": value, "driving_accuracy": 100 - 5 * value,
            "deciding_accuracy": 100 - 10 * value, "chosen": number == lowest,
            "agreement": (None, 0.2, 0.6)[number],
        }
        for number, value in enumerate(deciding)
    ]  # fmt: skip


def descent(seed: int, gain: float, harm: str, *deciding: float, **treatment: Any) -> dict[str, Any]:
    more = ["treatment.discrete=true"] if treatment.get("discrete") else []
    cell = swept(
        seed, gain, "metagradient", harm, "treatment=optimize", *more, name="optimize", rounds=4, **treatment
    )
    cell["overrides"].remove("scorer=metagradient")  # treatment=optimize brings it
    return cell | {"descent": rounds(*deciding)}


def cells() -> list[dict[str, Any]]:
    """Return two scores by removal, and a descent with weights and with samples removed, on two harms."""
    found = []
    for seed in range(3):
        for harm in HARMS:
            found += [swept(seed, 5.0 + 0.1 * seed, name, harm, name="remove") for name in ("ip", "metagradient")]
            deciding = (2.0, 1.0, 1.5) if seed else (1.0, 1.1, 1.2)
            found.append(descent(seed, 9.0 + 0.1 * seed, harm, *deciding))
            found.append(descent(seed, 7.0 + 0.1 * seed, harm, *deciding, discrete=True))
            for cell in found[-4:]:
                cell["config"]["data"]["harm"] = harm.partition("=")[2]
    return found


def test_a_descent_is_a_row_beside_scores() -> None:
    page = defending_page(cells(), "a sweep")
    settings = page.sections[0]
    names = ["ip", "metagradient", "metagradient, optimize", "metagradient, optimize, discrete=true"]
    harms = [harm.partition("=")[2] for harm in HARMS]
    assert [row[:2] for row in settings.rows] == [(name, harm) for harm in harms for name in names]


def test_a_sweep_over_treatments_has_them_in_rows_too() -> None:
    found = cells()
    for cell in found:
        if cell["config"]["treatment"]["name"] == "remove":
            cell["overrides"].append("treatment=remove")
    settings = defending_page(found, "a sweep").sections[0]
    assert settings.header[:2] == ("scorer", "data.harm")
    assert {row[0] for row in settings.rows} >= {"ip, remove", "metagradient, remove", "metagradient, optimize"}


def test_without_a_descent_treatments_stay_in_columns() -> None:
    found = [
        swept(seed, 5.0 + seed, "ip", f"treatment={name}", name=name)
        for seed in (0, 1)
        for name in ("remove", "reweight")
    ]
    settings = defending_page(found, "x").sections[0]
    assert [row[:2] for row in settings.rows] == [("ip", "remove"), ("ip", "reweight")]


def test_what_descents_did_is_a_table() -> None:
    """Of three seeds one takes round 0; the others gain 5 points where it drives and 10 where it decides."""
    (section,) = [section for section in defending_page(cells(), "a sweep").sections if section.name == "descents"]
    assert len(section.rows) == 4
    for name, rounds_taken, nothing, driving, deciding, agreement in section.rows:
        assert name.startswith("metagradient, optimize")
        assert (rounds_taken, nothing) == ("0.7 of 2", "1 of 3")
        assert driving.startswith("+3.3 (")
        assert deciding.startswith("+6.7 (")
        assert agreement == "0.40"


def test_the_treatment_in_words() -> None:
    settings = settings_of(cells())
    assert treated(settings) == (
        "remove 10 %, weights by metagradient descent in 4 rounds, remove 10 % by metagradient descent in 4 rounds"
    )
    assert {setting.row: setting.control for setting in settings} == {
        "ip": "random removal",
        "metagradient": "random removal",
        "metagradient, optimize": "the same weights shuffled",
        "metagradient, optimize, discrete=true": "random removal",
    }
