from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import defense
from defense.config.choices import AttackName, Direction, ObjectiveName
from defense.config.compose import composed
from defense.config.schema import Attack, Objective
from defense.config.schema import Evaluation as Suite
from defense.errors import InputError
from tests.calls import scores_by_row
from tests.conftest import make_split, scorer
from tests.habits import WorksInPlace
from tests.reference import inner_products, per_sample_gradients

TRAIN, VALIDATION = make_split(20, 3, (1, 4, 4)), make_split(9, 3, (1, 4, 4), seed=1)
X, Y = TRAIN.images.pixels, TRAIN.labels
X_VAL, Y_VAL = VALIDATION.images.pixels, VALIDATION.labels


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)]
    model = nn.Sequential(*layers)
    model(X)
    return model


def test_one_score_per_row_and_the_model_untouched() -> None:
    model = network().train()
    model[4].eval()
    model[1].bias.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    found = scores_by_row(model, (X, Y), (X_VAL, Y_VAL), objective="utility", scorer="ip")
    assert found.shape == (20,)
    assert found.dtype == torch.float32
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model[1].bias.requires_grad


def test_equals_the_reference() -> None:
    model = network().eval()
    expected = inner_products(model, TRAIN, VALIDATION)
    torch.testing.assert_close(scores_by_row(model, (X, Y), (X_VAL, Y_VAL)), expected, rtol=1e-4, atol=1e-6)


def test_objects_as_well_as_names() -> None:
    model = network().eval()
    by_name = scores_by_row(model, (X, Y), (X_VAL, Y_VAL), objective="robustness", scorer="ekfac")
    objective = Objective({ObjectiveName.robustness: 1.0}, positive=1)
    spec = scorer(direction=Direction.ekfac)
    by_object = scores_by_row(model, (X, Y), (X_VAL, Y_VAL), objective=objective, scorer=spec)
    assert torch.equal(by_name, by_object)


def test_settings_over_a_scorer_are_those_of_the_equation() -> None:
    """Cosines, and the last bias alone, by gradients of one sample after another."""
    model = network().eval()
    given = (model, (X, Y), (X_VAL, Y_VAL))
    gradients = per_sample_gradients(model, X, Y)
    direction = per_sample_gradients(model, X_VAL, Y_VAL).mean(0)
    cosines = gradients @ direction / (gradients.norm(dim=1) * direction.norm())
    for spec in ({"cosine": True}, {"name": "ip_cosine"}, {"name": "ip", "cosine": True, "batch_size": 7}):
        torch.testing.assert_close(scores_by_row(*given, scorer=spec), cosines, rtol=1e-4, atol=1e-5)
    bias = gradients[:, -3:] @ direction[-3:]
    found = scores_by_row(*given, scorer={"parameters": "5.bias"})
    torch.testing.assert_close(found, bias, rtol=1e-4, atol=1e-6)


def test_an_objective_may_be_weights_of_terms() -> None:
    """Both terms look at the same pictures here, so that their weights add up."""
    model = network().eval()
    given = (model, (X, Y), (X_VAL, Y_VAL))
    expected = 0.75 * inner_products(model, TRAIN, VALIDATION)
    for weights in ({"utility": 0.5, "robustness": 0.25}, {ObjectiveName.utility: 0.75}):
        torch.testing.assert_close(scores_by_row(*given, objective=weights), expected, rtol=1e-4, atol=1e-6)


