"""How many times as long as one scorer do others take on the same workload? One run, and many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
import pandas as pd

from defense.config.choices import Clock, Direction, Members, Method, Peer
from defense.reporting.archive import Row
from defense.reporting.charts import Axis, curves
from defense.reporting.facts import command_of, counted, made_of
from defense.reporting.frame import Setting, settings_of
from defense.reporting.page import Page, Section
from defense.reporting.reading import Result
from defense.reporting.run import Scoring
from defense.reporting.statistics import Mean, geometric
from defense.runtime.runtime import Runtime
from defense.tasks.writing import common, written

CLOCKS = {
    Clock.processor: "processor time, to which other work on the machine adds little",
    Clock.wall: "wall-clock time",
}
# columns of a setting (reference: its scorer, that others are compared with), of a workload, and of measurements
SETTING, WORK = ["reference", "title", "parameters", "seeds"], ["train", "validation"]
MEASURED = ["seconds", "factor", "agreement", "residual"]
SAME = 0.999  # rank correlation from which on two scores are taken for the same
SLOWER, FASTER, LEVEL = "Slower than", "Faster than", "Not distinguishable from"


def write_speed(runtime: Runtime, run: Scoring, found: dict[str, Any], output: Path) -> dict[str, Any]:
    """Write how long scorers took, `found` by `defense.tasks.speed.run`; return the content of result.json."""
    numbers = {"speed": found, **common(run)}
    return written(runtime, run, numbers, lambda: timing_page([numbers], run.config.name), output)


def by_work(result: Result) -> list[Row]:
    """Return a row for each workload and scorer: its seconds, and how it compares with the scorer of the run."""
    own = result["config"]["scorer"]["name"]
    return [
        {"train": work["train"], "validation": work["validation"], "scorer": name, **numbers}
        for work in result["speed"]["works"]
        for name, numbers in ({own: {"seconds": work["seconds"]}} | work["rivals"]).items()
    ]


def timing_page(results: Sequence[Result], title: str) -> Page:
    """Return the page of one run or many: factors by scorer and workload, and seconds as workloads grow."""
    settings = settings_of(results)
    rows = pd.concat([rows_of(setting, title_of(setting, settings)) for setting in settings])
    rows = rows.sort_values("parameters", kind="stable")
    times = means_of(rows)
    models = [table for _, table in times.groupby(SETTING, sort=False)]
    groups = [table for _, table in times.groupby("reference", sort=False)]  # one, unless the scorer was swept
    overviews = [overview(place, group) for place, group in enumerate(groups, 1)]
    sections = [section for section in overviews if section.rows]
    sections += [table_of(place, table) for place, table in enumerate(models, 1)]
    sections += [section for place, table in enumerate(models, 1) for section in charts_of(place, table)]
    sections += [section for place, group in enumerate(groups, 1) for section in by_model(place, group)]
    absent = dict.fromkeys(name for result in results for name in result["speed"]["missing"])
    missing = [name for name in absent if name not in set(rows["scorer"])]
    sections += [
        scorers_of(place, of, missing) for place, (_, of) in enumerate(rows.groupby("reference", sort=False), 1)
    ]
    return Page(
        f"{title}: how many times as long as {' or '.join(rows['reference'].unique())} do other scorers take?",
        "\n".join(answer(group, section.rows) for group, section in zip(groups, overviews, strict=True)),
        command_of(results),
        sections,
        made_of(results),
        notes=[conditions(results)],
        warning=not_the_same(rows[rows["exact"]]),
    )


def title_of(setting: Setting, settings: Sequence[Setting]) -> str:
    """Return the swept settings in words; if others share them, also differing versions and a number."""

    def plain(one: Setting) -> tuple[str, str]:
        return one.row.removesuffix(one.mark), one.column

    twins = [other.runs[0] for other in settings if plain(other) == plain(setting)]
    if len(twins) == 1:
        return setting.column
    made, *others = ({**run["versions"], "device": run["device"]} for run in (setting.runs[0], *twins))
    differ = (f"{name} {value}" for name, value in made.items() if any(of.get(name) != value for of in others))
    return ", ".join(filter(None, (setting.column, *differ, f"no. {twins.index(setting.runs[0]) + 1}")))


def rows_of(setting: Setting, title: str) -> pd.DataFrame:
    """Return a row for each seed, workload and scorer of a setting; NaN of a scorer that was not run."""
    rows: list[Row] = []
    reference = setting.row.removesuffix(setting.mark)
    for run in sorted(setting.runs, key=lambda run: int(run["seed"])):
        config, own = run["config"], run["config"]["scorer"]["name"]
        scorers = config["speed"]["scorers"] | {own: config["scorer"]}
        for row in by_work(run):
            name = row["scorer"]
            known = {"seed": run["seed"], "exact": name in run["speed"]["exact"]}
            known["computes"] = computed(scorers.get(name, name), config)
            rows.append(known | row | ({"scorer": reference, "factor": 1.0} if name == own else {}))
    table = pd.DataFrame(rows, columns=["seed", "exact", "computes", *WORK, "scorer", *MEASURED])
    once = ["seed", *WORK, "scorer"]  # a workload may be given twice
    table = table.astype(dict.fromkeys(MEASURED, float)).drop_duplicates(once)
    values = (reference, title, setting.runs[0]["speed"]["parameters"], len(setting.runs))
    return table.assign(**dict(zip(SETTING, values, strict=True)))


def computed(scorer: dict[str, Any] | str, config: dict[str, Any]) -> str:
    """Return the score of sample i in words, by a scorer (its settings) or a library (its name), in a run."""
    if isinstance(scorer, str):
        return Peer(scorer).words
    method = Method(scorer["method"])
    if method is Method.metagradient:
        return f"{method.words}; trains again, {config['train']['epochs']} epochs"
    if method is not Method.alignment:
        return method.words.format(**scorer)
    numbers = scorer | {"checkpoints": config["train"]["checkpoints"]}
    words = Direction(scorer["direction"]).words + Members(scorer["members"]).words
    return words.format(**numbers) + (", as cosines" if scorer["cosine"] else "")


def means_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the geometric means of seconds and factors over seeds; None if no seed ran the scorer."""

    def mean(values: pd.Series) -> Mean | None:
        return geometric(values.dropna()) if values.notna().any() else None

    times = rows.groupby([*SETTING, *WORK, "scorer"], sort=False)[["seconds", "factor"]].agg(mean).reset_index()
    slowest_first = [-factor.mean if isinstance(factor, Mean) else 0.0 for factor in times["factor"]]
    works = [f"{train:,} x {validation:,}" for train, validation in times[WORK].values]
    return times.assign(work=works, order=slowest_first)


