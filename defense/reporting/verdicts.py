"""Comparisons in words: the answer, what it rests on, and chance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from defense.config.choices import Method
from defense.reporting.compare import BASELINE, CONTROL, Comparison, highest_of, judged, real, tally
from defense.reporting.frame import Setting


def rival_of(rows: Sequence[Comparison]) -> str:
    """Return the rival in words: 'random removal' if all settings remove samples."""
    if not rows[0].metric.arms:
        return rows[0].over
    if rows[0].over == BASELINE:
        return "no treatment"
    rivals = {row.setting.control for row in rows}
    return rivals.pop() if len(rivals) == 1 else "their random controls"


def answer(rows: Sequence[Comparison]) -> str:
    """Return how many settings are better than their rival and how many worse, and the best or the highest."""
    tested = judged(rows)
    if not tested:
        highest = [] if rows[0].metric.arms else [best_of(rows)]
        return " ".join(filter(None, (*highest, f"{why_unjudged(real(rows))}.", known(real(rows)))))
    text = how_many(tested)
    aside = dict.fromkeys(row.setting.method for row in rows if row.setting.is_rival and row not in tested)
    text += f" ({' and '.join(aside)} not counted)" if aside else ""
    corrected = sum(row.holm is not None for row in rows)
    text += f", corrected for {corrected} comparisons (Holm)" if corrected > 1 else ""
    return " ".join(filter(None, (f"{text}.", best_of(rows))))


def how_many(rows: Sequence[Comparison]) -> str:
    """Return how many settings are better than their rival and how many worse, a sentence without its end."""
    count, rival, (better, worse) = len(rows), rival_of(rows), tally(rows)
    apart = len({row.setting.config["scorer"]["name"] for row in rows}) == count
    noun = "scorers" if not rows[0].metric.arms and apart else "settings"
    if count == 1:
        outcome = "better than" if better else "worse than" if worse else "not distinguishable from"
        return f"{'The treatment' if rows[0].metric.arms else rows[0].setting.name} is {outcome} {rival}"
    if not better and not worse:
        return f"None of {count} {noun} is distinguishable from {rival}"
    text = f"{better} of {count} {noun} {'is' if better == 1 else 'are'} better than {rival}"
    return f"{text}, {worse} worse" if worse else text


def best_of(rows: Sequence[Comparison]) -> str:
    """Return the setting with the best value beside no treatment, in each of at most three comparison groups."""
    highest = highest_of(rows)
    if len(highest) > 3:
        return ""
    if len(highest) == 1 and len(judged(rows)) == 1 and rows[0].metric.arms:
        return " ".join(tell(top, f"{top.setting.name} reaches") for top in highest.values())
    return " ".join(tell_group(top, rows, alone=len(highest) == 1) for top in highest.values())


def tell_group(top: Comparison, rows: Sequence[Comparison], *, alone: bool) -> str:
    """Return the best setting of a comparison group, after those better than their rival if it is not."""
    place = top.setting.place if top.metric.arms else top.metric.group_of(top.setting)
    where = "" if alone or not place else f" of {place}"
    own = [row for row in judged(rows) if row.setting.group == top.setting.group]
    better = "" if top.better or not top.metric.arms else name_better(own, where)
    extreme = "Lowest" if top.metric.lower_is_better else "Highest"
    chance = top.pair is not None and not top.differs and top.holm is not None
    word = f"Best{where}" if top.better else f"{extreme}{where}{', perhaps by chance' * chance}"
    return f"{better}{tell(top, f'{word}: {top.setting.name} at')}"


def name_better(rows: Sequence[Comparison], where: str, *, shown: int = 3) -> str:
    """Return the settings of a group that are better than their rival, at most `shown`; nothing of none."""
    better = [f"{row.setting.name} {row.difference}" for row in rows if row.better]
    more = f" and {len(better) - shown} more" if len(better) > shown else ""
    return f"Better{where}: {'; '.join(better[:shown])}{more}. " if better else ""


def tell(row: Comparison, subject: str) -> str:
    """Return the value of a setting, its gain with interval, and the value without any treatment, a sentence."""
    setting, metric, gain = row.setting, row.metric, row.difference
    mean = metric.mean(setting)
    if gain is None:
        return f"{subject} {mean.text(metric.decimals, signed=metric.signed)}."
    value = f"{mean.mean:.{metric.decimals}f} {metric.unit}".rstrip()
    change, _, ends = gain.text(metric.decimals).partition(" (")
    than = "against" if metric.lower_is_better else "over"
    text = f"{subject} {value}, {' '.join(filter(None, (change, metric.step)))} {than} {rival_of([row])}"
    text += f" (95 % interval over {gain.count} seeds: {ends}" if ends else ""
    text += ", worse" if row.differs and not row.better else ""
    if not metric.arms:
        return f"{text}."
    return f"{text}; {metric.mean(setting, BASELINE).mean:.{metric.decimals}f} {metric.unit} without treatment."


def known(rows: Sequence[Comparison], *, shown: int = 3) -> str:
    """Return the differences of conclusive rows that cannot be judged, at most `shown`; nothing without any."""
    told = [
        f"{row.setting.name} {row.pair.difference.mean:+.{row.metric.decimals}f}"
        for row in rows
        if row.pair and not row.setting.inconclusive
    ]
    more = f" and {len(told) - shown} more" if len(told) > shown else ""
    from_what = ", ".join(filter(None, (f"Differences from {rival_of(rows)}", rows[0].metric.step)))
    return f"{from_what}: {'; '.join(told[:shown])}{more}." if told else ""


def why_unjudged(rows: Sequence[Comparison]) -> str:
    """Return why none of some rows is judged."""
    reasons = dict.fromkeys(row.setting.inconclusive for row in rows)
    if all(reasons):
        return f"No setting can be judged: {' or '.join(reasons)}"
    paired = [row.pair for row in rows if row.pair is not None]
    if not paired:
        return f"Nothing is judged: no run of {rows[0].over} has a seed and all else in common with another scorer"
    if all(pair.difference.count < 2 for pair in paired):
        return "One seed: the intervals that a judgement needs are over seeds, as in seed=range(5)"
    return "No setting can be judged: its seeds give one gain or no second one; more seeds would tell"


def caveat(rows: Sequence[Comparison]) -> str:
    """Return what the answer rests on: chance alone, settings that are not judged."""
    parts = [unjudged(rows)] if judged(rows) else []
    if sum(row.holm is not None for row in rows) > 1:
        rival = "random" if rows[0].metric.arms else rows[0].over
        parts.append(f"If no setting differed from {rival}, at most 5 % of such pages would report a difference.")
    return " ".join(filter(None, (*parts, by_luck(rows))))


def unjudged(rows: Sequence[Comparison]) -> str:
    """Return how many settings are not judged, and why; nothing if all are."""
    reasons = Counter(reason for row in rows if (reason := row.setting.inconclusive))
    others = [row for row in rows if row.pair is not None and not row.setting.inconclusive]
    alone = sum(row.pair is None and row.setting.scorer != row.over for row in rows)
    single = sum(row.pair.difference.count < 2 for row in others if row.pair)
    flat = sum(row.holm is None for row in others) - single
    parts = [f"{single} of one seed" if single else "", f"{flat} with the same gain in every seed" if flat else ""]
    parts += [f"{alone} without a run of {rows[0].over} beside it"] if alone else []
    parts += [f"{count}, as {reason}" for reason, count in reasons.items()]
    return f"Not judged: {' and '.join(filter(None, parts))}." if any(parts) else ""


def by_luck(rows: Sequence[Comparison]) -> str:
    """Return which random scores are called better or worse than their random control; nothing if none is."""
    told = [
        f"{row.told} by {row.metric.name}"
        for row in rows
        if row.over == CONTROL and row.differs and row.setting.method == Method.random.value
    ]
    if not told:
        return ""
    text = f"Random scores, too, are called different from a random control, by luck alone: {'; '.join(told)}."
    return f"{text} Read small differences with care."


def shared_control(settings: Sequence[Setting]) -> list[str]:
    """Return a line if settings of one column have one control: one whose accuracies are all the same."""
    controls = [
        (setting.column, run["seed"], json.dumps(run["arms"][CONTROL], sort_keys=True))
        for setting in settings
        for run in setting.runs
    ]
    text = "Settings that differ in their scorer alone share one random control for each seed, and its luck."
    return [text] if len(set(controls)) < len(controls) else []
