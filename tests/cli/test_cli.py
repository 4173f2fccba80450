"""The command as a person types it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from defense.cli.errors import IN_ONE_LINE, one_line
from tests.conftest import TINY, run_in

Command = Callable[..., tuple[int, str, str]]


def finished(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.rglob("result.json"))


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    return content


def test_run_again_reuse_and_repeat_bit_for_bit(command: Command, tmp_path: Path) -> None:
    arguments = [*TINY, "evaluation.checked=10"]
    first_run, second_run, third_run = ([*arguments, f"hydra.run.dir=runs/{name}"] for name in ("a", "b", "c"))
    assert command(*first_run)[0] == 0
    code, out, _ = command(*second_run)
    assert code == 0
    assert "train baseline       from the store" in out
    first, second = result(tmp_path / "runs/a"), result(tmp_path / "runs/b")
    assert first["reused"] == []
    assert sorted(second["reused"]) == sorted(second["seconds"])
    assert first["seconds"] == second["seconds"]
    assert first["keys"] == second["keys"]
    assert first["keys"].keys() == first["seconds"].keys()
    assert all((tmp_path / "runs/store" / key / "manifest.json").exists() for key in first["keys"].values())
    for name in ("arms", "checks", "selection", "verdict", "sizes"):
        assert first[name] == second[name]
    pages = ["report.md", "report.html", "scores.csv", "scores.parquet", "per_sample.parquet"]
    for name in (*pages, *(f"figures/{file.name}" for file in (tmp_path / "runs/a/figures").iterdir())):
        assert (tmp_path / "runs/a" / name).read_bytes() == (tmp_path / "runs/b" / name).read_bytes()

    shutil.rmtree(tmp_path / "runs/store")
    assert command(*third_run)[0] == 0
    third = result(tmp_path / "runs/c")
    assert third["reused"] == []
    assert third["arms"] == first["arms"]
    scores = [pd.read_parquet(tmp_path / "runs" / name / "scores.parquet")["score"] for name in ("a", "c")]
    assert scores[0].to_numpy().tobytes() == scores[1].to_numpy().tobytes()


def test_result_has_the_promised_form(command: Command, tmp_path: Path) -> None:
    code, out, _ = command(*TINY, "hydra.run.dir=runs/a", "treatment.budget=0.2", "objective=utility")
    assert code == 0
    found = result(tmp_path / "runs/a")
    for arm in ("baseline", "control", "defended"):
        accuracies = found["arms"][arm]
        assert set(accuracies) == {"clean", "transfer", "adaptive"}
        assert set(accuracies["adaptive"]) == {"fgsm", "pgd", "apgd_t", "worst"}
        assert accuracies["adaptive"]["worst"] <= min(accuracies["adaptive"].values())
        assert 0 <= accuracies["adaptive"]["worst"] <= accuracies["clean"] <= 100
    assert found["arms"]["baseline"]["adaptive"]["worst"] == found["arms"]["baseline"]["transfer"]
    assert found["overrides"] == [*TINY, "treatment.budget=0.2", "objective=utility"]
    assert found["sizes"].items() >= {"train": 200, "validation": 60, "test": 80, "treated": 40}.items()
    assert found["selection"]["noise"] == 0.2
    assert set(found["versions"]) >= {"defense", "python", "torch", "torchattacks"}
    assert found["config"]["treatment"]["budget"] == 0.2
    assert found["verdict"] in out

    scores = pd.read_parquet(tmp_path / "runs/a/scores.parquet")
    csv = pd.read_csv(tmp_path / "runs/a/scores.csv")
    assert scores["id"].is_unique
    assert csv["id"].tolist() == scores["id"].tolist()
    np.testing.assert_allclose(csv["score"], scores["score"], rtol=1e-5)
    noisy, taken = scores["label"] != scores["truth"], scores["treated"]
    assert int(taken.sum()) == 40
    labels = scores["label"][taken].tolist()
    assert found["sizes"]["of_one_class"] == max(labels.count(label) for label in labels)
    assert scores["score"][taken].max() <= scores["score"][~taken].min()
    assert found["selection"]["precision"] == pytest.approx(float(noisy[taken].mean()))
    assert found["selection"]["recall"] == pytest.approx(float(taken[noisy].mean()))
    pairs = [(a < b) + 0.5 * (a == b) for a in scores["score"][noisy] for b in scores["score"][~noisy]]
    assert found["selection"]["auc"] == pytest.approx(np.mean(pairs))

    samples = pd.read_parquet(tmp_path / "runs/a/per_sample.parquet")
    worst = samples[samples["arm"] == "defended"]["adaptive.worst"]
    assert 100 * float(worst.mean()) == pytest.approx(found["arms"]["defended"]["adaptive"]["worst"])


MASKED = """
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self, classes, noise=0.0):
        super().__init__(nn.Flatten(), nn.Linear(64, classes))
        self.noise = noise

    def forward(self, x):
        if self.training:
            return super().forward(x)
        return super().forward(x + self.noise * torch.randn_like(x)) * (1 if self.noise else 1e5)
