"""What the page of orders begins with: is the order kept, where does it break, and does another scorer mend it."""

from __future__ import annotations

from collections.abc import Sequence

from defense.reporting.statistics import ALPHA, Mean, Paired, p_value
from defense.tasks.order.table import ALL, Gain, Orders, shown

VERBS = (  # by the rank correlation from which on they are said
    (0.9, "keeps"),
    (0.6, "keeps much of"),
    (0.3, "keeps a part of"),
    (0.0, "keeps little of"),
    (-1.0, "turns against"),
)


def answer(orders: Orders, gains: Sequence[Gain]) -> str:
    """Return whether the main scorer keeps the order, where it breaks, and whether another mends it."""
    return " ".join(filter(None, (kept(orders), broken(orders), mended(gains), detecting(orders))))


def kept(orders: Orders) -> str:
    """Return how well the main scorer keeps the order, beside chance."""
    main = orders.main
    rho, overlap = orders.mean("spearman", main), orders.mean("overlap", main)
    assert rho
    assert overlap
    chance = [scorer for scorer in orders.scorers if scorer == "random" and scorer != main]
    beside = [f"; at random {words(orders.mean('spearman', scorer), 'spearman')}" for scorer in chance]
    share = 100 * orders.results[0]["config"]["order"]["share"]
    verb = next(words for least, words in VERBS if rho.mean >= least)
    if not rho.judgeable:
        verb = "beside"
    elif not rho.differs_from_zero:
        verb = "does not measurably keep"
    seeds = f"{rho.count} seeds" if rho.count > 1 else "one seed, no interval"
    return (
        f"{main} {verb} the order of {orders.reference}: rank correlation {words(rho, 'spearman')} "
        f"({seeds}{''.join(beside)}), and {words(overlap, 'overlap')} % of the lowest {share:g} % are shared "
        f"({share:g} % by chance)."
    )


def broken(orders: Orders) -> str:
    """Return the level at which the order is kept worst and best, of every factor."""
    said = []
    for factor in orders.grounds:
        means = {level: orders.mean("spearman", orders.main, {factor: level}) for level in orders.levels(factor)}
        found = {level: mean for level, mean in means.items() if mean}
        if len(found) > 1:
            worst, best = (pick(found, key=lambda level: found[level].mean) for pick in (min, max))
            said.append(
                f"{factor} {shown(worst)} ({found[worst].mean:+.2f}; {shown(best)}: {found[best].mean:+.2f})"
            )
    return f"It is kept worst at {', '.join(said)}." if said else ""


def mended(gains: Sequence[Gain]) -> str:
    """Return what every other scorer has over ip over all, and at how many levels it is better or worse."""
    said = []
    for gain in (gain for gain in gains if gain.level == ALL and not gain.factor):
        own = [other for other in gains if other.scorer == gain.scorer and other.factor]
        better, worse = (sum(outcome(other) == word for other in own) for word in ("better", "worse"))
        where = f"; at {len(own)} levels better {better}, worse {worse} times" if own else ""
        tested = f"p {p_value(gain.p)}" if gain.p is not None else "not judged"
        said.append(f"{gain.scorer} {signed(gain.spearman, '{:+.3f}', 1)}, {tested}: {outcome(gain)}{where}")
    return f"Spearman's rho against ip's: {'. '.join(said)}." if said else ""


def detecting(orders: Orders) -> str:
    """Return how well the main scorer and the influence find wrong labels."""
    own, other = (orders.mean(name, orders.main) for name in ("auc", "reference_auc"))
    if not own or not other:
        return ""
    return (
        f"AUC for the wrong labels: {orders.main} {words(own, 'auc')}, {orders.reference} {words(other, 'auc')}."
    )


def outcome(gain: Gain) -> str:
    """Return 'better', 'worse' or that nothing can be told, after correction."""
    if gain.p is None:
        return "not judged"
    if gain.p >= ALPHA:
        return "not distinguishable"
    return "better" if gain.spearman.difference.mean > 0 else "worse"


def words(mean: Mean | None, metric: str) -> str:
    """Return '+0.912 (+0.901 to +0.923)', an overlap in percent, an AUC without sign; '-' for nothing.

    No interval leaves the range of its metric.
    """
    if mean is None:
        return "-"
    form, scale, least = {"overlap": ("{:.1f}", 100.0, 0.0), "auc": ("{:.3f}", 1.0, 0.0)}.get(
        metric, ("{:+.3f}", 1.0, -1.0)
    )
    said = form.format(scale * mean.mean)
    if not mean.judgeable:
        return said
    ends = (form.format(scale * end) for end in (max(mean.low, least), min(mean.high, 1.0)))
    return f"{said} ({' to '.join(ends)})"


def signed(paired: Paired, form: str, scale: float) -> str:
    """Return a difference with its interval."""
    mean = paired.difference
    said = form.format(scale * mean.mean)
    if not mean.judgeable:
        return said
    return f"{said} ({form.format(scale * mean.low)} to {form.format(scale * mean.high)})"
