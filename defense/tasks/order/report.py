"""The page of task=order: do scores order the samples as influence by an inverse does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from defense.reporting.archive import Row, leaves
from defense.reporting.charts import Axis, curves
from defense.reporting.facts import command_of, counted, made_of
from defense.reporting.page import Page, Section
from defense.reporting.reading import Result
from defense.reporting.run import OF_A_SCORE, Scoring
from defense.reporting.statistics import Mean, p_value, rank_correlation
from defense.runtime.runtime import Runtime
from defense.tasks.health import doubts, looking
from defense.tasks.order.planes import planes_sections
from defense.tasks.order.table import AGREEMENT, ALL, GAINS, LOWEST, METRICS, SECONDS, Gain, Orders, shown
from defense.tasks.writing import common, written

DEGREES = np.linspace(0, 180, 37)  # the edges of the bins that angles are counted in
POINTS = (2, 1, 1)  # the shape of samples that are drawn
ANSWERS = (  # by the rank correlation from which on they hold
    (0.9, "orders the samples as {} does"),
    (0.6, "orders the samples largely as {} does"),
    (0.3, "orders the samples partly as {} does"),
    (0.0, "hardly orders the samples as {} does"),
    (-1.0, "tends to reverse the order of {}"),
)
UNSURE = "does not measurably order the samples as {} does"


@dataclass(frozen=True)
class Reference:
    """The influence that the scores of a run are compared with."""

    scores: Mapping[float, np.ndarray]  # (n,) by damping
    record: Mapping[str, float]  # of its computation, as '<damping> angle to grad v'
    cosines: np.ndarray  # (n,) of the angle between the gradient of the objective and of each training sample


def order_result(run: Scoring, reference: Reference) -> dict[str, Any]:
    """Return what result.json holds: the agreement of the orders at each damping, and the angles of the gradients.

    angle: in degrees, between u and grad v. Of samples in the plane, the points and their scores too.
    """
    scores, record = run.scores["score"].to_numpy(), reference.record
    wrong = (run.scores["label"] != run.scores["truth"]).to_numpy()
    lowest = [value for name, value in record.items() if name.endswith("lowest eigenvalue")]
    seconds = sum(run.seconds.get(stage, 0.0) for stage in OF_A_SCORE)
    return {
        "order": {
            "dampings": [
                {
                    "damping": damping,
                    **agreement(scores, influence, run.config.order.share),
                    "angle": record[f"{damping:g} angle to grad v"],
                    "auc": auc_of(influence, wrong) if run.data.noise_known else None,
                }
                for damping, influence in reference.scores.items()
            ],
            "auc": auc_of(scores, wrong) if run.data.noise_known else None,
            "lowest_eigenvalue": lowest[0] if lowest else None,
            "angles": angles_of(reference.cosines, wrong),
            "seconds": {"score": seconds or None, "reference": run.seconds.get("reference")},
        },
        **({"points": points_of(run, reference)} if run.config.order.draw and run.data.shape == POINTS else {}),
        **common(run),
    }


def angles_of(cosines: np.ndarray, wrong: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the mean of angles in degrees, and their number in each bin, of harmful and of other samples."""
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return {
        name: {"mean": float(group.mean()), "counts": np.histogram(group, DEGREES)[0].tolist()}
        for name, group in (("harmful", angles[wrong]), ("others", angles[~wrong]))
        if len(group)
    }


def points_of(run: Scoring, reference: Reference) -> dict[str, Any]:
    """Return the points of the training and the test split, with labels, and the scores of the first."""
    points = {
        name: {
            "x": rounded(split.images.take(torch.arange(len(split))).flatten(1).cpu().numpy()),
            "label": split.labels.tolist(),
            "truth": split.truth.tolist(),
        }
        for name, split in (("train", run.data.train), ("test", run.data.test))
    }
    influence = {f"{damping:g}": rounded(scores) for damping, scores in reference.scores.items()}
    return {**points, "score": rounded(run.scores["score"].to_numpy()), "reference": influence}