def with_interval(mean: Mean) -> str:
    """Return a factor or a time in two or three digits, with its interval if there is one: '310 (300 to 320)'."""
    ends = (mean.mean, mean.low, mean.high) if mean.judgeable else (mean.mean,)
    texts = [f"{float(f'{x:.3g}'):,.0f}" if x >= 100 else f"{x:.{3 if x >= 1 else 2}g}" for x in ends]
    return "{} ({} to {})".format(*texts) if mean.judgeable else texts[0]


def kind_of(factor: Mean) -> str:
    """Return the kind of another scorer by its factor; one seed has no interval, and the factor alone decides."""
    if factor.count > 1 and factor.low <= 1 <= factor.high:
        return LEVEL
    return SLOWER if factor.mean > 1 else FASTER


def on_the_first_work(table: pd.DataFrame) -> pd.DataFrame:
    """Return the other scorers on the first workload of a setting, the slowest first, those not run there last."""
    first = table[(table["work"] == table["work"].iloc[0]) & (table["scorer"] != table["reference"])]
    return first.sort_values("order", kind="stable")


def answer(group: pd.DataFrame, extremes: Sequence[Sequence[str]]) -> str:
    """Return the factors on the first workload of the largest model, a line for each kind, and all workloads.

    extremes: the rows of `overview`.
    """
    largest = group[group["title"] == group["title"].iloc[-1]]
    first, others = largest.iloc[0], on_the_first_work(largest).dropna(subset="factor")
    scorer, seeds = first["reference"], first["seeds"]
    place = samples(*first[WORK]) + (f" ({first['title']})" if first["title"] else "")
    sure = f"95 % intervals over {seeds} seeds" if seeds > 1 else "one seed: no interval"
    few = {row.scorer: row.factor.count for row in others.itertuples() if row.factor.count < seeds}
    lines = [f"On {place}, other scorers take this many times as long as {scorer} ({sure})."]
    for kind in (SLOWER, FASTER, LEVEL):
        pairs = zip(others["scorer"], others["factor"], strict=True)
        names = [
            f"{name} {with_interval(factor)}" + (f" ({few[name]} of {seeds} seeds)" if name in few else "")
            for name, factor in pairs
            if kind_of(factor) == kind
        ]
        lines += [f"{kind} {scorer}: {', '.join(names)}."] if names else []
    if extremes:
        exceptions = "; ".join(f"{name} on {where}" for name, _, _, where in extremes if where != "-")
        lines.append(f"Over all workloads, faster than {scorer} or not distinguishable: {exceptions or 'none'}.")
    return "\n".join(lines) if len(others) else f"No other scorer was timed beside {scorer}."


