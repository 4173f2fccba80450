"""What was measured as a table, a figure and a page, and which goals were reached."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from statistics import median

import torch

from tests.benchmarks.cases import BATCH_SIZE, CASES, QUICK, Group, Row, Sizes


@dataclass
class Measured:
    """What one row took: times in seconds, memory in bytes."""

    group: str
    model: str
    case: str
    count: int
    validation_count: int
    samples: int  # that a time is shared between
    seconds: list[float]  # of each round
    forward_passes: float  # per sample, as a multiple of that of the forward pass; median over rounds
    peak_bytes: int | None = None

    @classmethod
    def of(cls, row: Row, group: Group, seconds: list[float], forward: list[float]) -> Measured:
        """Return what `row` took; `forward` is what the forward pass took in the same rounds."""
        setting = row.setting
        share = row.samples / setting.count
        ratios = [own / share / base for own, base in zip(seconds, forward, strict=False)]
        numbers = (setting.count, setting.validation_count, row.samples)
        return cls(group.title, setting.name, row.case.name, *numbers, seconds, median(ratios))

    @property
    def label(self) -> str:
        """The case and the sizes that it was measured at."""
        return f"{self.case}, N = {self.count}, V = {self.validation_count}"

    @property
    def seconds_per_sample(self) -> float:
        """The median over rounds."""
        return median(self.seconds) / self.samples

    def is_of(self, row: Row, group: Group) -> bool:
        """Whether this is what `row` of `group` took."""
        own = (self.group, self.case, self.validation_count)
        return own == (group.title, row.case.name, row.setting.validation_count)


Lookup = Callable[..., Measured | None]


@dataclass(frozen=True)
class Goal:
    """A wanted number beside the one that was found."""

    text: str
    found: str
    reached: bool


def goals(results: list[Measured], sizes: Sizes) -> Iterator[Goal]:
    """Yield the goals whose rows were measured."""

    def at(group: str, case: str, validation: int = sizes.validations[0]) -> Measured | None:
        rows = (r for r in results if (r.group, r.case, r.validation_count) == (group, case, validation))
        return next(rows, None)

    def most(text: str, value: float, limit: float) -> Goal:
        return Goal(f"{text}: at most {limit:g}", f"{value:.2f}", value <= limit)

    for name, limit in (("ip", 3.0), ("ip, compiled", 2.5)):
        if row := at("resnet18", name):
            yield most(f"`{name}` on resnet18, in forward passes", row.forward_passes, limit)
    if (row := at("resnet18", "ip")) and (step := at("resnet18", "training step")):
        yield most("`ip` on resnet18, in training steps", paired(row, step), 1.1)
    for model in ("cnn", "resnet18"):
        yield from (most(*goal) for goal in within(model, sizes, at))
    yield from against_peers(sizes, at)


def within(model: str, sizes: Sizes, at: Lookup) -> Iterator[tuple[str, float, float]]:
    """Yield the goals on V and on memory: (text, value, limit)."""
    base, forward = at(model, "ip"), at(model, "forward pass")
    others = [(number, at(model, "ip", number)) for number in sizes.validations[1:]]
    for number, row in others:
        if row and base:
            text = f"`ip` on {model}, V = {number} beside V = {sizes.validations[0]}, difference in per cent"
            yield text, 100 * abs(paired(row, base) - 1), 5
    if base and forward and base.peak_bytes and forward.peak_bytes:
        text = f"peak memory of `ip` on {model}, in forward passes"
        yield text, base.peak_bytes / forward.peak_bytes, 2.5


def against_peers(sizes: Sizes, at: Lookup) -> Iterator[Goal]:
    """Yield how many times as fast as each setting of each peer `ip` with grad v is."""
    for case in (case.name for case in CASES if case.name.startswith(("captum", "dattri"))):
        wanted = 3 if case.startswith("captum") else 60
        for model in ("cnn", "resnet18"):
            ratios = {
                number: paired(peer, own)
                for number in sizes.validations
                if (peer := at(model, case, number)) and (own := at(model, "ip with grad v", number))
            }
            few, many = sizes.validations[0], sizes.validations[-1]
            if few in ratios:
                text = f"times as fast as {case}, {model}, V = {few}: at least {wanted}"
                yield Goal(text, f"{ratios[few]:.1f}", ratios[few] >= wanted)
            if many in ratios:
                text = f"times as fast as {case}, {model}, V = {many}: more than at V = {few}"
                yield Goal(text, f"{ratios[many]:.1f}", ratios[many] > ratios[few])


def paired(one: Measured, other: Measured) -> float:
    """Return the median over common rounds of the time of `one` in times of `other`."""
    return median(a / b for a, b in zip(one.seconds, other.seconds, strict=False))


def table(results: list[Measured]) -> str:
    """Return the Markdown tables, one for each group."""
    lines: list[str] = []
    for _, rows in groupby(results, key=lambda result: result.group):
        members = list(rows)
        steps = {row.case: row for row in members}
        step = steps.get("training step")
        lines += [f"### {members[0].model}, {members[0].count:,} training samples", ""]
        lines += ["| case | V | rounds | ms per sample | forward passes | training steps | peak MiB |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for row in members:
            beside = f"{paired(row, step) * row.count / row.samples:.2f}" if step else ""
            peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f}"
            cells = [row.case, f"{row.validation_count:,}", len(row.seconds)]
            cells += [f"{1e3 * row.seconds_per_sample:.3f}", f"{row.forward_passes:.2f}", beside, peak]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append("")
    return "\n".join(lines)


def machine() -> dict[str, str | int]:
    """Return what the numbers depend on."""
    names = ("torch", "captum", "dattri", "curvlinops-for-pytorch", "pytest-benchmark")
    found: dict[str, str | int] = {name: version(name) for name in names}
    return found | {
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


HOW = f"""How it was measured. One process; in each round every row is called once, in turn, forwards and
backwards, so that a machine that drifts drifts for all. Times are medians over rounds, divided by the
training samples N (by the validation samples V for grad v); "forward passes" and "training steps" are
medians of the ratios within a round, per sample. Random pictures 3x32x32 of 10 classes, float32,
batches of {BATCH_SIZE} but for the peers, which have the batches named below. `ip` has grad v given;
the peers, `ip with grad v` and `ip_ensemble` begin without it.