def rounded(values: np.ndarray) -> Any:
    """Return numbers as lists, with the digits that a chart can show."""
    return np.vectorize(lambda value: float(f"{value:.4g}"))(values).tolist()


def write_order(runtime: Runtime, run: Scoring, reference: Reference, output: Path) -> dict[str, Any]:
    """Write the agreement of the scores with a reference; return the content of result.json."""
    numbers = order_result(run, reference)
    return written(runtime, run, numbers, lambda: order_page([numbers], run.config.name), output)


def by_damping(result: Result) -> list[Row]:
    """Return a row for each damping: how well the two orders agree."""
    return [dict(leaves(row)) for row in result["order"]["dampings"]]


def order_page(results: Sequence[Result], title: str) -> Page:
    """Return the page of one run or many."""
    orders = Orders.of(results)
    gains = orders.gains()
    doubt = doubts(looking(results), "the scores of a trained model")
    return Page(
        title=f"{title}: do scores order the samples as influence by an inverse does?",
        headline="\n".join(filter(None, (doubt, answer(orders, gains)))),
        command=command_of(results),
        sections=[
            overall_section(orders),
            *planes_sections(orders),
            *sections_by_factor(orders),
            *gains_section(gains),
            *settings_section(orders),
        ],
        provenance=made_of(results),
        notes=[explanation(orders)],
    )


def answer(orders: Orders, gains: Sequence[Gain]) -> str:
    """Return the headline: the agreement of the orders, the worst level, the matrices, and better scorers."""
    doubt = f"{weakest(orders)} {indefinite(orders)}".strip()
    return "\n".join(filter(None, (agreeing(orders), doubt, against_ip(orders, gains), constant(orders))))


def agreeing(orders: Orders) -> str:
    """Return the agreement of the main scorer with the reference, in words and numbers, beside chance."""
    main, means, text = orders.main, orders.correlations("scorer"), METRICS["spearman"].text
    rho, share = means[main,], 100 * orders.results[0]["config"]["order"]["share"]
    if rho.judgeable:
        verdict = next(words for least, words in ANSWERS if rho.mean >= least) if rho.differs_from_zero else UNSURE
        first = f"{main} {verdict.format(orders.reference)}: rank correlation {text(rho)}, 95 % interval over "
        first += f"{rho.count} seeds"
    else:
        why = "One seed gives" if rho.count == 1 else f"{rho.count} seeds without spread give"
        first = f"{why} no interval and no verdict: the rank correlation of {main} with {orders.reference} is "
        first += text(rho)
    if main != "random" and ("random",) in means:
        first += f"; of random scores it is {text(means['random',].mean)}"
    shared = METRICS["overlap"].text(orders.means("scorer")[main,]["overlap"])
    return f"{first}. Of the lowest {share:g} % of samples {shared} % are shared, by chance {share:g} %."


def weakest(orders: Orders) -> str:
    """Return the level of any factor at which the main scorer agrees least, and the best level of that factor."""
    means = [
        (mean.mean, factor, f"{shown(level)}, {METRICS['spearman'].text(mean)}")
        for factor in orders.grounds
        for (scorer, level), mean in orders.correlations("scorer", factor).items()
        if scorer == orders.main
    ]
    if not means:
        return ""
    low, factor, lowest = min(means, key=lambda row: row[0])
    high, _, highest = max((row for row in means if row[1] == factor), key=lambda row: row[0])
    return f"The correlation is lowest at {factor} {lowest}, and highest at {highest}." if low < high else ""


def indefinite(orders: Orders) -> str:
    """Return the count of indefinite matrices, and its meaning; nothing if there is none."""
    cases = orders.table["indefinite"][orders.table["scorer"] == orders.main].dropna()
    why = "is indefinite (an eigenvalue is below zero): there influence does not tell what retraining would do"
    return f"In {cases.sum():.0f} of {len(cases)} cases the inverted matrix {why}." if cases.any() else ""


