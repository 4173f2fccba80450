"""A plan of a sweep says of every cell what a run of it then finds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from defense import training
from defense.cli import plan as planning
from defense.cli.plan import SweepPlan
from defense.config.choices import Task
from defense.config.compose import composed
from defense.errors import InputError
from defense.runtime.lock import locked
from defense.store.files import LOCK, PART, beside
from defense.store.store import FileCheckpointer
from defense.tasks.planning import plan as make_plan
from defense.tasks.registry import TASKS
from tests.cli.test_multirun import NET
from tests.conftest import TINY

Command = Callable[..., tuple[int, str, str]]
Plan = Callable[..., tuple[SweepPlan, str]]
SWEEP = ["-m", *TINY, "model={_target_: planned_net.net}", "store=store"]
FIRST, BOTH = "+model.fails=false", "+model.fails=false,true"


@pytest.fixture
def plan(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return a function that plans a sweep: (the plan, what the terminal shows)."""
    made: list[SweepPlan] = []
    own = planning.plan_cells
    monkeypatch.setattr(planning, "plan_cells", lambda *given: made.extend(own(*given)))

    def call(*words: str) -> tuple[SweepPlan, str]:
        made.clear()
        code, out, err = command(*words, "launcher=plan")
        assert (code, err) == (0, "")
        (found,) = made
        return found, out

    return call


def computed(folder: Path) -> dict[str, int]:
    """Return how many stages each cell of a sweep has computed, by its number; pages count for none."""
    found = {}
    for file in folder.glob("*/result.json"):
        result = json.loads(file.read_text("utf-8"))
        found[file.parent.name] = len(set(result["keys"]) - set(result["reused"]) - {"pages"})
    return found


def files_below(folder: Path) -> set[Path]:
    """Return every file and folder below one."""
    return set(folder.rglob("*"))


def test_every_line_is_what_the_sweep_then_finds(command: Command, plan: Plan, tmp_path: Path) -> None:
    """Cells 0 to 3: one has run, one has failed, one was killed and runs now, and its other half is left."""
    (tmp_path / "planned_net.py").write_text(NET)
    assert command(*SWEEP, "seed=0", BOTH, "hydra.sweep.dir=runs/mine/first")[0] == 1
    words = [*SWEEP, "seed=0,1", BOTH, "hydra.sweep.dir=runs/mine/second"]
    before = files_below(tmp_path)
    found, out = plan(*words)
    assert files_below(tmp_path) == before  # nothing is left behind
    log = tmp_path / "runs/mine/first/1/defense.log"
    said = [cell.state for cell in found.cells]
    assert said == ["done", f"failed: KeyError: 'a defect of mine' ({log.relative_to(tmp_path)})", "left", "left"]
    assert "4 cells, store store: 1 done, 1 failed, 2 left. Nothing was computed." in out
    _, failed, left, other = found.cells
    assert [stage.label for stage in failed.left] == [stage.label for stage in left.left]
    assert len(left.left) == 12
    assert [stage.label for stage in left.left][:2] == ["train baseline", "attack validation"]
    assert not {stage.entry for stage in left.left} & {stage.entry for stage in other.left}

    begun = tmp_path / "store" / left.left[0].entry
    FileCheckpointer(beside(begun, PART) / "progress").save("epoch", {"weights": torch.ones(1)})
    assert plan(*words)[0].cells[2].state == "left, goes on within train baseline"
    with locked(beside(begun, LOCK), "a training"):
        state = plan(*words)[0].cells[2].state
    assert re.fullmatch(rf"running: train baseline, process {os.getpid()} on \S+, since [-\d]+ [:\d]+", state)
    shutil.rmtree(beside(begun, PART))

    assert command(*words)[0] == 1
    assert computed(tmp_path / "runs/mine/second") == {"0": 0, "2": len(left.left)}
    assert plan(*words)[0].cells[2].state == "done"


def test_cells_share_what_both_would_compute(plan: Plan) -> None:
    found, out = plan("-m", *TINY, "scorer=ip,loss", "treatment.budget=0.1,7")
    ip, refused, loss, _ = found.cells
    assert refused.state == "refused: treatment.budget=7: expected a fraction in [0, 1), or auto"
    shared = {stage.label for stage in ip.left} & {
        stage.label for stage in ip.left if found.counts[stage.entry] == 2
    }
    assert shared == {
        "train baseline",
        "attack validation",
        "evaluate baseline",
        "train trusted",
        "evaluate trusted",
    }
    assert len(found.stages) == len(ip.left) + len(loss.left) - len(shared)
    assert "most similar entry of the store: not known." in out  # there is none
    assert "nearly match" not in out


