"""experiment=paper/evasion from the command line, on drawn people."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.papers.tables import SMALL, write_adult

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_both_protocols_are_side_by_side(command: Command, tmp_path: Path) -> None:
    root = write_adult(tmp_path / "files")
    code, out, err = command(
        "experiment=paper/evasion",
        f"data.root={root}",
        "data=adult",
        "treatment=remove",
        "scorer=ip,random",
        "seed=0,1",
        "evade.shares=[0.1,0.25]",
        *SMALL,
    )
    assert (code, err) == (0, "")
    assert "These are means over shares of moved points and 2 seeds, with 95 % intervals." in out
    (page,) = (tmp_path / "runs" / "evasion").glob("*/report.md")
    assert "published, over untreated" in page.read_text("utf-8")
    for file in page.parent.glob("*/result.json"):
        result = json.loads(file.read_text("utf-8"))
        samples = pd.read_parquet(file.parent / "per_sample.parquet")
        for arm, ways in result["arms"].items():
            for (share, protocol), own in samples[samples["arm"] == arm].groupby(["share", "protocol"]):
                for way in ("frozen", "bounded", "adaptive"):
                    anew = way != "frozen"  # such an attack leaves alone what is wrong already
                    after = own["clean"] & own[way] if anew else own[way]
                    right = own["clean"].where(~own["moved"], after)
                    found = ways[f"{protocol}_{way}"][f"{100 * share:g}"]
                    assert found == pytest.approx(100 * right.mean())
        # across the boundary all points are on the other side: right becomes wrong, and wrong right
        unbounded = samples[samples["moved"]]
        assert (unbounded["adaptive"] != unbounded["clean"]).mean() > 0.99


def test_what_it_cannot_say_is_one_line(command: Command, tmp_path: Path) -> None:
    code, _, err = command("task=evade")
    assert code == 2
    assert err == "defense: task=evade: the data have 10 classes; expected two\n"
    code, _, err = command("task=evade", "objective=utility")
    assert code == 2
    assert err.startswith(
        "defense: objective.weights=['utility']: not with task=evade; expected objective=robustness"
    )
    code, _, err = command("task=evade", "evade.ratio=1")
    assert code == 2
    assert err.startswith("defense: evade.ratio=1.0: expected a number above 1")
    code, _, err = command("task=evade", "evade.shares=[0.1,0.1]")
    assert (code, err) == (2, "defense: evade.shares=[0.1, 0.1]: expected shares that differ in six digits\n")
    code, _, err = command("task=evade", "evade.shares=[0.1234567,0.1234568]")  # of one name, and so of one key
    assert code == 2
    assert err.endswith("[0.1234567, 0.1234568]: expected shares that differ in six digits\n")
    code, _, err = command("task=evade", "evade.shares=[0.5,1.5]")
    assert code == 2
    assert err.startswith("defense: evade.shares=[0.5, 1.5]: expected fractions in (0, 1]")
