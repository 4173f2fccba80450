from __future__ import annotations

from typing import Any

from defense.tasks.health import check_rows, flagged_cells, health_section, looked_at, reach, warning

LEARNED = {"samples": 80, "largest_class": {"index": 0, "name": "c0", "samples": 8}, "doubt": None}
HEALTH = {"arms": {"baseline": LEARNED}, "conclusive": True, "reason": None}


def finding(found: int = 0, allowed: int = 7, **numbers: float) -> dict[str, Any]:
    said = {"title": "broken by Square alone", "sign": "Square breaks more", "of": 100}
    return {**said, "found": found, "allowed": allowed, "flagged": found > allowed, "numbers": numbers}


def arm(square: int, drift: int = 0, distance: float = 1.0) -> dict[str, Any]:
    repeatable = finding(drift, 0) | {"title": "other logits", "sign": "logits are drawn"}
    inside = finding(0, 0, distance=distance, lowest=0.0, highest=0.9) | {"title": "outside", "sign": "it leaves"}
    return {"square": finding(square), "repeatable": repeatable, "inside": inside}


def test_the_warning_names_signs_and_arms() -> None:
    arms = {"defended": arm(0, 3), "control": arm(7), "baseline": arm(8)}
    assert warning(arms) == (
        "Not to be believed without a closer look: Square breaks more (baseline); logits are drawn (defended)."
    )
    alike = {name: arm(50) for name in arms}
    assert warning(alike) == "Not to be believed without a closer look: Square breaks more (every arm)."
    assert warning({name: arm(7) for name in arms}) == ""
    assert warning({}) == ""


def test_rows_are_in_the_order_of_every_table() -> None:
    arms = {"defended": arm(0, 3), "baseline": arm(8)}
    first, second, _ = check_rows(arms)
    assert first == ("broken by Square alone", "8 flagged", "0", "7")
    assert second == ("other logits", "0", "3 flagged", "0")
    assert [getattr(cell, "tone", "") for cell in first] == ["", "flagged", "", ""]
    assert looked_at(arms) == 100
    section = health_section({"checks": arms, "health": HEALTH})
    assert section.header == ("of 100 test samples", "baseline", "defended", "allowed")
    assert section.rows == check_rows(arms)
    assert "Nothing is flagged" not in section.text
    assert "Nothing is flagged." in health_section({"checks": {"baseline": arm(0)}, "health": HEALTH}).text


def test_the_farthest_of_all_arms_is_said() -> None:
    assert reach({"baseline": arm(0), "control": arm(0, distance=1.0004)}) == (
        "The farthest perturbation of the checks is 1.0004 eps long, pixels are from 0 to 0.9."
    )


def test_without_checks_there_is_nothing_to_show() -> None:
    assert check_rows({}) == []
    assert looked_at({}) == 0
    assert reach({}) == ""
    section = health_section({"checks": {}, "health": HEALTH})
    assert section.rows == ()
    assert "left out (evaluation.checked=0)" in section.text


def result(seed: int, square: int, *overrides: str) -> dict[str, Any]:
    checks = {"baseline": arm(0), "defended": arm(square)}
    return {"name": "x", "seed": seed, "overrides": ["a=1", *overrides, f"seed={seed}"], "checks": checks}


def test_flagged_cells_of_a_sweep_are_named() -> None:
    results = [result(seed, 50 * (seed == 1), f"scorer={scorer}") for scorer in ("ip", "loss") for seed in (0, 1)]
    assert flagged_cells(results) == "Health checks flag 2 of 4 cells: scorer=ip seed=1; scorer=loss seed=1."
    assert flagged_cells(results, shown=1) == "Health checks flag 2 of 4 cells: scorer=ip seed=1 and 1 more."
    assert flagged_cells(results[:1]) == ""
    unchecked = [{**one, "checks": {}} for one in results]
    older = [{name: value for name, value in one.items() if name != "checks"} for one in results]
    assert flagged_cells(unchecked) == flagged_cells(older) == ""
