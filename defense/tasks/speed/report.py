"""How many times as long as one scorer others take on the same work: one cell, and many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defense.config.choices import Clock, Method
from defense.reporting.archive import Row
from defense.reporting.charts import Axis, curves
from defense.reporting.page import Page, Section
from defense.reporting.run import Scoring, common
from defense.reporting.statistics import Mean
from defense.reporting.sweeps import Grid, Result, columns_of, command_of, made_of
from defense.runtime.runtime import Runtime
from defense.tasks.speed.contestants import computed
from defense.tasks.speed.timings import Timings, number, said, spoken
from defense.tasks.writing import written

CLOCKS = {
    Clock.processor: "Processor time, to which other work on the machine adds little",
    Clock.wall: "Time by the clock on the wall",
}


def timing_result(run: Scoring, found: dict[str, Any]) -> dict[str, Any]:
    """Return what result.json holds of what was `found`, as `defense.tasks.speed.run` makes it."""
    return {"speed": found, **common(run)}


def timing_page(results: Sequence[dict[str, Any]], title: str) -> Page:
    """Return the page of one run or many: factors by rival and work, and seconds as N, V and the model grow."""
    own = results[0]["config"]["scorer"]["name"]
    grid: Grid[dict[str, Any]] = Grid.of(results, lambda result: result["speed"])
    timings = [
        Timings(column, [found for row in grid.rows for found in grid.values(row, column)])
        for column in columns_of(results)
    ]
    timings.sort(key=lambda found: found.parameters)
    sections = [table_of(number, own, found) for number, found in enumerate(timings, start=1)]
    sections += [chart for number, found in enumerate(timings, start=1) for chart in charts_of(number, own, found)]
    if len(timings) > 1:
        sections.append(by_model(own, timings))
    sections.append(contestants(results, timings))
    facts = [machine(results)]
    return Page(
        f"{title}: how much faster is {own}?",
        answer(own, timings),
        command_of(results),
        sections,
        made_of(results),
        notes=facts,
    )


def answer(own: str, timings: Sequence[Timings]) -> str:
    """Return how many times as long as `own` others take on the first work of the largest model, and overall."""
    largest = timings[-1]
    first = largest.works[0]
    factors = {name: largest.factor(name, first) for name in largest.rivals}
    measured = {name: factor for name, factor in factors.items() if factor}
    kinds: dict[str, list[str]] = {"faster": [], "slower": [], "level": []}
    for name, factor in sorted(measured.items(), key=lambda item: -item[1].mean):
        kind = "level" if not decided(factor) else "faster" if factor.mean > 1 else "slower"
        interval = f" ({number(factor.low)} to {number(factor.high)})" if factor.judgeable else ""
        words = f"{number(factor.mean)} times{interval}"
        kinds[kind].append(f"{words} as fast as {name}" if kind == "faster" else f"{name}, {words} as long")
    where = f"{largest.column}, " if largest.column else ""
    over = f" (means and 95 % intervals over {largest.count} seeds)" if largest.count > 1 else " (one seed)"
    sentences = [f"On {where}{spoken(first)}, {own} is {', '.join(kinds['faster']) or 'faster than none'}{over}."]
    if kinds["slower"]:
        sentences.append(f"It is slower than {'; '.join(kinds['slower'])}.")
    if kinds["level"]:
        sentences.append(f"Not distinguishable from it: {'; '.join(kinds['level'])}.")
    return " ".join([*sentences, over_all(own, timings)])


def decided(factor: Mean) -> bool:
    """Return whether a factor is told from 1; one seed tells nothing of luck, and is taken as it is."""
    return factor.count == 1 or factor.low > 1 or factor.high < 1


def over_all(own: str, timings: Sequence[Timings]) -> str:
    """Return the range of each rival's factor over all works, and where `own` is not the faster of the two."""
    count = sum(len(found.works) for found in timings)
    if count < 2:
        return ""
    ranges, losses = [], []
    for name in largest_first(timings[-1]):
        factors = {
            f"{found.column} {work}".strip(): factor
            for found in timings
            for work in found.works
            if (factor := found.factor(name, work)) and factor.count == found.count
        }
        if not factors:
            continue
        means = [factor.mean for factor in factors.values()]
        ranges.append(f"{name} {number(min(means))} to {number(max(means))}")
        lost = [where for where, factor in factors.items() if not (decided(factor) and factor.mean > 1)]
        if lost:
            losses.append(f"{name} on {'all' if len(lost) == len(factors) else ', '.join(lost)}")
    lines = f"Factors over {count} works, those that each was run on under all seeds: {', '.join(ranges)}."
    return f"{lines} Where {own} is slower, or not distinguishable: {'; '.join(losses) or 'nowhere'}."


def table_of(place: int, own: str, found: Timings) -> Section:
    """Return the factors of one model: a row for each rival, a column for each work."""
    rows = [(name, *(found.cell(name, work) for work in found.works)) for name in largest_first(found)]
    rows.append((f"{own}, seconds", *(said(found.own(work)) for work in found.works)))
    install = "not installed: pip install -e '.[peers]'"
    absent = [(name, install, *[""] * (len(found.works) - 1)) for name in found.missing]
    seeds = f"{found.count} seeds" if found.count > 1 else "1 seed"
    return Section(
        f"factors_{place}",
        f"Times as long as {own}: {found.column or 'this model'}, {found.parameters:,} parameters",
        f"Columns: training x validation samples. Geometric means over {seeds} of medians over rounds, in brackets"
        f" the 95 % interval over seeds. Above 1: {own} is faster. Not run: what had taken longer than "
        "speed.seconds on a smaller work.",
        ("scorer", *map(str, found.works)),
        [*rows, *absent],
        data=found.numbers(own),
    )