def test_what_does_not_match_is_named(command: Command, plan: Plan) -> None:
    command(*TINY, "task=detect")
    found, out = plan("-m", *TINY, "task=detect", "train.epochs=2,3")
    assert [cell.state for cell in found.cells] == ["done", "left"]
    ((label, cells, entry, differ),) = found.unlike_rows()
    assert (label, cells, differ) == ("train baseline", "1", "arguments.training.recipe.epochs: 2, 3")
    assert Path("runs/store", entry, "manifest.json").exists()
    nearest = [found.nearest[stage.entry] for stage in found.cells[1].left]
    took = sum(each.seconds for each in nearest if each)
    assert took > 0
    assert float(found.seconds(found.cells[1].left)) == pytest.approx(took, abs=0.5)
    assert "differs in: there, here" in out


def test_a_single_run_is_planned_too(plan: Plan, tmp_path: Path) -> None:
    found, out = plan(*TINY, "task=detect")
    assert "1 cell, store runs/store: 1 left. Nothing was computed." in out
    assert [stage.label for stage in found.cells[0].left] == ["train baseline", "attack validation", "score"]
    assert not list(tmp_path.iterdir())


def test_other_code_is_named(command: Command, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    command(*TINY, "task=detect")
    monkeypatch.setattr(training, "VERSION", training.VERSION + 1)
    ((_, _, _, differ),) = plan("-m", *TINY, "task=detect", "seed=0")[0].unlike_rows()
    assert differ == f"code.training: {training.VERSION - 1}, {training.VERSION}"


@pytest.mark.parametrize(
    ("words", "complete"),
    [
        (["scorer=metagradient", "model=smooth_mlp"], True),
        (["task=repair", "objective=utility"], True),
        (["task=order", "order.reference=cg"], True),
        (["task=faithfulness", "faithfulness.subsets=random"], True),
        (["scorer=tracin", "scorer.proxy=adversarial", "scorer.seeds=2"], True),
        (["scorer=ip_attacked"], True),
        (["treatment=optimize"], False),  # its rounds depend on what the rounds before measured
        (["treatment.budget=auto"], False),
        (["data.harm=boundary"], False),  # the training samples do
    ],
)
def test_a_plan_says_whether_it_is_complete(words: list[str], complete: bool, tmp_path: Path) -> None:
    found = make_plan(composed(*TINY, f"store={tmp_path / 'store'}", *words))
    assert found.complete == complete
    assert found.left == found.stages
    assert len({stage.entry for stage in found.left}) == len(found.left) >= 2
    assert found.left[0].label.startswith("train ")  # nothing comes before a training
    assert not (tmp_path / "store").exists()


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.train_size"):
        make_plan(composed(f"store={tmp_path / 'store'}", "data.train_size=5000"))


def test_a_network_of_yours_is_planned_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text(NET)
    words = [*TINY, "task=detect", "model={_target_: own_net.net}", "launcher=plan"]
    done = subprocess.run(
        [sys.executable, "-m", "defense", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "1 cell, store runs/store: 1 left." in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_damaged_entry_is_left_to_do_and_left_alone(command: Command, plan: Plan, tmp_path: Path) -> None:
    command(*TINY, "task=detect")
    (training,) = (tmp_path / "runs/store/train").iterdir()
    (training / "weights.safetensors").write_bytes(b"damaged")
    before = files_below(tmp_path)
    (cell,) = plan(*TINY, "task=detect")[0].cells
    assert [stage.label for stage in cell.left] == ["train baseline", "attack validation", "score"]
    assert files_below(tmp_path) == before


def test_the_time_of_an_incomplete_plan_is_open(command: Command, plan: Plan) -> None:
    command(*TINY)
    found, out = plan(*TINY, "treatment=optimize", "treatment.rounds=2")
    assert not found.cells[0].complete
    assert found.rows()[0][-1].endswith(" or more")
    assert "and stages that depend on numbers that are not there yet" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "scorer=glob(zzz*)", "launcher=plan"], "a sweep without cells"),
        (["-m", "hydra/sweeper=basic", "seed=0,1", "launcher=plan"], "expected hydra/sweeper=grid"),
        (["-m", "launcher=plan,serial"], "launcher=plan,serial: swept; expected one for all cells"),
    ],
)
def test_a_sweep_that_cannot_be_planned_is_refused(
    command: Command, tmp_path: Path, words: list[str], said: str
) -> None:
    code, _, err = command(*words)
    assert code == 2
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_a_store_is_refused(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (cell,) = plan(*TINY, "store=file")[0].cells
    assert cell.state == "refused: store=file: a file; expected a folder"


def test_every_store_has_a_plan_of_its_own(command: Command) -> None:
    code, out, _ = command("-m", *TINY, "task=detect", "store=a,b", "launcher=plan")
    assert code == 0
    assert "1 cell, store a: 1 left." in out
    assert "1 cell, store b: 1 left." in out


def test_an_error_of_ours_is_no_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*given: object) -> None:
        raise AttributeError("a defect")

    monkeypatch.setitem(TASKS, Task.detect, broken)
    with pytest.raises(AttributeError, match="a defect"):
        make_plan(composed(*TINY, "task=detect", f"store={tmp_path / 'store'}"))