def against_ip(orders: Orders, gains: Sequence[Gain]) -> str:
    """Return the scorers that agree better than ip over all settings, and the difference of each with p."""
    overall = [gain for gain in gains if gain.place == ALL]
    if not overall:
        several = len(set(orders.scorers) - set(orders.rivals)) > 1
        return "No scorer is compared with another: that takes runs of ip at the same settings." if several else ""
    better = ", ".join(gain.scorer for gain in overall if gain.verdict == "better")
    none = "measurably better than" if any(gain.p is not None for gain in overall) else "judged against"
    first = f"Better than ip: {better}" if better else f"No other scorer is {none} ip"
    tests = ["" if gain.p is None else f", p {p_value(gain.p)}" for gain in overall]
    texts = [f"{gain.scorer} {gain.texts[0]}{p}, {gain.verdict}" for gain, p in zip(overall, tests, strict=True)]
    return f"{first} (difference in rank correlation: {'; '.join(texts)})."


def constant(orders: Orders) -> str:
    """Return the number of runs in which all samples have the same score, by scorer; nothing if there is none.

    Both correlations are 0 there at every damping, and the AUC is 0.5.
    """
    table = orders.table.fillna({"auc": 0.5})
    same = (table["spearman"] == 0) & (table["kendall"] == 0) & (table["auc"] == 0.5)
    flat = same.groupby(table["run"]).transform("all")
    counts = table[flat].groupby("scorer", observed=True)["run"].nunique()
    runs = ", ".join(f"{counted(count, 'run')} of {scorer}" for scorer, count in counts.items())
    why = "that orders nothing, and its rank correlation counts as 0"
    return f"All samples have the same score in {runs}: {why}." if runs else ""


def explanation(orders: Orders) -> str:
    """Return a note on the comparison, its measures, and its samples."""
    first, order = orders.results[0], orders.results[0]["config"]["order"]
    dampings = ", ".join(f"{damping:g}" for damping in order["dampings"])
    return (
        "Scores are compared with u . grad loss_i, u = (C + lambda I)^-1 grad v, at the baseline model. C is by "
        f"{order['reference']} (hessian: the exact Hessian H of the mean training loss); lambda is {dampings}. "
        "Spearman's rho and Kendall's tau are 1 for the same order, 0 for unrelated ones, and -1 for the reverse. "
        f"Overlap is the part of the lowest {100 * order['share']:g} % of one order that is among those of the "
        "other. A number is a mean over all else that was swept, with its 95 % interval over seeds. There are "
        f"{first['sizes']['train']} training and {first['sizes']['validation']} validation samples, and "
        f"{counted(orders.table['seed'].nunique(), 'seed')}: each draws data, flips, first weights and order of "
        "training. A matrix is definite if all eigenvalues of H + lambda I are above zero."
    )


def overall_section(orders: Orders) -> Section:
    """Return the table of every scorer over all settings."""
    names, means = (*AGREEMENT, "auc"), orders.means("scorer")
    times = orders.table.groupby("scorer", observed=True)[["seconds", "reference_seconds"]].median()
    rows = [
        (scorer, *(METRICS[name].text(row[name]) for name in names), SECONDS.text(times["seconds"][scorer]))
        for (scorer,), row in means.items()
    ]
    auc = METRICS["reference_auc"].text(means[orders.main,]["reference_auc"])
    rows.append((orders.reference, "-", "-", "-", auc, SECONDS.text(times["reference_seconds"][orders.main])))
    text = (
        "AUC: the chance that a sample with a known wrong label scores lower than another; of the influence, over "
        "all dampings. Seconds: the median of one scoring; of the influence, at all dampings together."
    )
    header = ("scorer", *(METRICS[name].title for name in names), SECONDS.title)
    return Section("order", "Over all settings", text, header, rows)


def sections_by_factor(orders: Orders) -> list[Section]:
    """Return a table for each factor, and a chart of its levels by damping."""
    titles = [metric.title.format(orders.reference) for metric in METRICS.values()]
    text = (
        "Angles are in degrees to grad v: of u ('angle'), and of the gradients of samples with a wrong label "
        "('wrong') and of all others. Indefinite: the share of inverted matrices with an eigenvalue below zero."
    )
    sections = []
    for number, factor in enumerate(orders.grounds, start=1):
        rows = [
            (shown(level), scorer, *(metric.text(row[name]) for name, metric in METRICS.items()))
            for (level, scorer), row in orders.means(factor, "scorer").items()
        ]
        heading, header, drawn = f"By {factor}", (factor, "scorer", *titles), chart(orders, factor)
        sections.append(Section(f"factor_{number}", heading, text, header, rows, drawn, facets=("scorer",)))
    return sections


