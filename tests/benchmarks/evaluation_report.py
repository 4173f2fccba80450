"""The page about robust accuracy: the suites beside the reference and ART, what they take, what training gives."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from statistics import fmean

import torch

from defense.config.compose import composed
from defense.robustness.suite import LOOK
from tests.attack_peers import PLAIN, Part
from tests.benchmarks.evaluation import (
    PEER_SAMPLES,
    REFERENCE,
    SUITES,
    Chosen,
    Compared,
    Gained,
    Peer,
    Trained,
    arguments,
    least,
    mean_of,
)

POINTS, ON_AVERAGE = 0.5, 0.1  # the goals: most points above the reference, in a case and on average
TIMES = {"fast": {"cnn": 0.2, "mlp": 0.2}, "standard": {"cnn": 0.55, "mlp": 0.9}}  # of the reference's time


@dataclass
class Evaluated:
    """All that was measured."""

    compared: list[Compared] = field(default_factory=list)
    chosen: list[Chosen] = field(default_factory=list)
    gained: list[Gained] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)


def row(*cells: object) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def verdict(reached: bool) -> str:
    """Return the word for a goal."""
    return "reached" if reached else "**missed**"


def parity(found: list[Compared]) -> str:
    """Return the table of robust accuracies."""
    heads = [
        "case",
        "samples",
        "seeds",
        "clean",
        *SUITES,
        REFERENCE,
        *(f"{name} - {REFERENCE}" for name in SUITES),
    ]
    lines = [row(*heads, "reference as it is"), "| --- |" + " ---: |" * len(heads)]
    for one in found:
        plain = "" if one.plain is None else f"{one.plain:.1f}"
        accuracies = [f"{mean_of(one.runs[name], -1):.2f}" for name in (*SUITES, REFERENCE)]
        apart = [f"{one.difference(name):+.2f}" for name in SUITES]
        seeds = len(one.runs[REFERENCE])
        lines.append(row(one.case.title, one.samples, seeds, f"{one.clean:.1f}", *accuracies, *apart, plain))
    for words, fold in (("mean", fmean), ("highest", max), ("lowest", min)):
        apart = [f"{fold([one.difference(name) for one in found]):+.2f}" for name in SUITES]
        lines.append(row(words, *[""] * 7, *apart, ""))
    return "\n".join(lines)


def closeness(found: list[Compared]) -> str:
    """Return, for each suite that has goals, whether it is as close to the reference as it should be."""
    lines = []
    for name in TIMES:
        apart = [one.difference(name) for one in found]
        stronger = [one.case.title for one in found if one.difference(name) < -POINTS]
        said = f"- `{name}`: at most {POINTS:g} points above in a case: {verdict(max(apart) <= POINTS)}"
        if name == "fast":
            said += f"; at most {ON_AVERAGE:g} on average: {verdict(fmean(apart) <= ON_AVERAGE)}"
        if stronger:
            said += f". More than {POINTS:g} below, which is stronger: {'; '.join(stronger)}"
        lines.append(said + ".")
    return "\n".join(lines)


def costs(found: list[Compared]) -> str:
    """Return the table of times: of the reference in seconds, of the suites in times of that."""
    heads = ["case", f"{REFERENCE}, s", *(f"{name}, s" for name in SUITES), *SUITES]
    lines = [row(*heads), "| --- |" + " ---: |" * (len(heads) - 1)]

    def line(title: str, own: Sequence[Compared]) -> str:
        times = {name: sum(least(one.runs[name]) for one in own) for name in (REFERENCE, *SUITES)}
        seconds = [f"{times[name]:.1f}" for name in (REFERENCE, *SUITES)]
        return row(title, *seconds, *(f"{times[name] / times[REFERENCE]:.2f}" for name in SUITES))

    lines += [line(one.case.title, [one]) for one in found]
    for model in sorted({one.case.model for one in found}):
        lines.append(line(f"all of {model}", [one for one in found if one.case.model == model]))
    return "\n".join([*lines, line("all", found)])


def cheapness(found: list[Compared]) -> str:
    """Return, for each suite that has goals, whether it takes as little time as it should."""
    lines = []
    for name, goals in TIMES.items():
        said = []
        for model in sorted({one.case.model for one in found}):
            own = [one for one in found if one.case.model == model]
            ratio = sum(least(one.runs[name]) for one in own) / sum(least(one.runs[REFERENCE]) for one in own)
            said.append(f"at most {goals[model]:g} on {model}: {verdict(ratio <= goals[model])}")
        lines.append(f"- `{name}`: {'; '.join(said)}.")
    return "\n".join(lines)


def progress(found: list[Compared]) -> str:
    """Return the table of what stands, and what was spent, after each part of a suite: means over cases."""
    lines = [row("suite", "after", "stands, %", "passes a sample", "seconds"), "| --- | --- |" + " ---: |" * 3]
    for name in (*SUITES, REFERENCE):
        for number, part in enumerate(found[0].runs[name][0]):
            standing = fmean(mean_of(one.runs[name], number) for one in found)
            spent = [fmean(spent_by(one, name, what, number) for one in found) for what in ("passes", "seconds")]
            lines.append(row(name, part.name, f"{standing:.2f}", f"{spent[0]:,.0f}", f"{spent[1]:.2f}"))
    return "\n".join(lines)


def spent_by(one: Compared, suite: str, what: str, number: int) -> float:
    """Return passes for each sample, or seconds, up to a part of a suite: the mean over seeds."""
    sums = [list(accumulate(getattr(part, what) for part in parts))[number] for parts in one.runs[suite]]
    return fmean(sums) / (one.samples if what == "passes" else 1)


def choice(found: list[Chosen]) -> str:
    """Return the table of what stands after each candidate."""
    names = [part.name for part in found[0].parts]
    lines = [row("case", *names), "| --- |" + " ---: |" * len(names)]

    def standing(part: Part) -> float:
        return 100 * float(part.standing.double().mean())

    for one in found:
        lines.append(row(one.case.title, *(f"{standing(part):.2f}" for part in one.parts)))
    means = [fmean(standing(one.parts[number]) for one in found) for number in range(len(names))]
    seconds = [sum(one.parts[number].seconds for one in found) for number in range(len(names))]
    lines.append(row("mean", *(f"{mean:.2f}" for mean in means)))
    return "\n".join([*lines, row("seconds, of all", *(f"{each:.1f}" for each in seconds))])


def outcomes(found: list[Gained]) -> str:
    """Return the table of what runs report under every suite."""
    heads = [f"{name}: {what}" for name in SUITES for what in ("baseline", "gain")]
    lines = [row("run", "seeds", *heads), "| --- |" + " ---: |" * (1 + len(heads))]
    for one in found:
        cells = []
        for name in SUITES:
            cells += [f"{fmean(one.baseline[name]):.1f}", f"{fmean(one.gain[name]):+.1f}"]
        lines.append(row(f"`{' '.join(['defense', *one.typed])}`", len(one.gain["quick"]), *cells))
    return "\n".join(lines)


def peers(found: list[Peer]) -> str:
    """Return the table with ART."""
    names = list(dict.fromkeys(name for peer in found for name in peer.results))
    lines = [row("case", "samples", *names), "| --- |" + " ---: |" * (1 + len(names))]
    for peer in found:
        cells = [
            "" if name not in peer.results else "{:.1f} % in {:.0f} s".format(*peer.results[name])
            for name in names
        ]
        lines.append(row(peer.case.title, peer.samples, *cells))
    return "\n".join(lines)


def recipes(found: list[Trained]) -> str:
    """Return the commands, and the accuracy of what they train after each part of the suite."""
    lines: list[str] = []
    for source in dict.fromkeys(one.source for one in found):
        own = [one for one in found if one.source == source]
        named = ",".join(one.recipe.value for one in own)
        typed = " ".join(arguments(source, named))
        attacks = list(own[0].result["arms"]["baseline"]["adaptive"])
        lines += ["", f"    defense -m {typed}", "", row("test accuracy, %", "clean", *attacks)]
        lines += ["| --- |" + " ---: |" * (1 + len(attacks))]
        for one in own:
            arm = one.result["arms"]["baseline"]
            numbers = [arm["clean"], *arm["adaptive"].values()]
            lines.append(row(f"{source}, {one.recipe.value}", *(f"{number:.1f}" for number in numbers)))
    return "\n".join(lines)


def checks(found: list[Trained]) -> str:
    """Return what the health checks of these runs found."""
    first = found[0].result["checks"]["baseline"]
    lines = [row("samples that are", *(f"{one.source}, {one.recipe.value}" for one in found))]
    lines += ["| --- |" + " ---: |" * len(found)]
    for name, about in first.items():
        own = [one.result["checks"]["baseline"][name] for one in found]
        cells = [f"{x['found']} of {x['of']}{', **flagged**' if x['flagged'] else ''}" for x in own]
        lines.append(row(about["title"], *cells))
    return "\n".join(lines)


HOW = """\
Robust accuracy by the suites `quick`, `fast` and `standard` beside that of `pyautoattack`, the reference
implementation of AutoAttack (Croce and Hein 2020) repackaged, and what each takes. The nets are small and trained
here by the project: a cnn of width 16 and the default mlp, ordinarily or by PGD at Linf 0.15, each under an eps
that leaves some samples. Digits of 2 and 3 classes are the ten digits modulo 2 and 3.

    pytest tests/benchmarks -k evaluation --write-report [--mnist FILE]