def largest_first(found: Timings) -> list[str]:
    """Return the rivals by their factor on the first work, those that were not run there last."""
    factors = {name: found.factor(name, found.works[0]) for name in found.rivals}
    return sorted(factors, key=lambda name: -(factor.mean if (factor := factors[name]) else 0))


def charts_of(place: int, own: str, found: Timings) -> list[Section]:
    """Return seconds against N at the first V, and against V at the N that has the most of them."""
    sections = []
    growing = (("train", "training", found.growing_train), ("validation", "validation", found.growing_validation))
    for field, what, works in growing:
        if len(works) < 2:
            continue
        fixed = f"{works[0].validation} validation" if field == "train" else f"{works[0].train:,} training"
        lines = {
            name: {getattr(work, field): mean for work in works if (mean := found.seconds(name, work))}
            for name in (own, *found.rivals)
        }
        heading = f"Seconds against {what} samples, {fixed} samples: {found.column or 'this model'}"
        measured = {name: line for name, line in lines.items() if line}
        chart = curves(measured, Axis(f"{what} samples", log=True), Axis("seconds", log=True))
        sections.append(Section(f"seconds_{what}_{place}", heading, chart=chart, html_only=True))
    return sections


def by_model(own: str, timings: Sequence[Timings]) -> Section:
    """Return the factors on the first work against the number of parameters."""
    first = timings[-1].works[0]
    lines: dict[str, dict[float, Mean]] = {}
    for found in timings:
        for name in found.rivals:
            if factor := found.factor(name, first):
                lines.setdefault(name, {})[found.parameters] = factor
    models = ", ".join(f"{found.column} {found.parameters:,}" for found in timings)
    axes = Axis(f"parameters: {models}", log=True), Axis(f"times as long as {own}", log=True)
    chart = curves(lines, *axes, level=1)
    return Section("models", f"Factors by model, {spoken(first)}", chart=chart, html_only=True)


def contestants(results: Sequence[dict[str, Any]], timings: Sequence[Timings]) -> Section:
    """Return what each computes, and how its scores agree with those of the scorer that it is timed beside."""
    config = results[0]["config"]
    rows = [(config["scorer"]["name"], computed(config["scorer"], config), "1", "-")]
    for name in timings[-1].rivals:
        agreement = [value for found in timings for value in found.all(name, "agreement")]
        residuals = [value for found in timings for value in found.all(name, "residual")]
        spread = f"{min(agreement):+.3f} to {max(agreement):+.3f}" if agreement else "-"
        left = f"{max(residuals):.2g}" if residuals else "-"
        rows.append((name, computed(config["speed"]["scorers"].get(name, name), config), spread, left))
    rows += [(name, computed(name, config), "not installed", "-") for name in timings[-1].missing]
    return Section(
        "contestants",
        "What is timed",
        "From a trained model and samples in memory to a score for each training sample: gradients of the "
        "validation samples, solvers and factors included, training not. Rank correlation: with the scores "
        f"of {config['scorer']['name']} on the same work, lowest and highest of all works and seeds. Residual: of "
        "the inverse, relative, the worst." + through_training(results) + same(timings),
        ("scorer", "score of sample i", "rank correlation", "worst residual"),
        rows,
    )


def through_training(results: Sequence[dict[str, Any]]) -> str:
    """Return that a metagradient trains again; nothing if none is timed."""
    scorers = [results[0]["config"]["scorer"], *results[0]["config"]["speed"]["scorers"].values()]
    if not any(scorer["method"] == Method.metagradient for scorer in scorers):
        return ""
    epochs = " or ".join(dict.fromkeys(str(result["config"]["train"]["epochs"]) for result in results))
    return f" A metagradient trains again, and goes back through that training: {epochs} epochs."


def same(timings: Sequence[Timings]) -> str:
    """Return whether the libraries that compute the very same scores do so."""
    lowest = {
        name: min(values)
        for name in timings[-1].exact
        if (values := [value for found in timings for value in found.all(name, "agreement")])
    }
    apart = [name for name, value in lowest.items() if value < 0.999]
    if apart:
        return f" {', '.join(apart)}: should be the same scores and are NOT; do not compare their time."
    return f" {', '.join(lowest)}: the same scores, as their rank correlation shows." if lowest else ""


def machine(results: Sequence[dict[str, Any]]) -> str:
    """Return how time was taken, how much else the machine had to do, and what larger works are made of."""
    clocks = sorted({CLOCKS[Clock(result["config"]["speed"]["clock"])] for result in results})
    threads = sorted({result["speed"]["threads"] for result in results})
    loads = [load for result in results for load in result["speed"]["load"] if load is not None]
    beside = f"; load average of the machine {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    sizes = results[0]["sizes"]
    return (
        f"{', '.join(clocks)}; {' or '.join(map(str, threads))} thread(s){beside}. There are {sizes['train']:,} "
        f"training and {sizes['validation']:,} validation samples; larger works have some of them again, which "
        "costs the same."
    )


def write_speed(runtime: Runtime, run: Scoring, found: dict[str, Any], output: Path) -> dict[str, Any]:
    """Write how long the scorers took, as `found` by `tasks.speed.run`; return the content of result.json."""
    numbers = timing_result(run, found)
    return written(runtime, run, numbers, lambda: timing_page([numbers], run.config.name), output)


def by_work(result: Result) -> list[Row]:
    """Return a row a work and scorer, the run's own first: the seconds, and what it is beside the run's own."""
    own = result["config"]["scorer"]["name"]
    return [
        {"train": work["train"], "validation": work["validation"], "scorer": name, **numbers}
        for work in result["speed"]["works"]
        for name, numbers in ({own: {"seconds": work["seconds"]}} | work["rivals"]).items()
    ]
