"""What a scorer computes is known of every one that can be chosen, before hours are spent on timing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from defense.config.choices import Direction, Members, Method, Peer
from defense.config.schema import plain
from defense.tasks.speed.report import computed
from tests.conftest import DEFAULT, TINY, scorer

CONFIG = {"train": {"checkpoints": 3, "epochs": 7}}


@pytest.mark.parametrize("method", Method)
def test_every_method_is_described(method: Method) -> None:
    assert computed(plain(scorer(method=method)), CONFIG)


@pytest.mark.parametrize(("direction", "members"), [*product(Direction, Members)])
def test_every_direction_and_every_member_is_described(direction: Direction, members: Members) -> None:
    found = computed(plain(scorer(direction=direction, members=members, damping=0.125, cosine=True)), CONFIG)
    assert "{" not in found
    assert found.endswith(", as cosines")
    assert ("0.125" in found) is (direction is not Direction.identity)


@pytest.mark.parametrize("peer", Peer)
def test_every_library_is_described(peer: Peer) -> None:
    assert computed(peer.value, plain(DEFAULT))


def test_a_scorer_by_the_exact_hessian_is_timed_and_has_a_page(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    own = ["task=speed", "scorer=hessian", "model.hidden=[]", "speed.works=[[8,4]]", "speed.rounds=1"]
    code, _, error = command(
        *TINY[:-1], *own, "speed.peers=[]", "+scorer@speed.scorers.loss=loss", "hydra.run.dir=out"
    )
    assert code == 0, error
    assert json.loads((tmp_path / "out/result.json").read_text("utf-8"))["speed"]["works"][0]["seconds"] > 0
    assert "H the exact Hessian" in (tmp_path / "out/report.html").read_text("utf-8")