FILE: arrays as data=npz takes them; without it the rows on MNIST are left out.
"""

PARITY = """\
Percent of test samples that stand at the end, means over seeds. The reference has the settings of its `standard`
version with min(9, C - 1) targets. Below four classes its targeted loss, a ratio of logits, does not exist, so it
gets the numerator alone, as ours does: the same attacks at equal budget. *Reference as it is*, one seed: with the
parts that it has for so few classes, {two} for 2 and {three} for 3, where its
`standard` version ends with an IndexError. Two seeds of the reference, too, differ, by up to a point of 300
samples. Goals:"""

COST = """\
One process, one thread; the suites and the reference in turn for each seed, each seed from another one on; seconds
of the processor, of the fastest seed, and in times of the reference's. All in batches of {batch}, the default of
`evaluation.batch_size`.

What makes the difference: 20 steps of PGD first, which break most of what breaks; parameters ask for no gradients,
and convolutions have channels last; pairs of a sample and a target fill whole batches. FAB drops a pair once it is
mistaken within eps, and projects without sorting. Square keeps only what stands, and asks about no picture twice.
`fast` leaves out what adds nothing, see below. Goals, before rounding:"""

SPENT = """\
Means over the cases of all samples, the broken ones included. A pass takes one sample through the model once,
forward or backward."""

CHOICE = """\
The parts of `fast` were chosen on the other half of the pairs of net, recipe and norm, one seed, and not on the
cases above. Every candidate attacks what those to its left leave standing, in percent. FAB and Square add
nothing there in most of the time. So `fast` is without FAB, and Square looks at {look} samples first: it attacks
all that stand only if it breaks one of those."""

OUTCOMES = """\
Accuracy of the baseline under adaptive attack at worst, in percent, and the gain of the defended arm over the
random control, in points. Means over seeds; all suites attack the same models.

