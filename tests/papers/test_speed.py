"""paper/speed through the whole command, smaller."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defense.config.choices import Direction, Members
from defense.influence import peers
from defense.pipeline.load import load_run
from defense.tasks.speed.run import is_plain, through_training
from tests.conftest import changed, scorer

Command = Callable[..., tuple[int, str, str]]
SMALL = [
    "experiment=paper/speed",
    "hydra.sweeper.params.model=mlp",
    "hydra.sweep.dir=sweep",
    "model.hidden=[8]",
    "speed.rounds=1",
    "train.epochs=2",
    "data.train_size=60",
    "data.validation_size=20",
    "store=own",
    "speed.scorers.lissa.iterations=5",
    "speed.scorers.cg.iterations=5",
    "speed.scorers.ip_ensemble.count=3",
]


@pytest.mark.slow
def test_the_experiment(command: Command, tmp_path: Path) -> None:
    """Every rival on every work, or said why not; the libraries compute what ip does; the control costs least."""
    works = "speed.works=[[40,16],[40,32]]"
    code, _, err = command(*SMALL, "hydra.sweeper.params.seed=0", works)
    assert code == 0, err
    result = json.loads((tmp_path / "sweep/0/result.json").read_text("utf-8"))
    names = {"lissa", "cg", "ekfac", "datainf", "tracin", "ip_ensemble", "loss", "random", "metagradient"}
    names |= {"captum_tracin", "dattri_tracin", "dattri_trak"}
    for work in result["speed"]["works"]:
        rivals = work["rivals"]
        assert rivals.keys() == names
        assert min(rivals, key=lambda name: rivals[name]["seconds"]) == "random"
        assert rivals["lissa"]["factor"] > 1 > rivals["loss"]["factor"]
        for name in ("captum_tracin", "dattri_tracin"):
            assert rivals[name]["agreement"] > 0.999
    assert result["speed"]["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    page = (tmp_path / "sweep/report.md").read_text("utf-8")
    assert (
        "On 40 training and 16 validation samples, other scorers take this many times as long as ip (one seed"
        in page
    )
    assert "Seconds against validation samples" in page
    assert "the same scores: captum_tracin, dattri_tracin." in page
    assert "should return the scores of ip" not in page


@pytest.mark.slow
def test_what_took_too_long_is_not_run_on_more(command: Command, tmp_path: Path) -> None:
    arguments = ["hydra.sweeper.params.seed=0", "speed.peers=[]", "speed.seconds=1e-9"]
    arguments += [
        f"~speed.scorers.{name}" for name in ("metagradient", "ekfac", "datainf", "tracin", "ip_ensemble")
    ]
    assert command(*SMALL, *arguments, "speed.works=[[40,16],[20,16],[40,32]]")[0] == 0
    result = json.loads((tmp_path / "sweep/0/result.json").read_text("utf-8"))
    run = [
        [name for name, rival in work["rivals"].items() if "factor" in rival] for work in result["speed"]["works"]
    ]
    assert [len(names) for names in run] == [4, 4, 0]
    assert result["speed"]["works"][2]["rivals"]["cg"]["skipped"]["train"] == 40
    assert "not run" in (tmp_path / "sweep/report.md").read_text("utf-8")


@pytest.mark.slow
def test_a_library_that_is_not_there(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said on the page; where it was asked for by name it is an error."""
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "dattri" else True)
    arguments = [*SMALL, "hydra.sweeper.params.seed=0", "speed.works=[[20,8]]"]
    dear = ("lissa", "cg", "metagradient", "ekfac", "datainf", "tracin", "ip_ensemble")
    left = [f"~speed.scorers.{name}" for name in dear]
    assert command(*arguments, *left)[0] == 0
    result = json.loads((tmp_path / "sweep/0/result.json").read_text("utf-8"))
    assert result["speed"]["missing"] == {"dattri_tracin": "dattri", "dattri_trak": "dattri"}
    assert result["speed"]["works"][0]["rivals"].keys() == {"loss", "random", "captum_tracin"}
    assert "not installed: pip install -e '.[peers]'" in (tmp_path / "sweep/0/report.md").read_text("utf-8")
    code, _, err = command(
        "task=speed", "objective=utility", "speed.peers=[captum_tracin,dattri_trak]", "store=own"
    )
    assert code == 2
    said = "defense: speed.peers=dattri_trak: dattri is not installed; expected pip install -e '.[peers]'"
    assert err.strip() == said


