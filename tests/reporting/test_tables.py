from __future__ import annotations

from defense.reporting.arms import lookup, metrics, spoken
from defense.reporting.escaping import markdown

ARM = {"clean": 90.0, "transfer": 40.0, "adaptive": {"pgd": 30.0, "worst": 29.0}}


def test_worst_comes_first_and_every_number_is_found() -> None:
    assert metrics(ARM) == ["adaptive.worst", "adaptive.pgd", "clean", "transfer"]
    assert [lookup(ARM, metric) for metric in metrics(ARM)] == [29, 30, 90, 40]
    assert spoken("adaptive.pgd") == "adaptive, after pgd"


def test_markdown_is_aligned() -> None:
    table = markdown(("name", "value"), [("a", "1.0"), ("longer", "10.25")])
    assert table.splitlines() == [
        "| name   | value |",
        "| ------ | ----: |",
        "| a      |   1.0 |",
        "| longer | 10.25 |",
    ]