The default is `quick`. It overstates robust accuracy, as the first table says, but of all arms alike: the gain,
for which a run is made, hardly depends on the suite. It also fits pictures of every shape in both norms, which
Square does not. For a robust accuracy to publish take `fast`, or `standard`."""

ART = """\
Adversarial Robustness Toolbox {art} on the first {samples} test samples, all in one batch, one seed. *APGD toward
classes*: its APGD on the cross-entropy and the DLR loss, 100 steps from one start, with `targeted=True`. *As
shipped*: its four untargeted parts with its own numbers of steps and starts."""

WHY = """\
- Its `AutoAttack` takes 10 steps a part, where the reference takes 100.
- `Square` shrinks its squares by the share of queries (`resc_schedule=True`), the reference by their number: with
  5,000 queries it is at small squares twice as early.
- `APGDT` in L2 gives every sample of a batch the step size of the first.
- Below four classes `APGDT` and the DLR loss ask for logits that are not there, and 9 targets for classes that are
  not; `AutoAttack` takes `n_classes=10` unless told.

`defense/robustness` mends these. APGD is torchattacks' own; FAB, Square and PMA are the project's."""


def page(found: Evaluated, *, quick: bool) -> str:
    """Return README.md."""
    lines = ["# Robust accuracy, beside the reference", "", HOW]
    if quick:
        lines += ["**A smoke run on a few samples: its numbers say that it runs, and no more.**", ""]
    if found.compared:
        two, three = (", ".join(PLAIN[classes]) for classes in (2, 3))
        batch = composed().evaluation.batch_size
        lines += [
            "## The same accuracy",
            "",
            PARITY.format(two=two, three=three),
            "",
            closeness(found.compared),
            "",
        ]
        lines += [parity(found.compared), "", "## In less time", "", COST.format(batch=batch), ""]
        lines += [cheapness(found.compared), "", costs(found.compared), ""]
        lines += ["## Points broken against passes", "", SPENT, "", progress(found.compared), ""]
    if found.chosen:
        lines += ["## What each part adds", "", CHOICE.format(look=LOOK), "", choice(found.chosen), ""]
    if found.gained:
        lines += ["## Which suite is the default", "", OUTCOMES, "", outcomes(found.gained), ""]
    if found.peers:
        art = version("adversarial-robustness-toolbox")
        lines += ["## Beside ART", "", ART.format(art=art, samples=PEER_SAMPLES), "", peers(found.peers), ""]
    lines += ["## Why torchattacks as shipped is weaker", "", WHY, ""]
    if found.trained:
        lines += ["## What adversarial training gives", "", "At the same eps, under the same suite:"]
        lines += [recipes(found.trained), "", "The health checks of these runs:", "", checks(found.trained), ""]
    names = ("torch", "torchattacks", "pyautoattack")
    machine = [f"{name} {version(name)}" for name in names] + [f"threads {torch.get_num_threads()}"]
    machine += [f"processor {torch.backends.cpu.get_cpu_capability()}", f"python {platform.python_version()}"]
    return "\n".join([*lines, ", ".join(machine), ""])


def write(found: Evaluated, folder: Path, *, quick: bool) -> None:
    """Write README.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(page(found, quick=quick))