WRONG_CHOICE: dict[str, tuple[dict[str, Any], str]] = {
    "a scorer that is not there": ({"scorer": "ipp"}, r"scorer='ipp': expected one of ip, .*ekfac, .*tracin"),
    "an objective that is not there": (
        {"objective": "utlity"},
        r"objective='utlity': expected one of utility, demographic_parity",
    ),
    "a base that is not there": ({"scorer": {"name": "ipp"}}, r"scorer='ipp': expected one of"),
    "a setting that is not there": (
        {"scorer": {"cosin": True}},
        r"scorer.cosin=true: no such setting; expected one of cosine, name",
    ),
    "a setting of another type": ({"scorer": {"damping": "much"}}, r"scorer.damping=much: .*Float"),
    "a choice that is not there": ({"scorer": {"direction": "up"}}, r"scorer.direction=up: .*identity"),
    "a number out of its range": ({"scorer": {"damping": -1}}, r"scorer.damping=-1.0: expected a number above 0"),
    "a function for a scorer": ({"scorer": len}, r"scorer=len: expected a name, a Scorer, or settings"),
    "a function for an objective": (
        {"objective": len},
        r"objective=len: expected a name, an Objective",
    ),
    "nothing": ({"objective": None}, r"objective=None: expected a name"),
    "a list": ({"scorer": ["ip", "loss"]}, r"scorer=\['ip', 'loss'\]: expected a name"),
    "a term that is not there": ({"objective": {"beauty": 1}}, r"objective.beauty=1: no such term; .*utility"),
    "a weight that is no number": (
        {"objective": {"utility": "1"}},
        r"objective.utility=1: expected a finite",
    ),
    "a weight without end": (
        {"objective": {"utility": float("inf")}},
        r"objective.utility=inf: expected a finite",
    ),
    "no weight": ({"objective": {}}, r"objective={}: expected a weight for a term"),
    "no weight but 0": (
        {"objective": {"utility": 0}},
        r"objective={.utility.: 0}: expected a weight for a term, other",
    ),
}


@pytest.mark.parametrize("name", WRONG_CHOICE)
def test_a_wrong_choice_is_one_line(name: str) -> None:
    options, said = WRONG_CHOICE[name]
    with pytest.raises(InputError, match=said) as error:
        scores_by_row(network().eval(), (X, Y), (X_VAL, Y_VAL), **options)
    assert len(str(error.value).splitlines()) == 1


def test_a_network_that_is_not_finite_is_one_line() -> None:
    model = network().eval()
    with torch.no_grad():
        model[1].weight[0] = torch.nan
    calls = (
        lambda: scores_by_row(model, (X, Y), (X_VAL, Y_VAL)),
        lambda: defense.attack(model, (X, Y), attack="pgd", eps=0.1),
        lambda: defense.evaluate(model, (X, Y), suite="quick", eps=0.1),
    )
    for call in calls:
        with pytest.raises(
            InputError, match=r"model=Sequential: its logits of \w+ (pictures|inputs) are not finite"
        ):
            call()


NAMES = ["ip_ensemble", "ip_cosine", "influence_function", "datainf", "self_influence", "loss"]


@pytest.mark.parametrize("name", NAMES)
def test_every_scorer_by_name(name: str) -> None:
    found = scores_by_row(network().eval(), (X, Y), (X_VAL, Y_VAL), scorer=name)
    assert found.isfinite().all()
    assert found.std() > 0


def test_checkpoints() -> None:
    models = [network().eval() for _ in range(2)]
    with torch.no_grad():
        models[0][1].weight.mul_(0.5)
    states = [(0.3, models[0].state_dict()), (0.1, models[1].state_dict())]
    found = scores_by_row(network().eval(), (X, Y), (X_VAL, Y_VAL), scorer="tracin", checkpoints=states)
    expected = 0.3 * inner_products(models[0], TRAIN, VALIDATION) + 0.1 * inner_products(
        models[1], TRAIN, VALIDATION
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match=r"scorer.members=checkpoints: expected checkpoints"):
        scores_by_row(network(), (X, Y), (X_VAL, Y_VAL), scorer="tracin")


