"""The standard suite beside the reference implementation of AutoAttack, sample by sample, on nets trained here."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import Norm
from defense.config.compose import composed
from defense.config.schema import Evaluation, Threat
from defense.data.splits import Dataset, Split
from tests.attack_peers import by_reference, by_suite, loaded, trained

SAMPLES = 200
SHORT_RUN, FULL = (20, 100), (100, 5000)  # steps, queries
# Samples on which both may differ, since their random starts do. How many a short run leaves to the luck of a
# start depends on the net, and the net on the processor; at full strength it is next to none.
DIFFERENT, DIFFERENT_AT_FULL = 12, 2
EPS = {Norm.Linf: 0.2, Norm.L2: 0.6}
SHORT = ("threat.eps=0.15", "train.validation_steps=1")


@cache
def digits_of(classes: int) -> Dataset:
    return loaded("data.harm=none", f"data.test_size={SAMPLES}", "data.validation_size=50", classes=classes)


@cache
def net_of(classes: int, recipe: str, *settings: str) -> nn.Module:
    return trained(digits_of(classes), f"train={recipe}", *SHORT, *settings)


def suite(steps: int, queries: int) -> Evaluation:
    """Return the standard suite with at most so many steps, and so many queries."""
    spec = composed("evaluation=standard").evaluation
    attacks = {
        name: replace(attack, steps=min(attack.steps, steps), queries=queries)
        for name, attack in spec.attacks.items()
    }
    return replace(spec, attacks=attacks)


@pytest.fixture(autouse=True)
def on_one_thread() -> object:
    """So small a net is slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.extra("pyautoattack")
@pytest.mark.slow
@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_reference_breaks_the_same_samples(classes: int, norm: Norm) -> None:
    net, test = net_of(classes, "adversarial", "model=mlp", "train.epochs=8"), digits_of(classes).test
    threat = Threat(norm, EPS[norm])

    def both(split: Split, strength: tuple[int, int]) -> tuple[Tensor, Tensor]:
        steps, queries = strength
        ours = by_suite(net, split, threat, suite(steps, queries), classes=classes, seed=0)
        common = {"classes": classes, "seed": 0, "batch_size": SAMPLES, "steps": steps, "queries": queries}
        return ours[-1].standing, by_reference(net, split, threat, **common)[-1].standing

    ours, theirs = both(test, SHORT_RUN)
    assert 0.2 * SAMPLES < int(theirs.sum()) < 0.8 * SAMPLES  # else there is little to agree on
    differ = (ours != theirs).nonzero().flatten()
    assert len(differ) <= DIFFERENT
    if len(differ) > DIFFERENT_AT_FULL:
        ours, theirs = both(test.subset(differ), FULL)
        assert int((ours != theirs).sum()) <= DIFFERENT_AT_FULL


@pytest.mark.extra("pyautoattack")
@pytest.mark.slow
@pytest.mark.parametrize(("classes", "norm"), [(2, Norm.Linf), (3, Norm.L2), (10, Norm.Linf), (10, Norm.L2)])
def test_the_fast_suite_leaves_no_more_than_the_reference(classes: int, norm: Norm) -> None:
    """And the margin attack alone no more than APGD on the cross-entropy. On an mlp FAB and Square add nothing."""
    net, test = net_of(classes, "adversarial", "model=mlp", "train.epochs=8"), digits_of(classes).test
    threat, common = Threat(norm, EPS[norm]), {"classes": classes, "seed": 0}
    fast = composed("evaluation=fast").evaluation
    left = {part.name: int(part.standing.sum()) for part in by_suite(net, test, threat, fast, **common)}
    reference = by_reference(net, test, threat, batch_size=SAMPLES, names=("apgd-ce", "apgd-t"), **common)
    by_loss, by_targets = (int(part.standing.sum()) for part in reference)
    assert left["square_if_masked"] <= by_targets + DIFFERENT_AT_FULL
    assert left["square_if_masked"] >= left["apgd_t"] - DIFFERENT_AT_FULL  # an honest net leaves Square nothing
    alone = replace(fast, attacks={"pma": fast.attacks["pma"]}, masked=[])
    assert int(by_suite(net, test, threat, alone, **common)[-1].standing.sum()) <= by_loss + DIFFERENT_AT_FULL


@pytest.mark.slow
def test_adversarial_training_gives_robust_accuracy() -> None:
    """At an eps at which next to nothing stands of an ordinarily trained cnn, under all parts of AutoAttack."""
    test, threat = digits_of(10).test.subset(torch.arange(60)), Threat(Norm.Linf, 0.15)
    standing = {}
    for recipe in ("standard", "adversarial"):
        net = net_of(10, recipe, "model=cnn", "model.width=8", "train.epochs=6")
        standing[recipe] = int(
            by_suite(net, test, threat, suite(*SHORT_RUN), classes=10, seed=0)[-1].standing.sum()
        )
    assert standing["standard"] < 6
    assert standing["adversarial"] > 15