def samples(train: int, validation: int) -> str:
    """Return '256 training and 64 validation samples'."""
    return f"{train:,} training and {validation:,} validation samples"


def overview(place: int, group: pd.DataFrame) -> Section:
    """Return the lowest and the highest factor of each other scorer; no rows if there is a single workload."""
    scorer, rows = group["reference"].iloc[0], []
    table = group[group["scorer"] != scorer].dropna(subset="factor")
    table = table[table["factor"].map(lambda factor: factor.count) == table["seeds"]]
    for name, of in table.sort_values("order").groupby("scorer", sort=False):
        lost = of[of["factor"].map(kind_of) != SLOWER].sort_index()
        places = (f"{row.work} ({row.title})" if row.title else row.work for row in lost.itertuples())
        where = "all" if len(lost) == len(of) else ", ".join(places) or "-"
        rows.append((name, with_interval(of["factor"].iloc[-1]), with_interval(of["factor"].iloc[0]), where))
    return Section(
        f"workloads_{place}",
        f"Times as long as {scorer}: lowest and highest of all workloads",
        "Of the workloads that all seeds ran. Last column: on which the scorer is faster, or not distinguishable.",
        ("scorer", "lowest", "highest", f"not slower than {scorer}"),
        rows if len(group[["title", "work"]].drop_duplicates()) > 1 else [],
    )


def table_of(place: int, table: pd.DataFrame) -> Section:
    """Return the factors of one setting: a row for each scorer, a column for each workload."""
    scorer, title, parameters, seeds = table[SETTING].iloc[0]
    cells = {(row.scorer, row.work): cell(row) for row in table.itertuples()}
    works, names = table["work"].unique(), on_the_first_work(table)["scorer"]
    own = table[table["scorer"] == scorer]
    means = f"Geometric means over {seeds} seeds, in brackets their 95 % interval" if seeds > 1 else "One seed"
    rows = [(name, *(cells[name, work] for work in works)) for name in names]
    return Section(
        f"factors_{place}",
        f"Times as long as {scorer}: {title or 'this model'}, {parameters:,} parameters",
        f"Columns: training x validation samples. {means}; of each seed the median over rounds. Above 1: {scorer} "
        "is faster. Not run, or by some seeds alone: it took longer than speed.seconds on a smaller workload.",
        ("scorer", *works),
        [*rows, (f"{scorer}, seconds", *map(with_interval, own["seconds"]))],
        data=numbers_of(table),
    )


def cell(row: Any) -> str:
    """Return the factor of a row of `means_of` as a table shows it; if not all seeds ran the scorer, how many."""
    if not isinstance(row.factor, Mean):
        return "not run"
    few = f", {row.factor.count} of {row.seeds} seeds" if row.factor.count < row.seeds else ""
    return with_interval(row.factor) + few


