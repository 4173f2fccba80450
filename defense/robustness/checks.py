"""Can the robust accuracy of a model be believed? Signs that attacks fail for a reason that is not robustness.

After Carlini et al. 2019 (On Evaluating Adversarial Robustness), Athalye et al. 2018 (Obfuscated Gradients Give a
False Sense of Security) and Croce et al. 2022 (Evaluating the Adversarial Robustness of Adaptive Test-time
Defenses). `defense.robustness.probe` attacks samples in ways whose outcome is known beforehand; `judge` counts
those on which it was another. `learned` and `compared_under` need no attack of their own: they say whether there
is anything to compare, models that have learned something under an attack that breaks some samples and not all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom, hypergeom

from defense.config.choices import Doubt

# An attack is not perfect, so an honest model too does now and then what it should not. Seen on 20 small honest
# models (ordinary and adversarial training, 2 to 10 classes, several eps in both norms): 0 or 1 of 100; of
# `converged` up to 9, where the suite was PGD of 20 steps and AutoAttack broke more than that, too.
HONEST = 0.02  # share of such samples that is taken for honest
CHANCE = 0.001  # that so honest a model is flagged by one check
SLACK = 1e-3  # of eps, for rounding
SAME = 1e-2  # of the standard deviation of the logits: by how much two passes may differ, in TF32 too
NEARLY = 0.1  # of the samples that have another class: a model that gives so few of them another gives one class
FEW = 3  # samples: of two arms with so few right no difference leaves zero out (see tango in reporting/statistics)


@dataclass(frozen=True)
class Check:
    """One question to the probed samples."""

    title: str  # what makes a sample odd
    sign: str  # what it means where too many are
    odd: Callable[[pd.DataFrame], pd.Series]  # bool (n,)
    honest: float = HONEST


@dataclass(frozen=True)
class Finding:
    """The answer to one check: how many samples are odd, and how many of an honest model may be."""

    title: str
    sign: str
    found: int
    of: int
    allowed: int
    flagged: bool
    numbers: dict[str, Any]  # what else there is to know


def usable(samples: pd.DataFrame) -> pd.Series:
    """Return which gradients an attack can follow: finite and not zero everywhere."""
    return np.isfinite(samples["gradient"]) & (samples["gradient"] > 0)


CHECKS = {
    "inside": Check(
        "perturbed beyond the ball or [0, 1]",
        "perturbations leave the ball or [0, 1]",
        lambda s: ~((s["distance"] <= 1 + SLACK) & (s["lowest"] >= 0) & (s["highest"] <= 1)),
        honest=0,
    ),
    "falls": Check(  # 1 in Linf, sqrt(C H W) in L2: any picture at all can be put in place of the sample
        "right even at the largest eps",
        "samples stand at the largest eps there is",
        lambda s: s["last"],
    ),
    "monotone": Check(
        "wrong at some eps, right at a larger one", "a larger eps helps the model", lambda s: s["regained"]
    ),
    "effort": Check(
        "broken by PGD, not by more effort",
        "more steps and starts help the model",
        lambda s: s["longer"] & ~s["once"],
    ),
    "converged": Check(
        "left by the suite, broken by more effort",
        "the suite has not converged",
        lambda s: s["suite"] & ~s["left"],
    ),
    "square": Check(
        "broken by Square alone, without gradients",
        "an attack without gradients breaks more",
        lambda s: s["once"] & s["longer"] & ~s["square"],
    ),
    "gradients": Check("gradient zero or not finite", "gradients are zero or not finite", lambda s: ~usable(s)),
    "uphill": Check(
        "loss does not rise along the gradient",
        "gradients do not point uphill",
        lambda s: usable(s) & ~(s["rise"] > 0),
    ),
    "repeatable": Check(
        "other logits in a second pass",
        "the same picture gives other logits each time",
        lambda s: ~(s["drift"] <= SAME),
        honest=0,
    ),
}


def judge(samples: pd.DataFrame, curve: pd.DataFrame, suite: np.ndarray) -> dict[str, Finding]:
    """Return what each of CHECKS says of a probed model.

    samples, curve: as `defense.robustness.probe.probe` returns them. suite: bool (n,), what stands after the
    attacks that the model was evaluated with. Flagged is a count above the 1 - CHANCE quantile of the binomial
    distribution of n samples, each odd with probability `honest`: of 100 samples 7 are allowed, of 1000 35.
    """
    samples = samples.assign(suite=suite)
    numbers: dict[str, dict[str, Any]] = {
        "inside": {
            "distance": float(samples["distance"].max()),
            "lowest": float(samples["lowest"].min()),
            "highest": float(samples["highest"].max()),
        },
        "falls": {name: curve[name].tolist() for name in ("eps", "accuracy")},
    }
    count = len(samples)
    out = {}
    for name, check in CHECKS.items():
        if name == "square" and name not in samples:
            continue  # there is no such attack on pictures of this shape
        found, allowed = int(check.odd(samples).sum()), int(binom.isf(CHANCE, count, check.honest))
        more = numbers.get(name, {})
        out[name] = Finding(check.title, check.sign, found, count, allowed, found > allowed, more)
    return out


@dataclass(frozen=True)
class Learned:
    """What the predictions of a model say of its learning; classes are indices, None of no sample."""

    samples: int
    right: int
    largest_class: int  # the class with the most samples
    largest_count: int
    predicted_class: int  # the class that is predicted most
    predicted_count: int
    p_right: float  # that chance alone is right as often: each sample with the share of the largest class
    p_class: float  # that chance alone finds any class as well: hypergeometric, times the number of classes
    learned: bool
    doubt: Doubt | None


def learned(labels: np.ndarray, predictions: np.ndarray) -> Learned:
    """Return whether `predictions` (n,) of samples with `labels` (n,), n >= 1, show that anything was learned.

    Learned is what is right more often than the share of the largest class, or finds some class better than
    predictions that have nothing to do with the labels: either by more than chance does at CHANCE.
    """
    count, size = len(labels), int(max(labels.max(), predictions.max())) + 1
    own, given, both = (
        np.bincount(rows, minlength=size) for rows in (labels, predictions, labels[labels == predictions])
    )
    right, largest, most = int(both.sum()), int(own.argmax()), int(given.argmax())
    p_right = float(binom.sf(right - 1, count, own[largest] / count))
    there = own > 0
    tails = hypergeom.sf(both[there] - 1, count, own[there], given[there])
    p_class = min(1.0, int(there.sum()) * float(tails.min()))
    others = count - int(given[most])
    doubt = None
    if others == 0:
        doubt = Doubt.one_class
    elif others <= NEARLY * (count - int(own[most])):
        doubt = Doubt.nearly_one_class
    elif p_right > CHANCE:
        doubt = Doubt.largest_class if p_class <= CHANCE else Doubt.chance
    known = doubt in (None, Doubt.largest_class)
    counts = (count, right, largest, int(own[largest]), most, int(given[most]))
    return Learned(*counts, p_right, p_class, known, doubt)


@dataclass(frozen=True)
class Standing:
    """How many samples each arm has right under attack, and whether that leaves anything to compare."""

    samples: int
    standing: Mapping[str, int]
    broken: Mapping[str, int]  # samples that are right as they are, and wrong under attack
    allowed: int  # samples on which an attack that is too strong, or too weak, may do otherwise
    doubt: Doubt | None


def compared_under(arms: Mapping[str, np.ndarray], clean: Mapping[str, np.ndarray]) -> Standing:
    """Return whether an attack leaves no sample of any arm right, or breaks none.

    arms, clean: by arm, bool (n,): right under attack, and right as the sample is.
    """
    count = len(next(iter(arms.values())))
    standing = {name: int(right.sum()) for name, right in arms.items()}
    broken = {name: int((clean[name] & ~right).sum()) for name, right in arms.items()}
    allowed = min(FEW, count // 10)
    doubt = None
    if max(standing.values()) <= allowed:
        doubt = Doubt.too_strong
    elif max(broken.values()) <= allowed:
        doubt = Doubt.too_weak
    return Standing(count, standing, broken, allowed, doubt)