Peak memory: in a fresh process for each case, after a call on a few samples, the largest resident size
during one call at the smallest V less the size just before it. The network, the pictures and, for `ip`,
grad v are there before.
"""


WHY = """\
## Why goals are missed

- Forward passes on resnet18: a convolution y = W x has the derivative W dx + dW x, so `ip` takes 59
  convolutions for the 20 of a forward pass (the first has no dx): 2.95 passes before anything else. The
  rest is additions of tangents, batch norm and ReLU; compiling fuses these and nothing else.
- More validation samples: grad v of `ip`, and captum's and dattri's gradients of the validation samples,
  all grow with V, so the ratio goes towards that of these gradients; what does not grow is `ip` once grad
  v is there.
- dattri: the goal came from another network and setting; here neither its fastest exact setting nor that of
  its example is so much slower.
"""


def page(results: list[Measured], sizes: Sizes) -> str:
    """Return the report in Markdown."""
    lines = ["# The cost of scores", "", HOW, "Rendered by `pytest tests/benchmarks --write-report`.", ""]
    if sizes == QUICK:
        lines += ["**A smoke run on a few samples: its numbers say that it runs, and no more.**", ""]
    lines += ["![Forward passes per sample](figure.svg)", "", "## Goals", ""]
    lines += ["| goal | found | |", "| --- | ---: | --- |"]
    for goal in goals(results, sizes):
        lines.append(f"| {goal.text} | {goal.found} | {'reached' if goal.reached else '**missed**'} |")
    lines += ["", WHY, "## Measured", "", table(results), "## Of the cases", ""]
    lines += [f"- {case.name}: {case.note}." for case in CASES if case.note]
    lines += ["", "## Machine", "", ", ".join(f"{key} {value}" for key, value in machine().items()), ""]
    return "\n".join(lines)


def write(results: list[Measured], sizes: Sizes, folder: Path) -> None:
    """Write README.md, result.json and figure.svg into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(page(results, sizes))
    content = {
        "machine": machine(),
        "goals": [asdict(goal) for goal in goals(results, sizes)],
        "rows": [asdict(row) | {"seconds_per_sample": row.seconds_per_sample} for row in results],
    }
    (folder / "result.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(results, sizes, folder / "figure.svg")


def draw(results: list[Measured], sizes: Sizes, path: Path) -> None:
    """Draw the forward passes per sample of each case at the smallest N and V that were measured."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    least: dict[str, int] = {}
    for row in results:
        least[row.model] = min(row.count, least.get(row.model, row.count))
    few = sizes.validations[0]
    chosen = [row for row in results if (row.count, row.validation_count) == (least[row.model], few)]
    models = sorted({row.model for row in chosen})
    figure = Figure(figsize=(8, 1 + 0.3 * len(chosen)), layout="constrained")
    heights = [sum(row.model == model for row in chosen) for model in models]
    axes = figure.subplots(len(models), squeeze=False, height_ratios=heights)[:, 0]
    for ax, model in zip(axes, models, strict=True):
        rows = [row for row in chosen if row.model == model][::-1]
        bars = ax.barh([row.case for row in rows], [row.forward_passes for row in rows], color="#4477aa")
        ax.bar_label(bars, fmt="%.1f", padding=3)
        ax.set_xscale("log")
        ax.margins(x=0.15)
        ax.set_title(f"{model}, N = {rows[0].count}, V = {rows[0].validation_count}", loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("forward passes per sample")
    with rc_context({"svg.hashsalt": "scoring"}):
        figure.savefig(path, metadata={"Date": None})
