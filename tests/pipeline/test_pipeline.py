"""What a stage is computed from is in its key: a changed setting recomputes what depends on it, and that alone."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from defense.config.compose import composed
from defense.data.images import TensorImages
from defense.data.load import load
from defense.models.build import build
from defense.randomness import derive
from defense.runtime.progress import no_progress
from defense.stages.retrain import parts_of_train
from tests.calls import perturb
from tests.conftest import TINY, computed_in, result_of, run_in
from tests.reference import inner_products

Command = Callable[..., tuple[int, str, str]]

TRAINED = {"train_baseline", "train_control", "train_defended", "train_trusted"}
TREATED = {"control", "treat_defended"}
EVALUATED = {"evaluate_baseline", "evaluate_control", "evaluate_defended", "evaluate_trusted"}
AFTER_BASELINE = {"attack_validation", "score", "treat_defended", "train_defended"} | EVALUATED
SCORED = {"score", "train_defended", "evaluate_defended"} | TREATED
RETRAINED = TREATED | {"train_control", "train_defended", "evaluate_control", "evaluate_defended"}
EVERYTHING = TRAINED | TREATED | AFTER_BASELINE

CHANGES = {
    "seed=1": EVERYTHING,
    "threat.eps=0.05": {"attack_validation"} | SCORED | EVALUATED,
    "attack.steps=2": {"attack_validation"} | SCORED,
    "objective=utility": SCORED,
    "scorer=random": SCORED,
    "objective.weights.utility=0.5": SCORED,
    "scorer=ip_ensemble": SCORED,
    "scorer.attacked_train=true": SCORED | {"attack_train"},
    "treatment.budget=0.2": RETRAINED,
    "treatment.balance=class": RETRAINED,
    "treatment=relabel": RETRAINED,
    "treatment=reweight": RETRAINED,
    "evaluation.attacks.pgd.steps=3": EVALUATED,
    "data.test_size=90": None,  # the test split is drawn first: everything may move
}
RETRAINS = [  # the baseline, and with it all that has its key in its own
    "data.harm_rate=0.1", "data.harm=pair", "data.train_size=210", "model.hidden=[8]", "train.epochs=1",
    "train.learning_rate=0.02", "train.crop=1", "fabric.precision=bf16-mixed", "train.ema=0.5",
    "train=trades",
]  # fmt: skip
UNREAD = [
    "name=other",
    "train.keep=last",  # what the standard recipe does
    "train.attack_steps=3",  # not read by the standard recipe, nor the next two
    "train.beta=3",
    "train.validation_steps=3",
    "train.tolerance=0.1",  # not read by sgd
    "data.harm_target=1",  # not read by symmetric flips
    "data.harm_eps=0.3",
]


@pytest.fixture(scope="module")
def run_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the run that all changes are changes of, its checks included."""
    folder = tmp_path_factory.mktemp("store")
    run_in(folder / "before", *TINY, f"store={folder}", "evaluation.checked=10")
    return folder


@pytest.fixture
def store(run_before: Path, tmp_path: Path) -> Path:
    """A copy of that store, so that no test finds what another has computed."""
    return shutil.copytree(run_before, tmp_path / "store")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_recomputes_what_depends_on_it(store: Path, tmp_path: Path, change: str) -> None:
    run_in(tmp_path / "after", *TINY, f"store={store}", change)
    computed, expected = computed_in(tmp_path / "after"), CHANGES[change]
    if expected is None:
        assert computed >= EVALUATED
    else:
        # the same samples can be removed by another score: retraining is then rightly reused
        assert computed <= expected
        assert expected - computed <= RETRAINED - TREATED


@pytest.mark.parametrize("change", RETRAINS)
def test_a_change_of_training_trains_the_baseline_again(store: Path, tmp_path: Path, change: str) -> None:
    run_in(tmp_path / "after", *TINY, f"store={store}", "task=detect", change)
    assert computed_in(tmp_path / "after") == {"train_baseline", "attack_validation", "score"}


