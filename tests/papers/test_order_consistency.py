"""experiment=paper/order_consistency, whole, with one seed, two of its grounds and the shortest training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_order_consistency(command: Command, tmp_path: Path) -> None:
    grounds = "+experiment/paper/order_consistency: 'blobs_logistic,moons_mlp'"
    swept = "train.epochs: 1, data.harm_rate: 0.2, scorer: 'ip,ip_ensemble,random'"
    smaller = ["hydra.sweeper.params.seed=0", f"hydra.sweeper.params={{{swept}, {grounds}}}", "scorer.count=3"]
    code, out, error = command("experiment=paper/order_consistency", *smaller, "hydra.sweep.dir=out")
    assert code == 0, error
    for heading in ("By order_consistency", "By damping", "Against ip"):
        assert f"## {heading}" in out
    found = [json.loads((tmp_path / f"out/{cell}/result.json").read_text("utf-8")) for cell in range(6)]
    assert [result["config"]["scorer"]["name"] for result in found] == ["ip", "ip_ensemble", "random"] * 2
    assert [result["config"]["model"].get("hidden") for result in found] == [[]] * 3 + [[16, 16, 16]] * 3
    assert not any("points" in result for result in found)
    assert all(result["order"]["lowest_eigenvalue"] is not None for result in found)
    assert ["reference" in result["reused"] for result in found] == [False, True, True] * 2
    assert (tmp_path / "out/report.html").exists()