"""


@pytest.mark.slow
def test_what_masks_its_gradients_is_said_at_the_top(command: Command, tmp_path: Path) -> None:
    """In the terminal, under the verdict of both pages, in result.json, and on the page of a sweep."""
    (tmp_path / "masked_network.py").write_text(MASKED)
    arguments = [
        *TINY,
        "evaluation.checked=40",
        "train.epochs=10",
        "model._target_=masked_network.Net",
        "scorer=random",
    ]
    code, out, _ = command("-m", *arguments, "+model.noise=0,0.3", "hydra.sweep.dir=sweep")
    sys.modules.pop("masked_network")
    assert code == 0
    saturated, noisy = (result(tmp_path / f"sweep/{cell}") for cell in (0, 1))
    for arm in ("baseline", "control", "defended"):
        assert saturated["checks"][arm]["gradients"]["flagged"]
        assert not saturated["checks"][arm]["repeatable"]["flagged"]
        assert noisy["checks"][arm]["repeatable"]["found"] == 40
        assert not noisy["checks"][arm]["gradients"]["flagged"]
        curve = noisy["checks"][arm]["falls"]["numbers"]
        assert curve["eps"][0] == 0
        assert len(curve["eps"]) == len(curve["accuracy"]) == 7
    said = "Not to be believed without a closer look: "
    assert sum(line.startswith(said) for line in out.splitlines()) == 2
    for form in ("md", "html"):
        page = (tmp_path / f"sweep/0/report.{form}").read_text("utf-8")
        assert page.index(said) < page.index("adaptive, worst")
        assert "gradients are zero or not finite (every arm)" in page
    page = (tmp_path / "sweep/report.md").read_text("utf-8")
    assert "Health checks flag 2 of 2 cells: +model.noise=0 seed=0" in page


def test_health_checks_can_be_left_out(command: Command, tmp_path: Path) -> None:
    code, out, _ = command(*TINY, "hydra.run.dir=runs/a")
    assert code == 0
    assert "check baseline" not in out
    assert result(tmp_path / "runs/a")["checks"] == {}
    for form in ("md", "html"):
        assert "The health checks were left out" in (tmp_path / f"runs/a/report.{form}").read_text("utf-8")
    assert not (tmp_path / "runs/a/figures/checks.svg").exists()


def test_a_budget_of_nothing_trains_once(command: Command, tmp_path: Path) -> None:
    assert command(*TINY, "treatment.budget=0", "hydra.run.dir=runs/a")[0] == 0
    found = result(tmp_path / "runs/a")
    assert set(found["reused"]) >= {"train_control", "train_defended"}
    assert found["arms"]["control"] == found["arms"]["baseline"] == found["arms"]["defended"]
    assert found["selection"]["precision"] is None
    assert found["verdict"].startswith("Nothing was treated")


def test_own_arrays_and_human_noise(command: Command, npz: Path, tmp_path: Path) -> None:
    arguments = [
        "data=npz",
        f"data.path={npz}",
        "data.train_labels=train_y_noisy",
        "data.validation_size=12",
        "train.epochs=1",
        "threat.norm=L2",
        "threat.eps=0.5",
        "model=cnn",
        "model.width=4",
        "hydra.run.dir=runs/a",
    ]
    assert command(*arguments)[0] == 0
    found = result(tmp_path / "runs/a")
    scores = pd.read_parquet(tmp_path / "runs/a/scores.parquet")
    assert ((scores["label"] != scores["truth"]) == (scores["id"] < 12)).all()
    assert found["selection"]["noise"] == pytest.approx(float((scores["id"] < 12).mean()))
    assert found["config"]["threat"] == {"norm": "L2", "eps": 0.5}


def test_standard_evaluation_adds_autoattack(command: Command, tmp_path: Path) -> None:
    arguments = ["evaluation=standard", "evaluation.attacks.square.queries=10", "data.test_size=20"]
    arguments += [f"evaluation.attacks.{name}.steps=3" for name in ("apgd_ce", "apgd_t", "fab_t")]
    arguments += ["hydra.run.dir=runs/a"]
    assert command(*TINY, *arguments)[0] == 0
    for arm in result(tmp_path / "runs/a")["arms"].values():
        assert set(arm["adaptive"]) == {"pgd", "apgd_ce", "apgd_t", "fab_t", "square", "worst"}
        after = list(arm["adaptive"].values())
        assert after == sorted(after, reverse=True)


def test_a_sweep_over_seeds_and_its_summary(command: Command, tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    from defense.cli.report import main as report

    assert command("-m", *TINY, "seed=range(3)", "hydra.sweep.dir=runs/sweep")[0] == 0
    runs = finished(tmp_path / "runs/sweep")
    assert len(runs) == 3
    gains = [
        result(run)["arms"]["defended"]["adaptive"]["pgd"] - result(run)["arms"]["control"]["adaptive"]["pgd"]
        for run in runs
    ]
    report([str(tmp_path / "runs/sweep")])
    out = capfd.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("| adaptive, after pgd"))
    assert f"{np.mean(gains):+.1f} (" in row
    assert "over 3 seeds" in out
    command_line = f"    defense -m {' '.join(TINY)} 'seed=range(3)'   # 3 cells\n"  # as it was given
    assert command_line in (tmp_path / "runs/sweep/report.md").read_text("utf-8")


OF_TREATMENT = "budget, name, budgets, names, held_out, threshold, balance, rounds, rate, confidence, discrete"
TREATMENT = f"expected one of {OF_TREATMENT}"
BAD = {
    "an unknown choice of a group": (["scorer=magic"], ["scorer=magic: expected one of", "ip", "random"]),
    "an unknown field": (
        ["treatment.budgett=0.1"],
        [
            "treatment.budgett",
            TREATMENT,
        ],
    ),
    "a budget of one": (["treatment.budget=1"], ["treatment.budget=1:", "[0, 1)"]),
    "a negative budget": (["treatment.budget=-0.1"], ["treatment.budget=-0.1", "[0, 1)"]),
    "a budget that is no number": (["treatment.budget=much"], ["treatment.budget", "much"]),
    "eps of zero": (["threat.eps=0"], ["threat.eps=0", "above 0"]),
    "a negative eps": (["threat.eps=-8/255"], ["threat.eps=-8/255", "above 0"]),
    "eps that is no number": (["threat.eps=big"], ["threat.eps=big", "8/255"]),
    "an unknown norm": (["threat.norm=L7"], ["threat.norm", "L7", "Linf, L2"]),
    "no steps": (["attack.steps=0"], ["attack.steps=0", "at least 1"]),
    "no steps of training's attack": (["train.attack_steps=0"], ["train.attack_steps=0", "at least 1"]),
    "an unknown epoch to keep": (["train.keep=best"], ["train.keep", "best", "robust, last, clean"]),
    "an unknown recipe": (["train.recipe=free"], ["train.recipe", "free", "standard, adversarial, fast, trades"]),
    "a proxy of an unknown recipe": (["scorer.proxy=free"], ["scorer.proxy", "free", "fast, trades"]),
    "a decay of one": (["train.ema=1"], ["train.ema=1.0", "0.995"]),
    "no epochs": (["train.epochs=0"], ["train.epochs=0", "at least 1"]),
    "a file that is not there": (["data=npz", "data.path=no.npz"], ["data.path=no.npz", "no such path"]),
    "no file given": (["data=npz"], ["data.path=null", "expected an .npz file"]),
    "labels for a source without": (["data.train_labels=y"], ["data.train_labels=y", "data=npz"]),
    "a split larger than the data": (["data.train_size=99999"], ["data.train_size=99999", "1047"]),
    "a split smaller than the classes": (["data.validation_size=3"], ["data.validation_size=3", "10"]),
    "an unknown dotted path": (["model._target_=no.Net"], ["model._target_=no.Net", "cannot be imported"]),
    "a model of another width": (
        ["model._target_=tests.models.test_build.Narrow"],
        ["(8, 3)", "(8, 10)"],
    ),
    "an unknown argument of the model": (["model.widht=3"], ["widht"]),
    "a field that was added": (
        ["+treatment.budgt=0.5"],
        [
            "treatment.budgt=0.5",
            TREATMENT,
        ],
    ),
    "a path that is not read": (["data.path=my.npz"], ["data.path=my.npz", "data=npz"]),
    "eps of Linf for L2": (["threat.norm=L2"], ["threat.eps=0.1", "L2"]),
    "no eps": (["threat.eps=0"], ["threat.eps=0", "a number above 0"]),
    "an eps that float32 cannot hold": (["threat.eps=1e-8"], ["threat.eps=1e-08", "at least 1e-06"]),
    "a half of a schedule without a step": (["attack=pma", "attack.steps=1"], ["attack.steps=1", "at least 2"]),
    "an eps beyond all pixels": (["threat.eps=2"], ["threat.eps=2", "at most 1"]),
    "an infinite rate": (["train.learning_rate=inf"], ["train.learning_rate=inf"]),
    "a crop larger than a picture": (["train.crop=8"], ["train.crop=8", "less than the side"]),
    "an unknown attack": (["evaluation.attacks.x={name:deepfoolish}"], ["evaluation.attacks.x", "fgsm, pgd"]),
    "half precision on the CPU": (["fabric.precision=16-mixed", "fabric.accelerator=cpu"], ["fabric.precision"]),
    "a store that is a file": (["store=/dev/null/x"], ["store=/dev/null/x", "folder"]),
    "an output that is a file": (["hydra.run.dir=/dev/null/x"], ["/dev/null/x"]),
    "parameters that are not there": (["scorer.parameters=tail"], ["scorer.parameters=tail", "2.weight"]),
    "an oracle that knows nothing": (["scorer=oracle", "data.harm=none"], ["scorer=oracle", "known noise"]),
    "a harm on nobody": (["data.harm_rate=0"], ["data.harm_rate=0.0", "(0, 1)"]),
    "a harm on everybody": (["data.harm_rate=1"], ["data.harm_rate=1.0", "(0, 1)"]),
    "an unknown harm": (["data.harm=curse"], ["data.harm", "curse", "symmetric, pair, boxes, boundary, trigger"]),
    "a harm on a fraction of a sample": (["data.harm_rate=1e-4"], ["data.harm_rate=0.0001", "1047"]),
    "a harm on known noise": (
        ["data=npz", "data.path=my.npz", "data.train_labels=y", "data.harm=pair"],
        ["data.harm=pair", "expected none"],
    ),
    "a target that is no class": (["data.harm=trigger", "data.harm_target=10"], ["data.harm_target=10", "0 to 9"]),
    "a target below the classes": (["data.harm_target=-1"], ["data.harm_target=-1", "from 0 up"]),
    "a patch larger than a picture": (
        ["data.harm=trigger", "data.harm_patch=9"],
        ["data.harm_patch=9", "at most 8"],
    ),
    "a patch of nothing": (["data.harm_patch=0"], ["data.harm_patch=0", "at least 1"]),
    "a poison that is no number": (["data.harm_eps=big"], ["data.harm_eps=big", "8/255"]),
    "a poison beyond all pixels": (["data.harm_eps=1.5"], ["data.harm_eps=1.5", "at most 1"]),
    "more triggers than there are samples": (
        ["data.harm=trigger", "data.harm_rate=0.95"],
        ["data.harm_rate=0.95", "not of data.harm_target"],
    ),
    "fairness without groups": (["objective=demographic_parity"], ["two groups"]),
    "a seed below zero": (["seed=-1"], ["seed=-1: expected a whole number of at least 0"]),
    "one file for training and test": (
        ["data=table", "data.path=a.csv", "data.target=y", "data.test_path=./a.csv"],
        ["data.test_path=./a.csv: expected another file than data.path"],
    ),
    "no term": (["objective.weights.robustness=0"], ["objective.weights", "a weight for a term, other than 0"]),
    "an unknown term": (["objective.weights.beauty=1"], ["beauty", "equal_opportunity"]),
    "a damping of zero": (["scorer.damping=0"], ["scorer.damping=0", "above 0"]),
    "an unknown precision of scores": (["scorer.precision=fp8"], ["scorer.precision=fp8", "32-true, tf32, bf16"]),
    "a precision that does nothing": (
        ["scorer.precision=tf32", "fabric.accelerator=cpu"],
        ["scorer.precision=tf32", "no effect on cpu"],
    ),
    "compiling that is no yes or no": (["scorer.compile=perhaps"], ["scorer.compile", "perhaps"]),
    "fewer samples to check than none": (["evaluation.checked=-1"], ["evaluation.checked=-1", "or 0 for no"]),
    "a batch of none": (["scorer.batch_size=0"], ["scorer.batch_size=0", "at least 1"]),
    "an unknown balance": (["treatment.balance=yes"], ["treatment.balance=yes", "none, class"]),
    "an unknown precision": (["fabric.precision=8"], ["fabric.precision=8", "bf16-mixed"]),
    "an unknown accelerator": (["fabric.accelerator=abacus"], ["fabric.accelerator=abacus"]),
    "broken grammar": (["treatment.budget=[1"], ["treatment.budget=[1"]),
    "a class that vanishes": (
        [*TINY, "treatment.budget=0.99"],
        ["treatment.budget=0.99", "leaves no sample of class"],
    ),
}


OF_HYDRA = (  # what composing says, or Hydra itself; and one that a check says, for the way to exit code 2
    "an unknown choice of a group", "an unknown field", "a field that was added", "a budget that is no number",
    "an unknown norm", "broken grammar", "an output that is a file", "compiling that is no yes or no",
    "a class that vanishes", "eps of zero", "an unknown dotted path", "an unknown epoch to keep",
    "an unknown recipe", "a proxy of an unknown recipe", "an unknown harm",
)  # fmt: skip


@pytest.mark.parametrize("name", OF_HYDRA)
def test_bad_input_is_one_line_and_exit_code_2(command: Command, tmp_path: Path, name: str) -> None:
    arguments, words = BAD[name]
    code, _, err = command(*arguments)
    lines = err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0]
    assert name == "a class that vanishes" or not list((tmp_path / "runs").glob("store/*/*"))
    assert not finished(tmp_path)


@pytest.mark.parametrize("name", [name for name in BAD if name not in OF_HYDRA])
def test_bad_input_is_found_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = BAD[name]
    with pytest.raises(IN_ONE_LINE) as error:  # of these the command makes one line
        run_in(tmp_path / "run", *arguments)
    said = one_line(error.value)
    assert "\n" not in said
    for word in words:
        assert word in said
    assert not list((tmp_path / "runs").glob("store/*/*"))


def test_a_score_that_is_not_finite_is_one_line_and_exit_code_2(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from defense.influence import scorers

    def broken(model: Any, split: Any, batch_size: int | None, **others: Any) -> Any:
        predictions, losses = predict_with_losses(model, split, batch_size, **others)
        losses[5] = np.nan
        rows.append(int(split.ids[5]))
        return predictions, losses

    rows: list[int] = []
    predict_with_losses = scorers.predict_with_losses
    monkeypatch.setattr(scorers, "predict_with_losses", broken)
    code, _, err = command(*TINY, "scorer=loss")
    assert code == 2
    assert err.strip().splitlines()[-1] == f"defense: the score of training sample {rows[0]} is not finite"
    assert "Traceback" not in err
    assert not finished(tmp_path)


def test_bad_input_in_a_sweep_names_the_cell(command: Command) -> None:
    code, _, err = command("-m", *TINY, "treatment.budget=2,3")
    assert code == 1
    assert err.splitlines()[0].startswith("defense: cell 0 failed: treatment.budget=2: expected a fraction")
    assert "defense: cell 1 failed: treatment.budget=3: expected a fraction in [0, 1)" in err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--help"], marks=pytest.mark.slow),
        pytest.param(["--cfg", "job"], marks=pytest.mark.slow),
        ["treatment.budget=2"],
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys, atexit\n"
        "heavy = ('torch', 'pandas', 'sklearn', 'scipy', 'matplotlib', 'lightning_fabric', 'torchattacks')\n"
        "atexit.register(lambda: print('HEAVY', [name for name in heavy if name in sys.modules]))\n"
        "from defense.__main__ import main\n"
        f"sys.argv = ['defense', *{arguments!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode in (0, 2), done.stderr
    assert "HEAVY []" in done.stdout
    if arguments == ["--help"]:
        for group in ("data", "model", "train", "attack", "objective", "scorer", "treatment", "evaluation"):
            assert f"\n{group}: " in done.stdout
        assert "\ntrain.beta: recipe=trades\n" in done.stdout


@pytest.mark.slow
def test_stopping_leaves_nothing_half_written_that_is_believed(tmp_path: Path) -> None:
    """Ctrl-C in the middle of training: exit code 130, one line, and the next run computes the stage."""
    import signal

    arguments = ["-m", "defense", *TINY, "train.epochs=100000", "hydra.run.dir=runs/a"]
    job = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in what runs in the background
    )
    lock = tmp_path / "runs/store/train"
    while not lock.exists() and job.poll() is None:
        time.sleep(0.05)
    try:
        job.wait(timeout=3)
    except subprocess.TimeoutExpired:
        job.send_signal(signal.SIGINT)
    try:
        _, err = job.communicate(timeout=60)
    finally:
        job.kill()
    assert job.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith("defense: stopped")
    assert not [path for path in lock.iterdir() if path.is_dir() and path.suffix != ".part"]
    assert not finished(tmp_path)
