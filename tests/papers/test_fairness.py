"""experiment=paper/fairness from the command line, on drawn people; and what is said where it cannot run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.papers.tables import SMALL, write_adult

pytestmark = pytest.mark.extra("fairlearn")

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_gaps_and_accuracy_of_every_arm_are_on_one_page(command: Command, tmp_path: Path) -> None:
    root = write_adult(tmp_path / "files")
    code, out, err = command(
        "experiment=paper/fairness",
        f"data.root={root}",
        "data=adult",
        "model=logistic",
        "treatment=remove",
        "objective=demographic_parity",
        "scorer=ip,random",
        "seed=0,1",
        *SMALL,
    )
    assert (code, err) == (0, "")
    assert out.index("Demographic parity gap: ") < out.index(
        "Accuracy: "
    )  # what the objective is about comes first
    (page,) = (tmp_path / "runs" / "fairness").glob("*/report.md")
    for heading in (
        "Demographic parity gap, points",
        "Equal opportunity gap, points",
        "Accuracy, %",
        "against accuracy",
    ):
        assert heading in page.read_text("utf-8")
    results = [json.loads(file.read_text("utf-8")) for file in page.parent.glob("*/result.json")]
    assert len(results) == 4
    for result in results:
        assert set(result["arms"]) == {"baseline", "control", "defended"}
        for arm in result["arms"].values():
            assert set(arm) == {"accuracy", "demographic_parity", "equal_opportunity"}
            assert all(0 <= value <= 100 for value in arm.values())


def test_a_second_class_of_groups_is_needed(command: Command, tmp_path: Path) -> None:
    root = write_adult(tmp_path / "files")
    words = [f"data.root={root}", "data=adult", "objective=demographic_parity", "task=repair", *SMALL]
    code, _, err = command(*words, "data.sensitive=capital-loss")
    assert code == 2
    assert err.startswith("defense: data.sensitive=capital-loss: has the one value 0; expected two groups")
    code, _, err = command(*words, "data.sensitive=null")
    assert code == 2
    assert "expected validation samples of two groups or more" in err


def test_fairlearn_that_is_not_installed_is_said_before_any_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fairlearn.metrics", None)  # an import of it then fails
    root = write_adult(tmp_path / "files")
    code, out, err = command(f"data.root={root}", "data=adult", "task=repair", "objective=utility", *SMALL)
    assert (code, "train" in out) == (2, False)
    assert 'by fairlearn: pip install -e ".[fairness]"' in err