def test_a_model_of_the_same_weights_is_scored_once(store: Path, tmp_path: Path) -> None:
    """Inputs enter by content: if another rule keeps the same epoch, only the training is computed again."""
    run_in(tmp_path / "after", *TINY, f"store={store}", "task=detect", "train.keep=robust")
    weights = [
        load_file(store / result_of(folder)["keys"]["train_baseline"] / "weights.safetensors")
        for folder in (store / "before", tmp_path / "after")
    ]
    same = all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    after = set() if same else {"attack_validation", "score"}
    assert computed_in(tmp_path / "after") == {"train_baseline"} | after


def test_a_change_that_nothing_reads_recomputes_nothing(store: Path, tmp_path: Path) -> None:
    run_in(tmp_path / "after", *TINY, f"store={store}", *UNREAD)
    assert computed_in(tmp_path / "after") == set()


UNREAD_BY_SCORERS = {  # settings that a scorer does not read, and others that look at the same
    "scorer=ip": [
        "scorer.name=other",
        "scorer.damping=0.3",
        "scorer.count=7",
        "scorer.folds=3",
        "scorer.scale=0.1",
    ],
    "scorer=loss": [
        "objective=utility",
        "scorer.attacked_train=true",
        "scorer.cosine=true",
        "scorer.parameters=x",
    ],
    "scorer=random": ["objective=utility", "scorer.direction=cg", "scorer.members=dropout"],
    "scorer=datainf": ["scorer.iterations=3", "scorer.tolerance=0.5"],
}


@pytest.mark.parametrize("scorer", UNREAD_BY_SCORERS)
def test_a_score_is_not_computed_again_for_what_its_scorer_does_not_read(
    store: Path, tmp_path: Path, scorer: str
) -> None:
    arguments = [*TINY, f"store={store}", "task=detect", scorer]
    first = run_in(tmp_path / "first", *arguments)
    for number, change in enumerate(UNREAD_BY_SCORERS[scorer]):
        again = run_in(tmp_path / str(number), *arguments, change)
        assert again["keys"]["score"] == first["keys"]["score"], change
        assert not computed_in(tmp_path / str(number)), change


def test_cells_of_a_grid_share_the_trainings_that_have_the_same_samples(tmp_path: Path) -> None:
    """Two scorers, three budgets, two seeds: of 48 trainings all but those of defended arms are shared."""
    store, asked = tmp_path / "store", 0
    for seed in (1, 2):
        for scorer in ("random", "oracle"):
            for budget in (0.05, 0.1, 0.2):
                folder = tmp_path / f"{seed} {scorer} {budget}"
                words = [f"seed={seed}", f"scorer={scorer}", f"treatment.budget={budget}"]
                found = run_in(folder, *TINY, f"store={store}", *words)
                asked += sum(label.startswith("train_") for label in found["keys"])
    assert asked == 48
    baselines, trusted, controls, defended = 2, 2, 2 * 3, 2 * 2 * 3
    assert len(list(store.glob("train/*/manifest.json"))) == baselines + trusted + controls + defended


CHECKS = {"check_baseline", "check_control", "check_defended"}
RECHECKED = {
    "evaluation.checked=12": CHECKS,
    "evaluation.checked=0": set(),
    "evaluation.batch_size=64": CHECKS,
    "threat.eps=0.05": CHECKS,
    "threat={norm: L2, eps: 0.5}": CHECKS,
    "treatment.budget=0.2": {"check_control", "check_defended"},
    "evaluation.attacks.pgd.steps=3": set(),  # judged anew, from the same samples
}


@pytest.mark.parametrize("change", RECHECKED)
def test_a_check_depends_on_the_model_and_the_threat_and_not_on_the_suite(
    store: Path, tmp_path: Path, change: str
) -> None:
    words = [*TINY, f"store={store}", "evaluation.checked=10", "evaluation.trusted=false"]
    run_in(tmp_path / "after", *words, change)
    found, computed = result_of(tmp_path / "after"), computed_in(tmp_path / "after")
    assert computed & CHECKS == RECHECKED[change] - set(found["reused"])
    assert RECHECKED[change] - computed <= CHECKS - {"check_baseline"}
    assert list(found["checks"]) == (
        ["baseline", "control", "defended"] if change != "evaluation.checked=0" else []
    )


OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = self.twin = nn.Linear(64, classes)  # tied
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return (self.head(torch.tanh(x.flatten(1))) + self.twin(x.flatten(1))) / 2
"""


def test_a_users_file_is_part_of_the_key(command: Command, tmp_path: Path) -> None:
    """A network with tied weights and unused parameters runs through; an edited file is noticed."""
    arguments = [*TINY, "train.epochs=5", "model._target_=own_network.Net", "seed=3"]
    (tmp_path / "own_network.py").write_text(OWN)
    assert command(*arguments, "hydra.run.dir=a")[0] == 0
    first = json.loads((tmp_path / "a/result.json").read_text("utf-8"))
    assert command(*arguments, "hydra.run.dir=b")[0] == 0
    assert set(json.loads((tmp_path / "b/result.json").read_text("utf-8"))["reused"]) == set(first["seconds"])
    (tmp_path / "own_network.py").write_text(OWN.replace("tanh", "sin"))
    sys.modules.pop("own_network")
    assert command(*arguments, "hydra.run.dir=c")[0] == 0
    assert "train_baseline" not in json.loads((tmp_path / "c/result.json").read_text("utf-8"))["reused"]
    sys.modules.pop("own_network")


SITES = {
    "scorer.proxy=adversarial": {"train_proxy", "attack_validation_proxy", "score_proxy", "evaluate_proxy"},
    "scorer.seeds=2": {
        "train_baseline_seed1",
        "attack_validation_baseline_seed1",
        "score_baseline_seed1",
        "score_mean",
    },
    "train.checkpoints=3": {"train_baseline"},
    "scorer=tracin": {"score"},  # the checkpoints are there
}


@pytest.mark.parametrize("change", SITES)
def test_what_is_scored_at_is_computed_once(store: Path, tmp_path: Path, change: str) -> None:
    """A proxy or another seed is a training like any other, shared through the store."""
    arguments = [*TINY, f"store={store}"]
    run_in(tmp_path / "after", *arguments, change)
    computed = computed_in(tmp_path / "after")
    assert computed - RETRAINED - AFTER_BASELINE <= SITES[change]
    assert computed >= SITES[change] - RETRAINED
    again = run_in(tmp_path / "again", *arguments, change, "scorer.cosine=true")
    assert {
        stage for stage in again["seconds"] if stage.startswith(("train_base", "train_proxy", "attack"))
    } <= set(again["reused"])


@pytest.mark.parametrize("name", ["adversarial", "fast", "trades"])
def test_a_proxy_is_the_baseline_of_its_recipe(store: Path, tmp_path: Path, name: str) -> None:
    arguments = [*TINY, f"store={store}", "task=detect"]
    run_in(tmp_path / "proxy", *arguments, f"scorer.proxy={name}")
    found = run_in(tmp_path / "own", *arguments, f"train={name}")
    assert {"train_baseline", "attack_validation", "score"} <= set(found["reused"])


def test_several_seeds_are_averaged_and_a_proxy_is_another_model(store: Path, tmp_path: Path) -> None:
    arguments = [*TINY, f"store={store}", "task=detect"]
    tables = {}
    for name, change in (("one", []), ("two", ["scorer.seeds=2"]), ("proxy", ["scorer.proxy=adversarial"])):
        run_in(tmp_path / name, *arguments, *change)
        tables[name] = pd.read_parquet(tmp_path / name / "scores.parquet")
    two = tables["two"]
    assert np.allclose(two["score"], (two["score.baseline"] + two["score.baseline_seed1"]) / 2)
    assert np.array_equal(two["score.baseline"], tables["one"]["score"])
    assert abs(np.corrcoef(two["score.baseline"], two["score.baseline_seed1"])[0, 1]) < 0.999
    assert not np.allclose(tables["proxy"]["score"], tables["one"]["score"])


def test_detect(command: Command, store: Path, tmp_path: Path) -> None:
    arguments = [*TINY, f"store={store}", "task=detect", "scorer=loss", "treatment.budget=0.2"]
    assert command(*arguments, "hydra.run.dir=out")[0] == 0
    found = json.loads((tmp_path / "out/result.json").read_text("utf-8"))
    table = pd.read_parquet(tmp_path / "out/scores.parquet")
    wrong = (table["label"] != table["truth"]).to_numpy()
    pairs = table["score"].to_numpy()[wrong][:, None] < table["score"].to_numpy()[~wrong][None]
    assert found["selection"]["auc"] == pytest.approx(pairs.mean())
    lowest = table["score"].rank(method="first") <= round(0.2 * len(table))
    assert found["selection"]["recall"] == pytest.approx((lowest & wrong).sum() / wrong.sum())
    assert found["recall_curve"][20] == pytest.approx(found["selection"]["recall"])
    assert (found["recall_curve"][0], found["recall_curve"][-1]) == (0, 1)
    assert (tmp_path / "out/report.html").exists()
    code, _, error = command(*TINY, "task=detect", "data.harm=none")
    assert (code, "task=detect: expected data with known noise" in error) == (2, True)


@pytest.mark.parametrize(
    "changes", [["model=logistic", "train=converged", "faithfulness.subsets=leave_one_out"], []]
)
def test_faithfulness(command: Command, store: Path, tmp_path: Path, changes: list[str]) -> None:
    arguments = [
        *TINY,
        f"store={store}",
        "task=faithfulness",
        "faithfulness.count=6",
        "objective=utility",
        *changes,
    ]
    assert command(*arguments, "faithfulness.targets=3", "hydra.run.dir=out")[0] == 0
    found = json.loads((tmp_path / "out/result.json").read_text("utf-8"))
    assert len(found["faithfulness"]["targets"]) == 3
    assert found["faithfulness"]["spearman"] == pytest.approx(np.mean(found["faithfulness"]["targets"]))
    assert found["faithfulness"]["retrainings"] == 6
    assert command(*arguments, "scorer=loss", "hydra.run.dir=other")[0] == 0
    other = json.loads((tmp_path / "other/result.json").read_text("utf-8"))
    assert {"retrain", "train_baseline", "attack_validation"} <= set(other["reused"])
    assert command(*arguments, "faithfulness.targets=61")[0] == 2


def test_the_datamodelling_score_by_hand(command: Command, store: Path, tmp_path: Path) -> None:
    """Every target, half and retrained model in a loop, from what the stages left in the store."""
    arguments = [*TINY, f"store={tmp_path / 'own'}", "task=faithfulness", "faithfulness.count=5", "scorer=ip"]
    arguments += ["faithfulness.targets=3", "faithfulness.singles=2"]
    assert command(*arguments, "hydra.run.dir=out")[0] == 0
    found = json.loads((tmp_path / "out/result.json").read_text("utf-8"))

    config = composed(*TINY, "task=faithfulness")
    data = load(config.data, seed=0)
    (entry,) = (tmp_path / "own/retrain").glob("*/tensors.safetensors")
    logits = load_file(entry)
    parts = parts_of_train(replace(config.faithfulness, count=5), 200, seed=0)
    (weights,) = (tmp_path / "own/train").glob("*/weights.safetensors")
    model = build(config.model, data, seed=0)
    model.load_state_dict(load_file(weights))
    (attacked,) = (tmp_path / "own/attack").glob("*/tensors.safetensors")
    pictures = load_file(attacked)["pictures"]

    def correlation(rows: Tensor, kind: str) -> tuple[float, Tensor]:
        labels = data.validation.labels[rows]
        target = data.validation.subset(rows).with_images(TensorImages(pictures[rows]))
        scores = inner_products(model, data.train, target)
        predicted, measured = [], []
        for part, of_model in zip(parts, logits[kind], strict=True):
            predicted.append(sum(float(score) for score, kept in zip(scores, part, strict=True) if kept))
            measured.append(-float(F.cross_entropy(of_model[rows], labels)))
        ranks = [pd.Series(values).rank() for values in (predicted, measured)]
        return ranks[0].corr(ranks[1]), scores

    targets = torch.arange(60).tensor_split(3)
    anew, frozen = ([correlation(rows, kind)[0] for rows in targets] for kind in ("adversarial", "frozen"))
    assert found["faithfulness"]["targets"] == pytest.approx(anew)
    assert found["faithfulness"]["spearman"] == pytest.approx(np.mean(anew))
    assert found["faithfulness"]["frozen"] == pytest.approx(np.mean(frozen))
    singles = [correlation(torch.tensor([row]), "adversarial")[0] for row in (0, 30)]
    assert found["faithfulness"]["singles"] == pytest.approx(np.mean(singles))
    scores = correlation(targets[2], "frozen")[1]
    table = pd.read_parquet(tmp_path / "out/scores.parquet")
    each = table[[f"score.target{number}" for number in range(3)]]
    assert np.allclose(table["score"], each.mean(axis=1))
    assert np.allclose(each["score.target2"], scores.numpy(), rtol=1e-3, atol=1e-5)
    assert sorted(found["reused"]) == []


def test_a_proxy_has_its_own_adversarial_set(command: Command, tmp_path: Path) -> None:
    """The objective in the record is the proxy's loss on what was attacked at the proxy."""
    arguments = [*TINY, f"store={tmp_path / 'own'}", "task=detect", "scorer.proxy=adversarial"]
    assert command(*arguments, "hydra.run.dir=out")[0] == 0
    found = json.loads((tmp_path / "out/result.json").read_text("utf-8"))["scoring"]["record"]
    config = composed(*TINY)
    data = load(config.data, seed=0)
    (weights,) = (tmp_path / "own/train").glob("*/weights.safetensors")  # no baseline is needed, none is trained
    model = build(config.model, data, seed=0).eval()
    model.load_state_dict(load_file(weights))
    attack = {"classes": 10, "batch_size": config.evaluation.batch_size, "progress": no_progress}
    pictures = perturb(
        model, data.validation, config.attack, config.threat, seed=derive(0, "attack", "validation"), **attack
    )
    loss = F.cross_entropy(model(pictures), data.validation.labels).item()
    assert found["model robustness objective"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_an_exact_influence_function_foresees_leaving_one_out(
    command: Command, store: Path, tmp_path: Path
) -> None:
    arguments = [f"store={store}", "experiment=faithfulness/loo", "data.train_size=200", "faithfulness.count=30"]
    grid = ["hydra.sweeper.params.seed=0", "hydra.sweeper.params.scorer='influence_function,random'"]
    assert command(*arguments, *grid, "hydra.sweep.dir=sweep")[0] == 0
    exact, chance = (
        json.loads((tmp_path / f"sweep/{cell}/result.json").read_text("utf-8"))["faithfulness"]["spearman"]
        for cell in (0, 1)
    )
    assert exact > 0.9
    assert abs(chance) < 0.5
    page = (tmp_path / "sweep/report.md").read_text("utf-8")
    said = "Foreseeing retraining without one sample (leave-one-out), from the baseline's first weights"
    assert f"{said}: Highest: influence_function at +0.9" in page.replace("\\", "")
    assert "| random " in page


def test_fairness_end_to_end(command: Command, npz: Path, tmp_path: Path) -> None:
    """Groups beside the arrays make a fairness objective; without them the command says what is missing."""
    arguments = ["data=npz", f"data.path={npz}", "data.validation_size=15", "train.epochs=1", "task=detect"]
    arguments += ["data.harm=symmetric", "objective=demographic_parity", "hydra.run.dir=out"]
    code, _, error = command(*arguments)
    assert (code, "expected validation samples of two groups or more" in error) == (2, True)
    arrays = dict(np.load(npz))
    np.savez(npz, **arrays, train_groups=np.arange(60) // 7 % 2)
    assert command(*arguments)[0] == 0
    assert pd.read_parquet(tmp_path / "out/scores.parquet")["score"].std() > 0
    np.savez(npz, **arrays, train_groups=np.arange(59))
    code, _, error = command(*arguments)
    assert (code, "train_groups=59 labels: expected 60" in error) == (2, True)