def chart(orders: Orders, factor: str) -> str:
    """Return Spearman's rho against damping by level, or by scorer; nothing for one damping or seed."""
    if "damping" not in orders.factors or orders.table["seed"].nunique() < 2:
        return ""
    lines: dict[str, dict[float, Mean]] = {}
    levels = [factor] if factor != "damping" else []
    for (scorer, *level, damping), mean in orders.correlations("scorer", *levels, "damping").items():
        if not level or scorer == orders.main:
            lines.setdefault(", ".join([scorer, *map(shown, level)]), {})[damping] = mean
    return curves(lines, Axis("damping lambda", log=True), Axis("Spearman's rho"), level=0)


def gains_section(gains: Sequence[Gain]) -> list[Section]:
    """Return the table of the differences between other scorers and ip; none if there is no other."""
    rows = [(gain.scorer, gain.place, *gain.texts, p_value(gain.p), gain.verdict) for gain in gains]
    text = (
        "Differences at the same settings, paired by seed, with 95 % intervals. p is of Spearman's rho by the "
        "paired t test, after Holm's correction over the whole table."
    )
    header = ("scorer", "where", *(metric.title for metric in GAINS.values()), "p", "verdict")
    return [Section("gains", "Against ip", text, header, rows, facets=("scorer",))] if rows else []


def settings_section(orders: Orders) -> list[Section]:
    """Return every setting with the order of the main scorer, the worst first; none for a single setting."""
    if not orders.factors:
        return []
    metrics = {name: METRICS[name] for name in (*AGREEMENT, "angle")} | {"lowest": LOWEST}
    own = orders.table[orders.table["scorer"] == orders.main]
    groups = own.groupby([*orders.factors], sort=False, observed=True)
    data = groups[[*metrics]].mean().join(groups["seed"].nunique().rename("seeds"))
    data = data.sort_values("spearman", kind="stable").reset_index()
    data = data.astype(dict.fromkeys(data.select_dtypes("category"), str))
    rows = [
        (*(shown(row[name]) for name in orders.factors), *(metrics[name].text(row[name]) for name in metrics))
        for row in data.to_dict("records")
    ]
    header = (*orders.factors, *(metric.title for metric in metrics.values()))
    text = f"Means of {orders.main} over seeds, the worst first."
    table = Section("settings", "Every setting", text, header, rows, data=data, facets=orders.factors)
    return [replace(table, collapsed=True, html_only=True)]


def agreement(first: np.ndarray, second: np.ndarray, share: float) -> dict[str, float]:
    """Return Spearman's rho, Kendall's tau-b, and the overlap of the lowest `share`, of two scores (n,).

    Both correlations are in [-1, 1], and 0 if one of the scores is the same for all: that orders nothing.
    overlap: see `overlap`; for scores that have nothing to do with each other it is `share` on the mean.
    """
    flat = np.ptp(first) == 0 or np.ptp(second) == 0
    return {
        "spearman": rank_correlation(first, second),
        "kendall": 0.0 if flat else float(kendalltau(first, second).statistic),
        "overlap": overlap(first, second, share),
    }


def overlap(first: np.ndarray, second: np.ndarray, share: float) -> float:
    """Return which part of the round(share * n) lowest, one at least, of one score are among those of the other.

    Ties go to the lower row.
    """
    count = max(1, round(share * len(first)))
    lowest = [set(np.argsort(scores, kind="stable")[:count].tolist()) for scores in (first, second)]
    return len(lowest[0] & lowest[1]) / count


def auc_of(scores: np.ndarray, wrong: np.ndarray) -> float | None:
    """Return the chance that a `wrong` sample, bool (n,), scores lower than another; None without both kinds."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(wrong, -scores)) if 0 < wrong.mean() < 1 else None