WRONG = {
    "fewer labels": (lambda: ((X, Y[:5]), (X_VAL, Y_VAL)), {}, r"expected whole numbers of shape \(20,\)"),
    "more labels": (lambda: ((X, Y), (X_VAL, Y_VAL.repeat(2))), {}, "validation labels=torch.int64 of shape"),
    "one-hot labels": (
        lambda: ((X, torch.eye(3)[Y]), (X_VAL, Y_VAL)),
        {},
        r"train labels=torch.float32 of shape \(20, 3\): .*; labels.argmax\(1\) gives them",
    ),
    "floats for labels": (lambda: ((X, Y.float()), (X_VAL, Y_VAL)), {}, r"; labels.long\(\) gives them"),
    "a column of labels": (lambda: ((X, Y[:, None]), (X_VAL, Y_VAL)), {}, r"labels.flatten\(\).long\(\) gives"),
    "halves for labels": (lambda: ((X, Y + 0.5), (X_VAL, Y_VAL)), {}, "the class of each sample from 0 up$"),
    "a label too high": (lambda: ((X, Y + 2), (X_VAL, Y_VAL)), {}, "train labels=2 to 4: expected 0 to 2"),
    "NaN": (lambda: ((X * torch.nan, Y), (X_VAL, Y_VAL)), {}, "train inputs=NaN or infinity: expected finite"),
    "other size": (
        lambda: ((X, Y), (X_VAL[:, :, :2], Y_VAL)),
        {},
        "fails on validation inputs of shape",
    ),
    "attacked": (
        lambda: ((X, Y), (X_VAL, Y_VAL)),
        {"attacked": X_VAL},
        "attacked=shape .* expected that of train",
    ),
    "a rate of NaN": (
        lambda: ((X, Y), (X_VAL, Y_VAL)),
        {"scorer": "tracin", "checkpoints": [(float("nan"), network().state_dict())]},
        "checkpoints=nan: expected a learning rate",
    ),
    "a strange checkpoint": (
        lambda: ((X, Y), (X_VAL, Y_VAL)),
        {"scorer": "tracin", "checkpoints": [(0.1, {"a": X})]},
        "checkpoints=checkpoint 1: has no 1.weight of shape",
    ),
    "a proxy": (lambda: ((X, Y), (X_VAL, Y_VAL)), {"scorer": scorer(seeds=2)}, "trains models of its own"),
    "damping": (lambda: ((X, Y), (X_VAL, Y_VAL)), {"scorer": scorer(damping=-1.0)}, "scorer.damping=-1.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(name: str) -> None:
    samples, options, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        scores_by_row(network().eval(), *samples(), **options)


@pytest.mark.parametrize("name", ["ip_ensemble", "influence_function", "self_influence"])
def test_a_model_in_training_mode_and_the_global_generator_are_untouched(name: str) -> None:
    model = network().train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    scores_by_row(model, (X, Y), (X_VAL, Y_VAL), scorer=name)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training


def test_what_a_scorer_lacks_is_said() -> None:
    with pytest.raises(InputError, match="expected attacked training samples"):
        scores_by_row(network(), (X, Y), (X_VAL, Y_VAL), scorer="adversarial_loss")


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_attacked_pictures_and_accuracies_agree(norm: str) -> None:
    """What `evaluate` counts after PGD is what the pictures that `attack` returns do, where both attack all."""
    model, labels = network().eval(), network().eval()(X).argmax(1)
    moved = defense.attack(model, (X, labels), attack="pgd", norm=norm, eps=0.1, seed=3)
    assert moved.shape == X.shape
    assert 0.05 < float((moved - X).flatten(1).norm(p=float("inf") if norm == "Linf" else 2, dim=1).max()) < 0.1001
    own = Suite({"pgd": composed().attack}, 256)
    found = defense.evaluate(model, (X, labels), suite=own, norm=norm, eps=0.1, seed=3)
    assert list(found) == ["clean", "pgd", "worst"]
    assert found["clean"] == 100
    assert found["worst"] == found["pgd"] < 100
    right = 100 * float((model(moved).argmax(1) == labels).double().mean())
    assert found["pgd"] == pytest.approx(right, abs=10)  # other draws


def test_the_other_suites_are_at_least_as_strong_as_the_quick_one() -> None:
    model = network().eval()
    quick, fast, standard = (
        defense.evaluate(model, (X, Y), suite=suite, eps="8/255") for suite in ("quick", "fast", "standard")
    )
    assert list(fast) == ["clean", "pgd", "apgd_ce", "pma", "apgd_t", "square_if_masked", "worst"]
    assert list(standard) == ["clean", "pgd", "apgd_ce", "apgd_t", "fab_t", "square", "worst"]
    assert quick["pgd"] >= fast["apgd_t"] >= fast["worst"]
    assert quick["pgd"] >= standard["apgd_t"] >= standard["worst"]


class Detached(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3].detach()


WRONG_ATTACK = {
    "norm": ({"norm": "L1"}, "norm=L1: expected one of Linf, L2"),
    "eps too large": ({"eps": 8}, "eps=8: expected at most 1, the whole range of a pixel"),
    "eps of zero": ({"eps": 0}, "eps=0: expected a number above 0"),
    "an eps of Linf": ({"norm": "L2", "eps": "128/255"}, "eps=128/255: is meant for Linf"),
    "batch size": ({"batch_size": 0}, "batch_size=0: expected a whole number"),
}


@pytest.mark.parametrize("function", [defense.attack, defense.evaluate])
@pytest.mark.parametrize("name", WRONG_ATTACK)
def test_a_wrong_threat_is_one_line(name: str, function: Callable[..., Any]) -> None:
    options, said = WRONG_ATTACK[name]
    with pytest.raises(InputError, match=said):
        function(network(), (X, Y), **options)
    with pytest.raises(InputError, match="two classes or more"):
        function(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(X[0].numel(), 1)), (X, Y * 0))


WRONG_CALL = {
    "a name": (defense.attack, {"attack": "nope"}, "attack='nope': expected one of apgd_ce"),
    "a suite": (defense.evaluate, {"suite": "nope"}, "evaluation='nope': expected one of fast, quick, standard"),
    "no suite": (defense.evaluate, {"suite": None}, "suite=NoneType: expected a name"),
    "no attack": (defense.attack, {"attack": 3}, "attack=3: expected the settings of an attack"),
    "half a step": (defense.attack, {"attack": Attack(AttackName.pgd, steps=2.5)}, "attack=.*2.5"),  # type: ignore[arg-type]
    "a step that is not read": (
        defense.attack,
        {"attack": Attack(AttackName.apgd_ce, step_size="0.1")},
        "attack.step_size=0.1: not read by apgd_ce",
    ),
    "an attack called clean": (
        defense.evaluate,
        {"suite": Suite({"clean": Attack(AttackName.pgd)}, 9)},
        "evaluation.attacks.clean=clean: expected another name",
    ),
    "no list of masked": (
        defense.evaluate,
        {"suite": Suite({"pgd": Attack(AttackName.pgd)}, 9, masked=None)},  # type: ignore[arg-type]
        "evaluation.masked=null: expected a list of names",
    ),
    "a seed": (defense.attack, {"seed": None}, "seed=None: expected a whole number of at least 0"),
    "a batch size": (defense.attack, {"batch_size": True}, "batch_size=True"),
    "one tensor": (defense.evaluate, {"samples": X}, "samples=Tensor: expected a pair"),
    "no model": (defense.evaluate, {"model": None}, "model=NoneType: expected a torch.nn.Module"),
    "no gradient": (
        defense.attack,
        {"model": torch.nn.Sequential(torch.nn.Flatten(), Detached())},
        "model=Sequential: its logits have no gradient",
    ),
}


@pytest.mark.parametrize("name", WRONG_CALL)
def test_a_wrong_call_is_one_line(name: str) -> None:
    function, options, said = WRONG_CALL[name]
    call = {"model": network().eval(), "samples": (X, Y)} | options
    with pytest.raises(InputError, match=said) as error:
        function(call.pop("model"), call.pop("samples"), **call)
    assert len(str(error.value).splitlines()) == 1


def test_fgsm_needs_no_settings() -> None:
    moved = defense.attack(network().eval(), (X, Y), attack=Attack(AttackName.fgsm), eps=0.1)
    assert float((moved - X).abs().max()) == pytest.approx(0.1)


def test_samples_of_64_bits_are_evaluated_and_of_16_refused() -> None:
    model = network().eval()
    labels = model(X).argmax(1)
    drawless = Suite({"pgd": Attack(AttackName.pgd, random_start=False)}, 256)
    single = defense.evaluate(model, (X, labels), suite=drawless, eps=0.2)
    assert single["worst"] < single["clean"]
    assert defense.evaluate(model.double(), (X.double(), labels), suite=drawless, eps=0.2) == single
    for function in (defense.attack, defense.evaluate):
        with pytest.raises(InputError, match=r"samples pictures=torch\.float16: expected float32 in \[0, 1\]"):
            function(model.half(), (X.half(), Y))


FEW_QUERIES = Attack(AttackName.square, queries=30)
LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "a view with steps": lambda x: x.repeat_interleave(2, 0)[::2],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_how_pictures_lie_in_memory_does_not_matter(name: str) -> None:
    x, y = make_split(20, 3, (3, 4, 4)).images.pixels, Y
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    other = LAYOUTS[name](x)
    assert torch.equal(other, x)
    for kind in ("pgd", FEW_QUERIES):
        assert torch.equal(
            defense.attack(model, (x, y), attack=kind), defense.attack(model, (other, y), attack=kind)
        )


def test_checkpoints_that_share_memory_are_one() -> None:
    model = network().eval()
    shared = [(0.1, model.state_dict()), (0.1, model.state_dict())]
    with pytest.raises(InputError, match=r"checkpoint 2: shares the memory of .* with checkpoint 1"):
        scores_by_row(model, (X, Y), (X_VAL, Y_VAL), scorer="tracin", checkpoints=shared)
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    half = [(0.1, statistics), (0.1, {**model.state_dict(), "2.running_var": statistics["2.running_var"]})]
    with pytest.raises(InputError, match=r"shares the memory of 2\.running_var"):
        scores_by_row(model, (X, Y), (X_VAL, Y_VAL), scorer="tracin", checkpoints=half)
    model[1].requires_grad_(False)  # a frozen layer may be the same in all, and one may be the model as it is
    kept = {name: value.clone() if name[0] != "1" else value for name, value in model.state_dict().items()}
    own = [(0.1, kept), (0.1, model.state_dict())]
    assert scores_by_row(model, (X, Y), (X_VAL, Y_VAL), scorer="tracin", checkpoints=own).isfinite().all()


def test_checkpoints_of_a_wrapped_model_have_its_names() -> None:
    model = network().eval()
    wrapped = nn.DataParallel(model)
    points = [(0.1, {name: value.clone() for name, value in wrapped.state_dict().items()})]
    found = scores_by_row(wrapped, (X, Y), (X_VAL, Y_VAL), scorer="tracin", checkpoints=points)
    torch.testing.assert_close(found, 0.1 * scores_by_row(model, (X, Y), (X_VAL, Y_VAL)), rtol=1e-4, atol=1e-7)


def test_inference_mode_around_a_call_is_left_for_it() -> None:
    model = network().eval()
    expected = scores_by_row(model, (X, Y), (X_VAL, Y_VAL)), defense.attack(model, (X, Y), eps=0.1)
    with torch.inference_mode():
        found = scores_by_row(model, (X * 1, Y), (X_VAL, Y_VAL)), defense.attack(model, (X * 1, Y), eps=0.1)
        assert list(defense.evaluate(model, (X, Y), suite="quick", eps=0.1).values())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_frozen_model_has_losses_and_no_gradients() -> None:
    model = network().eval().requires_grad_(False)
    losses = torch.nn.functional.cross_entropy(model(X), Y, reduction="none")
    torch.testing.assert_close(scores_by_row(model, (X, Y), (X_VAL, Y_VAL), scorer="loss"), -losses)
    assert len(scores_by_row(model, (X, Y), (X_VAL, Y_VAL), scorer="random")) == len(X)
    with pytest.raises(InputError, match=r"no parameter asks for a gradient; model.requires_grad_\(\)"):
        scores_by_row(model, (X, Y), (X_VAL, Y_VAL))


@pytest.mark.parametrize("name", ["ip", "influence_function", "datainf", "ekfac"])
def test_a_validation_set_that_is_fitted_has_no_gradient(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.zeros(3, 16))
        model[1].weight[0] = 1e4
    with pytest.raises(
        InputError, match="objective=utility: its gradient is zero: every validation sample is fitted"
    ):
        scores_by_row(model, (X, Y), (X_VAL, Y_VAL * 0), scorer=name)


def test_scores_of_fitted_samples_keep_their_digits() -> None:
    """At losses of 1e-9 the usual derivative is off by more than its size."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    labels = model(X).argmax(1)
    with torch.no_grad():
        model[1].weight *= 60
        model[1].bias *= 60
    exact = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().eval()
    exact.load_state_dict(model.state_dict())
    wrong = (model(X_VAL).argmax(1) + 1) % 3
    assert float(torch.nn.functional.cross_entropy(exact(X.double()), labels, reduction="none").median()) < 1e-6
    for kind in ("ip", "ip_cosine", "loss"):
        found = scores_by_row(model, (X, labels), (X_VAL, wrong), scorer=kind).double()
        right = scores_by_row(exact, (X.double(), labels), (X_VAL.double(), wrong), scorer=kind).double()
        torch.testing.assert_close(found, right, rtol=1e-3, atol=0)


@pytest.mark.parametrize("attack", ["pgd", "fab_t", FEW_QUERIES, "apgd_t"], ids=str)
def test_attacks_of_networks_that_are_not_in_single_precision(attack: str | Attack) -> None:
    model, labels = network().eval(), network().eval()(X).argmax(1)
    single = defense.attack(model, (X, labels), attack=attack, eps=0.1)
    double = defense.attack(model.double(), (X.double(), labels), attack=attack, eps=0.1)
    assert double.dtype is torch.float32
    assert float((double - single).abs().max()) < 1e-3
    half = defense.attack(model.bfloat16(), (X, labels), attack=attack, eps=0.1)
    assert float((half - X).abs().max()) <= 0.1 + 1e-6


def test_a_network_that_works_in_place_is_attacked_within_the_ball() -> None:
    torch.manual_seed(0)
    model, x = WorksInPlace().eval(), torch.rand(6, 1, 8, 8)
    before = x.clone()
    for kind in (FEW_QUERIES, "pgd", "apgd_t", "fab_t", "cw"):
        moved = defense.attack(model, (x, Y[:6]), attack=kind, eps=0.1)
        assert float((moved - before).abs().max()) <= 0.1 + 1e-6
        assert float(moved.min()) >= 0
    assert torch.equal(x, before)


def test_noise_is_said_and_the_random_state_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x + 0.3 * torch.randn_like(x))
            return out

    model = Noisy().eval()
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        first, again = (defense.evaluate(model, (X, Y), suite="quick", eps=0.1) for _ in range(2))
    assert first == again
    assert "the same picture gives other logits each time" in caplog.text
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError, match="the same picture gives other logits each time"):
        scores_by_row(model, (X, Y), (X_VAL, Y_VAL))


def test_pictures_may_miss_their_range_by_rounding() -> None:
    model = network().eval()
    over = X.clone()
    over[0, 0, 0, 0], over[1, 0, 0, 0] = 1 + 1e-7, -1e-9
    moved = [defense.attack(model, (x, Y), eps=0.1) for x in (over, over.clamp(0, 1))]
    assert torch.equal(*moved)
    for pictures, said in (
        (X + 1.0001 - X.max(), r"1\.0001"),
        (X * 255, r"samples pictures=.*: expected floats in"),
    ):
        with pytest.raises(InputError, match=said):
            defense.attack(model, (pictures, Y))
    with pytest.raises(InputError, match=r"samples pictures=shape \(20, 4, 4\): expected \(n, C, H, W\)"):
        defense.attack(model, (X[:, 0], Y))


def test_the_batch_size_of_a_suite_counts() -> None:
    sizes: list[int] = []
    model = network().eval()
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    defense.evaluate(model, (X, Y), suite=Suite({"pgd": Attack(AttackName.pgd)}, 3), eps="8/255")
    assert max(sizes) == 3


def test_wrong_attacks_are_one_line() -> None:
    with pytest.raises(InputError, match=r"attack\.steps=0"):
        defense.attack(network(), (X, Y), attack=Attack(AttackName.pgd, steps=0))
    with pytest.raises(
        InputError, match=r"evaluation\.attacks=square: expected at least one attack that uses grad"
    ):
        defense.evaluate(network(), (X, Y), suite=Suite({"square": Attack(AttackName.square)}, 256))


def test_the_functions_are_listed_before_they_are_imported() -> None:
    assert dir(defense) == ["attack", "defend", "evaluate", "score", "treat"]


def test_the_package_is_light() -> None:
    program = "import sys, defense; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        defense.nothing  # noqa: B018


@pytest.mark.parametrize("seed", [-1, "a", 0.5])
def test_a_seed_of_scores_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(InputError, match=r"^seed=.*: expected a whole number of at least 0$"):
        scores_by_row(network(), (X, Y), (X_VAL, Y_VAL), seed=seed)


def test_scores_are_a_series_of_their_own(recwarn: pytest.WarningsRecorder) -> None:
    found = defense.score(network(), (X, Y), (X_VAL, Y_VAL), scorer="loss")
    assert (found.dtype, found.name, found.index.name) == ("float32", "score", "id")
    assert found.index.tolist() == list(range(20))
    assert not [each for each in recwarn if "writable" in str(each.message)]
