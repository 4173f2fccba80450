"""Which training samples are treated: how well they match the known noise, and whether they are of one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from defense.reporting.escaping import visible
from defense.reporting.frame import Setting
from defense.reporting.reading import effect_of
from defense.reporting.run import Scoring

CHANCE = 0.001  # that as many of the treated are of one class by chance


def selection(run: Scoring, taken: np.ndarray | None) -> dict[str, float | None]:
    """Return how well the `taken` samples, bool (n,), match the known noise; None: there is no one such choice.

    precision: share of the taken that are noisy; recall: share of the noisy that are taken; auc: chance
    that a noisy sample has a lower score than a clean one; noise: share of noisy samples, which is the precision
    of chance. None where the noise is not known, or a share of nothing; the first two without `taken`.
    """
    from sklearn.metrics import roc_auc_score

    empty: dict[str, float | None] = dict.fromkeys(("precision", "recall", "auc", "noise"))
    if not run.data.noise_known:
        return empty
    noisy = (run.scores["label"] != run.scores["truth"]).to_numpy()
    shares: dict[str, float | None] = {}
    if taken is not None:
        hits = int((noisy & taken).sum())
        shares["precision"] = hits / int(taken.sum()) if taken.any() else None
        shares["recall"] = hits / int(noisy.sum()) if noisy.any() else None
    return {
        **empty,
        **shares,
        "auc": float(roc_auc_score(noisy, -run.scores["score"])) if 0 < noisy.mean() < 1 else None,
        "noise": float(noisy.mean()),
    }


def of_one_class(run: Scoring, taken: np.ndarray) -> int:
    """Return how many of the `taken` samples, bool (n,), have the label that most of them have."""
    return int(np.bincount(run.scores["label"].to_numpy()[taken]).max(initial=0))


def one_class(run: Scoring, taken: np.ndarray) -> dict[str, Any] | None:
    """Return the class that most of the `taken` samples, bool (n,), have as their label; None of no sample.

    flagged: half of the taken or more have it, and by chance as many of any class are taken with a probability `p`
    of at most CHANCE (hypergeometric, times the number of classes). wrong: how many of them have a label that is
    known to be wrong; None of unknown noise.
    """
    if not taken.any():
        return None
    labels = run.scores["label"].to_numpy()
    everywhere = np.bincount(labels)
    own = np.bincount(labels[taken], minlength=len(everywhere))
    most, count = int(own.argmax()), int(taken.sum())
    tail = float(hypergeom.sf(own[most] - 1, len(labels), everywhere[most], count))
    p = min(1.0, int((everywhere > 0).sum()) * tail)
    noisy = taken & (labels == most) & (run.scores["truth"].to_numpy() != labels)
    return {
        "class": {"index": most, "name": run.data.class_names[most]},
        "treated": int(own[most]),
        "of": count,
        "training": int(everywhere[most]),
        "wrong": int(noisy.sum()) if run.data.noise_known else None,
        "p": p,
        "flagged": 2 * int(own[most]) >= count and p <= CHANCE,
    }


def one_class_said(found: dict[str, Any] | None, total: int, treatment: dict[str, Any]) -> str:
    """Return that most of the treated samples are of one class, as `one_class` found of `total`; else nothing."""
    if found is None or not found["flagged"]:
        return ""
    verb = "is" if found["wrong"] == 1 else "are"
    wrong = f", and {found['wrong']} of those labels {verb} known to be wrong" if found["wrong"] else ""
    name = visible(found["class"]["name"])
    return (
        f"{found['treated']} of the {found['of']} treated samples are of class {name}, as are "
        f"{found['training']} of the {total} training samples{wrong}{advice([treatment])}."
    )


def advice(treatments: Sequence[dict[str, Any]]) -> str:
    """Return advice on treatments of one class alone; nothing if a budget cannot be spent by class."""
    effects = [(effect_of(spec), spec.get("balance")) for spec in treatments]
    free = any("balance" in effect.reads and not effect.weighs and own != "class" for effect, own in effects)
    return "; with treatment.balance=class the budget is spent in every class alike" if free else ""


def one_sided(settings: Sequence[Setting]) -> list[str]:
    """Return a line on settings that treat one class above others: what they do to accuracy may be that.

    Those for which half of the runs or more say so; see selection.one_class.
    """
    said, specs = [], []
    for setting in settings:
        found = [run["one_class"] for run in setting.runs if (run.get("one_class") or {}).get("flagged")]
        if found and 2 * len(found) >= len(setting.runs):
            names = " or ".join(dict.fromkeys(visible(one["class"]["name"]) for one in found))
            share = sum(one["treated"] for one in found) / sum(one["of"] for one in found)
            said.append(f"{setting.name} ({100 * share:.0f} % of class {names})")
            specs.append(setting.runs[0]["config"]["treatment"])
    line = f"Of the treated samples more are of one class than by chance: {'; '.join(said)}{advice(specs)}."
    return [line] if said else []