@pytest.mark.parametrize(
    "changes",
    [{"cosine": True}, {"members": Members.dropout}, {"direction": Direction.cg}, {"parameters": "head.*"}],
)
def test_libraries_compute_the_plain_inner_product_alone(changes: dict[str, Any]) -> None:
    assert is_plain(scorer())
    assert not is_plain(scorer(**changes))


BAD = {
    "speed.works=[]": "speed.works=[]: expected pairs of training and validation samples, as in [[256, 64]]",
    "speed.works=[[256]]": "speed.works=[[256]]: expected pairs",
    "speed.works=[[256,1]]": "speed.works=[[256, 1]]: expected pairs",
    "speed.rounds=0": "speed.rounds=0: expected a whole number of at least 1",
    "speed.seconds=0": "speed.seconds=0.0: expected a number above 0",
    "speed.peers=[]": "speed.scorers={}: expected a scorer, or speed.peers",
    "objective=robustness": "objective=robustness: peers know the mean loss alone; expected objective=utility",
    "scorer=oracle": "scorer=oracle: expected a scorer that needs no attack, no known noise",
    "scorer=confident_learning": "scorer=confident_learning: expected a scorer that needs no attack",
    "scorer.proxy=adversarial": "scorer=ip: expected proxy=null and seeds=1 for task=speed",
    "fabric.devices=2": "fabric.devices=2: expected one process for task=speed",
    "+speed.scorers.ip={method: loss}": "speed.scorers=ip: expected names other than that of the run's own scorer",
    "+speed.scorers.dattri_trak={method: loss}": "speed.scorers=dattri_trak: expected names other than those of",
    "+speed.scorers.x={iterations: 0}": "speed.scorers.x.iterations=0: expected a whole number of at least 1",
    "+speed.scorers.x={nonsense: 1}": "speed.scorers.x.nonsense=1: no such setting",
    "+speed.scorers.x=7": "speed.scorers.x=7: expected what it has other than scorer, as in {direction: ekfac}",
    "+scorer@speed.scorers.x=ip_attacked": "speed.scorers.x=x: expected a scorer that needs no attack",
    "+speed.scorers.x={parameters: nothing.*}": "scorer.parameters=nothing.*: matches none of",
}


@pytest.mark.parametrize("change", BAD)
def test_bad_input_is_one_line_before_any_compute(command: Command, tmp_path: Path, change: str) -> None:
    code, _, err = command("task=speed", "objective=utility", change)
    assert code == 2
    assert err.startswith(f"defense: {BAD[change]}")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs/store/train").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["train=converged"], "train.optimizer=lbfgs: expected sgd: speed.scorers.x is a metagradient"),
        (["train.ema=0.999"], "train.ema=0.999: after 80 steps the average still holds 92 % of the first weights"),
        (["model.dropout=0.5"], "scorer.method=metagradient: the network draws random numbers in training"),
    ],
)
def test_a_metagradient_is_refused_where_it_cannot_be(command: Command, changes: list[str], said: str) -> None:
    code, _, err = command("task=speed", "objective=utility", "+scorer@speed.scorers.x=metagradient", *changes)
    assert code == 2
    assert err.startswith(f"defense: {said}")


def test_what_is_timed_of_a_metagradient_are_the_scores_of_a_run(tmp_path: Path) -> None:
    words = [
        "data.train_size=60",
        "data.validation_size=20",
        "train.epochs=4",
        "train.batch_size=20",
        "train.ema=0.5",
    ]
    words += ["train.keep=last", "objective=utility", "scorer=metagradient", f"store={tmp_path}"]
    run = load_run(changed(*words))
    scored = run.baseline()
    scores = run.scores([scored]).table["score"].to_numpy()
    timed = through_training(run, run.data.train, run.seen(scored), run.config.scorer).scores
    np.testing.assert_array_equal(timed.numpy(), scores)
