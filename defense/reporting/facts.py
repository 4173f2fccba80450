"""The facts of many results, in words: commands, versions, devices, data, model, and number of samples."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from defense.config.choices import Harm, Norm, Source, TreatmentName
from defense.config.dotted import last_name
from defense.config.schema import Threat
from defense.reporting.frame import OPTIMIZE, Setting, by
from defense.reporting.reading import COMMAND, Result, effect_of

COMMANDS = 12  # shown at most


def command_of(results: Sequence[Result]) -> str:
    """Return the commands that the results came from, one a line, and how many cells there are of each.

    A result that is found in a sweep has the command of the sweep, any other its own; at most COMMANDS.
    """
    counts = Counter(result.get(COMMAND) or alone(result) for result in results)
    lines = [f"{words}   # {count} cells" if count > 1 else words for words, count in counts.items()]
    left = f"# and {len(lines) - COMMANDS} commands more, each in the result.json of its run"
    return "\n".join([*lines[:COMMANDS], left] if len(lines) > COMMANDS else lines)


def alone(result: Result) -> str:
    """Return the command that runs one result again, or the call from Python."""
    return call_of([part for part in result["overrides"] if not part.startswith("store=")], result["config"])


def call_of(overrides: Sequence[str], config: dict[str, Any]) -> str:
    """Return the command with these overrides; if model and samples were given from Python, the call there."""
    if config.get("data", {}).get("source") != Source.given.value:
        return shlex.join(["defense", *overrides])
    pairs = [word.partition("=")[::2] for word in overrides]
    words = ", ".join(f"{name!r}: {value if value.startswith('{') else repr(value)}" for name, value in pairs)
    return f"defense.defend(model, train, validation, test{f', **{{{words}}}' if words else ''})"


def made_of(results: Sequence[Result]) -> str:
    """Return versions and devices in one line; each that occurs, should they differ."""
    kinds = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + f"; device {result['device']}"
        for result in results
    )
    return " / ".join(kinds) + "." + "".join(f" {line}" for line in dict.fromkeys(map(left_out, results)) if line)


def left_out(result: Result, *, shown: int = 5) -> str:
    """Return which files were left out as unreadable, at most `shown` by name; nothing if there is none."""
    files = result.get("left_out", [])
    if not files:
        return ""
    more = f" and {len(files) - shown} more" if len(files) > shown else ""
    kind = "picture that cannot be read is" if len(files) == 1 else "pictures that cannot be read are"
    return f"{len(files)} {kind} left out: {', '.join(files[:shown])}{more}."


def about_runs(settings: Sequence[Setting], what: Callable[[Sequence[Setting]], str]) -> list[str]:
    """Return one line for every comparison group of one name: data, harm, model, number of samples and of runs.

    what: returns in words the recipe and the threat of such settings, or their treatments.
    """
    groups = by(settings, lambda setting: f"{setting.runs[0]['name']}: {setting.group}")
    return [about_group(group, what(group)) for group in groups.values()]


def about_group(settings: Sequence[Setting], what: str) -> str:
    """Return the line of one comparison group."""
    config, sizes, name = settings[0].config, settings[0].runs[0]["sizes"], settings[0].runs[0]["name"]
    data = config["data"]
    file = f" {data['path']}" if data["path"] else ""
    given = f", attacked by others: {data['given_path']}" if data.get("given_path") else ""
    labels = f" ({data['train_labels']})" if data["train_labels"] else ""
    counts = f"{sizes['train']} training, {sizes['validation']} validation and {sizes['test']} test samples"
    runs = counted(sum(len(setting.runs) for setting in settings), "run")
    return (
        f"{name}: data {data['source']}{file}{labels}{harm_in_words(config)}{given}; model "
        f"{model_in_words(config['model'])}; {what}; {counts}; {counted(len(settings), 'setting')}, {runs}."
    )


def harm_in_words(config: dict[str, Any]) -> str:
    """Return ' with symmetric harm in 20 %'; nothing of none."""
    data, kind = config["data"], Harm(config["data"]["harm"])
    if kind is Harm.none:
        return ""
    radius = f" within {data.get('harm_eps') or config['threat']['eps']}" if "harm_eps" in kind.reads else ""
    return f" with {kind} harm in {100 * data['harm_rate']:g} %{radius}"


def model_in_words(model: dict[str, Any]) -> str:
    """Return 'mlp, hidden [64]'; 'logistic' of a linear model."""
    if is_linear(model):
        return "logistic"
    sizes = [f"{name} {value}" for name, value in model.items() if name != "_target_" and value is not None]
    return ", ".join([str(model["_target_"]).rpartition(".")[2], *sizes])


def is_linear(model: dict[str, Any]) -> bool:
    """Return whether a model is linear: no hidden layer."""
    return bool(model.get("hidden") == [])


def attacked(settings: Sequence[Setting]) -> str:
    """Return the recipe of the models of one comparison group, and the threat of an attacker."""
    threat = settings[0].config["threat"]
    return f"recipe {settings[0].config['train']['recipe']}; threat {Threat(Norm(threat['norm']), threat['eps'])}"


def treated(settings: Sequence[Setting]) -> str:
    """Return the treatments of some settings, with their budgets: 'remove 5 %, reweight'."""
    treatments = []
    for setting in settings:
        spec = setting.config["treatment"]
        descends = spec["name"] == OPTIMIZE
        how = f" by metagradient descent in {counted(spec['rounds'], 'round')}" if descends else ""
        if effect_of(spec).weighs:
            treatments.append(f"weights{how}" if how else str(spec["name"]))
        elif effect_of(spec) is TreatmentName.own:
            treatments.append(f"{last_name(spec['_target_'])} {100 * spec['budget']:g} %")
        elif spec.get("threshold") is not None:
            treatments.append(f"{spec['name']} what scores below {spec['threshold']:g}")
        else:
            every = " in every class" if spec.get("balance") == "class" else ""
            treatments.append(f"{effect_of(spec)} {100 * spec['budget']:g} %{every}{how}")
    return ", ".join(dict.fromkeys(treatments))


def counted(number: int, what: str) -> str:
    """Return '1 run', '2 runs'."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