def numbers_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return factors and seconds as plain numbers, with the ends of intervals if there are any."""
    rows = [
        (row.scorer, row.train, row.validation, row.seconds.mean, row.factor.mean, row.factor.count)
        + ((row.factor.low, row.factor.high) if row.factor.judgeable else (np.nan, np.nan))
        for row in table.dropna(subset="factor").itertuples()
    ]
    columns = ["scorer", *WORK, "seconds", "factor", "seeds", "low", "high"]
    return pd.DataFrame(rows, columns=columns).dropna(axis="columns", how="all")


def charts_of(place: int, table: pd.DataFrame) -> list[Section]:
    """Return seconds against training samples, and against validation samples, each if it takes two values."""
    sections, works = [], table[WORK].drop_duplicates()
    names = {"train": "training samples", "validation": "validation samples"}
    for axis, other in (WORK, WORK[::-1]):
        fixed = mode(works[other])
        if sum(works[other] == fixed) > 1:
            lines = lines_of(table[table[other] == fixed], axis, "seconds")
            model = table["title"].iloc[0] or "this model"
            heading = f"Seconds against {names[axis]}, {fixed:,} {names[other]}: {model}"
            name = f"seconds_{names[axis].split()[0]}_{place}"
            chart = curves(lines, Axis(names[axis], log=True), Axis("seconds", log=True))
            sections.append(Section(name, heading, chart=chart, html_only=True))
    return sections


def lines_of(table: pd.DataFrame, x: str, y: str) -> dict[str, dict[float, Mean]]:
    """Return the means in column `y` by column `x`, for each scorer."""
    groups = table.dropna(subset=y).groupby("scorer", sort=False)
    return {str(name): dict(zip(of[x], of[y], strict=True)) for name, of in groups}


def by_model(place: int, group: pd.DataFrame) -> list[Section]:
    """Return the factors on the first workload against parameters; nothing if two models have as many."""
    models = group.drop_duplicates("title")
    if len(models) == 1 or models["parameters"].duplicated().any():
        return []
    scorer, *_, train, validation = models.iloc[-1][[*SETTING, *WORK]]
    first = group[(group["train"] == train) & (group["validation"] == validation) & (group["scorer"] != scorer)]
    names = ", ".join(f"{row.title} {row.parameters:,}" for row in models.itertuples())
    lines = lines_of(first, "parameters", "factor")
    axes = Axis(f"parameters: {names}", log=True), Axis(f"times as long as {scorer}", log=True)
    chart = curves(lines, *axes, level=1)
    heading = f"Times as long as {scorer} by model, {samples(train, validation)}"
    return [Section(f"models_{place}", heading, chart=chart, html_only=True)]


def scorers_of(place: int, rows: pd.DataFrame, missing: Sequence[str]) -> Section:
    """Return the score by each scorer in words, and its rank correlation with the one it is compared with."""
    scorer, cells = rows["reference"].iloc[0], []
    groups = rows.groupby(["scorer", "computes"], sort=False)
    table = groups.agg(low=("agreement", "min"), high=("agreement", "max"), worst=("residual", "max"))
    for (name, words), low, high, worst in table.itertuples():
        agreement = "1" if name == scorer else "-" if np.isnan(low) else f"{low:+.3f} to {high:+.3f}"
        cells.append((name, words, agreement, "-" if np.isnan(worst) else f"{worst:.2g}"))
    install = "not installed: pip install -e '.[peers]'"
    cells += [(name, Peer(name).words, install, "-") for name in missing]
    text = (
        "Timed from a trained model and samples in memory to a score for each training sample: gradients of the "
        "validation samples, solvers and factors included. Training is not, but for a metagradient. Rank "
        f"correlation: with the scores of {scorer} on the same workload, lowest and highest of all workloads and "
        "seeds. Residual: of the inverse, relative, the worst."
    )
    if same := ", ".join(rows[rows["exact"]]["scorer"].unique()):
        text += f" By their formula the same scores: {same}."
    header = ("scorer", "score of sample i", "rank correlation", "worst residual")
    return Section(
        f"scorers_{place}", f"What each scorer computes, and its agreement with {scorer}", text, header, cells
    )


def not_the_same(rows: pd.DataFrame) -> str:
    """Return a warning of libraries that do not return the scores that they should; nothing if all do."""
    lowest = rows.groupby(["scorer", "reference"], sort=False)["agreement"].min()
    return " ".join(
        f"{name} should return the scores of {scorer}, but their rank correlation is {value:.3f}: ignore its time."
        for (name, scorer), value in lowest.items()
        if value < SAME
    )


def conditions(results: Sequence[Result]) -> str:
    """Return the clock, the load of the machine and the number of samples in words."""
    clocks = sorted({CLOCKS[Clock(result["config"]["speed"]["clock"])] for result in results})
    threads = sorted({result["speed"]["threads"] for result in results})
    loads = [load for result in results for load in result["speed"]["load"] if load is not None]
    busy = f"; load average of the machine {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    sizes = dict.fromkeys((result["sizes"]["train"], result["sizes"]["validation"]) for result in results)
    time = f"Time is {' or '.join(clocks)}; {' or '.join(counted(each, 'thread') for each in threads)}{busy}."
    data = (
        f"There are {' or '.join(samples(*pair) for pair in sizes)}; larger workloads repeat some, at equal cost."
    )
    return f"{time} {data}"
