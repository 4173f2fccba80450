"""The numbers of one run, for machines (result.json) and for the pages that people read."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from defense.choices import Method, TreatmentName
from defense.reporting.reading import proxy_of
from defense.reporting.record import Run, Scoring
from defense.reporting.statistics import Mean, paired_difference
from defense.reporting.tables import RIVALS, arms_of, header, lookup, markdown, metrics, spoken
from defense.schema import Config

PACKAGES = (
    "defense", "torch", "torchvision", "torchattacks", "curvlinops-for-pytorch", "lightning-fabric",
    "hydra-core", "numpy", "scikit-learn",
)  # fmt: skip

VERBS = {
    TreatmentName.remove: "Removing",
    TreatmentName.relabel: "Relabelling",
    TreatmentName.reweight: "Weighing less",
}


def result(run: Run) -> dict[str, Any]:
    """Return what result.json holds: accuracies in percent, fractions in [0, 1], times in seconds."""
    gain = difference(run, "adaptive.worst")
    return {
        "verdict": verdict(run),
        "gain_over_control": {"mean": gain.mean, "low": gain.low, "high": gain.high, "samples": gain.count},
        "arms": {name: accuracies(arm.evaluation) for name, arm in run.arms.items()},
        "checks": {name: arm.checks for name, arm in run.arms.items() if arm.checks},
        "selection": selection(run, run.arms["defended"].treatment["treated"].to_numpy()),
        **({} if run.candidates is None else {"candidates": run.candidates.to_dict("records")}),
        **common(run),
        "sizes": {
            **{part: len(getattr(run.data, part)) for part in ("train", "validation", "test")},
            "treated": treated(run),
            "of_one_class": of_one_class(run, run.arms["defended"].treatment["treated"].to_numpy()),
        },
    }


def common(run: Scoring) -> dict[str, Any]:
    """Return what the result.json of every task holds."""
    return {
        "name": run.config.name,
        "task": str(run.config.task),
        "seed": run.config.seed,
        "sizes": {part: len(getattr(run.data, part)) for part in ("train", "validation", "test")},
        "scoring": {"record": run.record, "members": spread(run.scores)},
        "keys": run.keys,
        "seconds": run.seconds,
        "reused": run.reused,
        "overrides": run.overrides,
        "device": run.device,
        "versions": versions(),
        "config": run.settings,
    }


def spread(scores: pd.DataFrame) -> dict[str, float]:
    """Return the rank correlation with the score of each of its parts: members, and terms of the objective."""
    parts = [name for name in scores.columns if name.startswith("score.")]
    return {
        name.removeprefix("score."): float(scores["score"].corr(scores[name], method="spearman"))
        for name in parts
        if scores[name].nunique() > 1
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def accuracies(evaluation: pd.DataFrame) -> dict[str, Any]:
    """Return {clean, triggered, transfer, adaptive: {attack: ..., worst: ...}} in percent.

    triggered: where there is a planted trigger.
    """
    nested: dict[str, Any] = {}
    for column, share in (100 * evaluation.drop(columns="id").mean()).items():
        kind, _, attack = str(column).partition(".")
        if attack:
            nested.setdefault(kind, {})[attack] = float(share)
        else:
            nested[kind] = float(share)
    return nested


def difference(run: Run, metric: str, first: str = "defended", second: str = "control") -> Mean:
    """Return first - second in points of accuracy, with the interval over the test samples they share."""
    tables = [run.arms[name].evaluation[metric].to_numpy(dtype=float) for name in (first, second)]
    return paired_difference(100 * tables[0], 100 * tables[1])


def treated(run: Run) -> int:
    """Return how many training samples the defended arm removes, relabels, or weighs less."""
    return int(run.arms["defended"].treatment["treated"].sum())


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


def verdict(run: Run) -> str:
    """Return the sentences that the report opens with: the question answered, as far as one seed can.

    Two models retrained on data that differ by chance differ too, by more than the choice of test samples
    explains. So one seed is never called better or worse than random; `defense-report` judges over seeds.
    """
    config, gain = run.config, difference(run, "adaptive.worst")
    arms = {name: accuracies(arm.evaluation)["adaptive"]["worst"] for name, arm in run.arms.items()}
    count, total = treated(run), len(run.data.train)
    if count == 0:
        left = f"accuracy under adaptive attack is {arms['baseline']:.1f} %"
        return f"Nothing was treated ({untouched(run)}): {left}."
    choice = ""
    if run.candidates is not None:
        choice = f" (chosen from {len(run.candidates) - 1} candidates on held-out validation)"
    outcome = f"not distinguishable from {RIVALS[str(config.treatment.name)]}"
    if gain.differs_from_zero:
        outcome = "more than the choice of test samples explains; whether luck of retraining does, seeds can tell"
    return (
        f"{VERBS[config.treatment.name]} the {count} of {total} training samples that {scorer_of(run)} ranks "
        f"lowest{aim(config)}{among(run)}{choice} took accuracy under adaptive attack from "
        f"{arms['baseline']:.1f} % to {arms['defended']:.1f} %, as many at random to {arms['control']:.1f} %: "
        f"{gain.mean:+.1f} points over random (95 % interval over test samples {gain.low:+.1f} to "
        f"{gain.high:+.1f}), {outcome}."
    )


def untouched(run: Run) -> str:
    """Return why nothing was treated."""
    spec = run.config.treatment
    if run.candidates is not None:
        return f"none of {len(run.candidates) - 1} candidates beat its random control on held-out validation"
    if spec.name is TreatmentName.reweight:
        return "all scores are alike"
    if gives_labels(run) and (run.scores["prediction"] == run.scores["label"]).all():
        return "the model gives no sample another label"
    if spec.threshold is not None:
        return f"no score is below the threshold {spec.threshold:g}{among(run)}"
    return f"budget {spec.budget:g}"


def among(run: Run) -> str:
    """Return what the lowest scores are the lowest of, where that is not all samples."""
    spec = run.config.treatment
    classes = " in every class" if spec.balance == "class" and spec.name is not TreatmentName.reweight else ""
    return classes + (" among the samples that the model gives another label" if gives_labels(run) else "")


def gives_labels(run: Run) -> bool:
    """Return whether the labels that the model gives decide what can be treated; of two classes both are known."""
    return run.config.treatment.name is TreatmentName.relabel and run.data.classes > 2


def scorer_of(run: Scoring) -> str:
    """Return the scorer in words, without a proxy that it does not look at: 'ip (mean of 2 trainings)'."""
    scorer = run.config.scorer
    return str(scorer if proxy_of(run.settings) else replace(scorer, proxy=None))


def aim(config: Config) -> str:
    """Return ' for robustness' of a score that looks at an objective, and nothing of one that does not."""
    return f" for {config.objective}" if config.scorer.method is Method.alignment else ""


def arm_rows(run: Run) -> list[dict[str, str]]:
    """Return one row per metric: its name, each arm in percent, and defended - control with its interval."""
    arms = {name: accuracies(run.arms[name].evaluation) for name in arms_of(run.arms)}
    return [
        {
            "kind": metric.partition(".")[0],
            "metric": spoken(metric),
            **{name: f"{lookup(arm, metric):.1f}" for name, arm in arms.items()},
            "difference": str(difference(run, metric)),
        }
        for metric in metrics(arms["baseline"])
    ]


def arms_table(run: Run) -> str:
    """Return the table of the arms in Markdown."""
    columns = ("metric", *arms_of(run.arms), "difference")
    return markdown(header(run.arms), [[row[key] for key in columns] for row in arm_rows(run)])
