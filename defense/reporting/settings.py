"""The settings of a sweep: runs that differ in their seed alone, what was swept, and on what ground they stand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from defense.config.choices import AUTO, Harm, Measure, Norm, TreatmentName
from defense.config.schema import Threat
from defense.reporting.escaping import visible
from defense.reporting.reading import effect_of, is_rival, objective_of, proxy_of, read
from defense.reporting.run import Scoring
from defense.reporting.selection import advice
from defense.reporting.statistics import Mean, paired_difference
from defense.reporting.sweeps import Result, column_of, group, row_of, swept
from defense.reporting.tables import arms_of, lookup

WORST = "adaptive.worst"
OBJECTIVE, BALANCE = "objective", "treatment.balance="  # of a sweep: what belongs to the row beside the scorer
TREATMENT, DISCRETE = "treatment=", "treatment.discrete="  # where a descent is beside scores: these, too
GROUND = ("data", "model", "train", "threat", "evaluation", "evade")  # what makes accuracies comparable
OTHER_ARMS = ("trusted", "trusted_weights", "controls")  # of evaluation: which arms there are, and how many
OPTIMIZE = TreatmentName.optimize.value
NAMES = ("source", "name", "recipe", "_target_")  # what a group of settings is called by, the first there is
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone."""

    label: str  # what they were run with
    row: str  # the scorer
    column: str  # what else was swept, in words
    runs: list[Result]
    knobs: dict[str, Value] = field(default_factory=dict)  # what else was swept, by name
    place: str = ""  # what was swept of its ground

    @property
    def arms(self) -> list[str]:
        """The arms that all runs have, in the order of every table; without a proxy that no score comes from."""
        names = arms_of(set.intersection(*(set(run["arms"]) for run in self.runs)))
        return [name for name in names if name != "proxy" or proxy_of(self.runs[0]["config"])]

    @property
    def name(self) -> str:
        """The row and the column."""
        return ", ".join(filter(None, (self.row, self.column)))

    @property
    def ground(self) -> str:
        """What its accuracies depend on beside the treatment: only those of one ground compare."""
        config = self.runs[0]["config"]
        own = {name: config.get(name) for name in GROUND}
        suite = {name: value for name, value in (own["evaluation"] or {}).items() if name not in OTHER_ARMS}
        return json.dumps(own | {"evaluation": suite}, sort_keys=True)

    def has(self, measure: Measure) -> bool:
        """Whether something was measured: gaps are of data with groups alone."""
        return str(measure) in self.runs[0]["arms"]["baseline"]

    def values(self, arm: str, metric: str) -> list[float]:
        """Return an accuracy, in percent, by run; none where there is no such arm."""
        return [lookup(run["arms"][arm], metric) for run in self.runs if arm in run["arms"]]

    def gain(self, metric: str = WORST, over: str = "control") -> Mean:
        """Return defended - control in points, paired by seed."""
        return paired_difference(self.values("defended", metric), self.values(over, metric))

    @property
    def method(self) -> str:
        """The method of the scorer."""
        return str(self.runs[0]["config"]["scorer"]["method"])

    @property
    def is_rival(self) -> bool:
        """Whether the scorer is chance or perfect knowledge."""
        return is_rival(self.runs[0]["config"])

    @property
    def is_linear(self) -> bool:
        """Whether the model is linear: no hidden layer."""
        return bool(self.runs[0]["config"]["model"].get("hidden") == [])

    @property
    def inconclusive(self) -> str:
        """Why nothing can be said about half of its runs or more; nothing if something can."""
        reasons = [reason for run in self.runs if (reason := run.get("health", {}).get("reason"))]
        return str(max(reasons, key=reasons.count)) if reasons and 2 * len(reasons) >= len(self.runs) else ""

    @property
    def is_automatic(self) -> bool:
        """Whether the treatment was chosen on held-out validation."""
        return bool(self.runs[0]["config"]["treatment"]["budget"] == AUTO)

    @property
    def rival(self) -> str:
        """What the control is called."""
        return (
            "the random control" if self.is_automatic else effect_of(self.runs[0]["config"]["treatment"]).control
        )


def settings_of(results: Sequence[Result]) -> list[Setting]:
    """Return the settings of many results: by ground, then by what was swept beside the scorer, as they appear."""
    names = knobs_of(results)
    found = []
    for label, runs in group(results):
        first = runs[0]
        column = column_of(first, results, but=(OBJECTIVE, BALANCE, *of_a_descent(results)))
        place = column_of(first, results, but=(OBJECTIVE, "treatment", "attack"))
        knobs = {name: value_of(first, name) for name in names}
        found.append(Setting(label, row(first, results), column, runs, knobs, place))
    grounds, columns = (
        list(dict.fromkeys(getattr(setting, name) for setting in found)) for name in ("ground", "column")
    )
    return sorted(found, key=lambda setting: (grounds.index(setting.ground), columns.index(setting.column)))


def row(result: Result, results: Sequence[Result]) -> str:
    """Return the scorer with what else was swept and decides which samples are treated: 'ip, utility'."""
    parts = swept(result, results)
    more = [part.removeprefix(f"{OBJECTIVE}=") for part in parts if part.startswith(OBJECTIVE)]
    more = more if objective_of(result["config"]) else []
    own = (BALANCE, *of_a_descent(results))
    more += [part.removeprefix(TREATMENT).removeprefix("treatment.") for part in parts if part.startswith(own)]
    return ", ".join([row_of(result, results), *more])


def of_a_descent(results: Sequence[Result]) -> tuple[str, ...]:
    """Return what belongs to the row if some results are of a descent: it competes with removal by scores."""
    descends = any(result["config"]["treatment"]["name"] == OPTIMIZE for result in results)
    return (TREATMENT, DISCRETE) if descends else ()


def knobs_of(results: Sequence[Result]) -> list[str]:
    """Return the names of what was swept beside the scorer, the seed and what belongs to a row; the name first."""
    parts = (part for result in results for part in swept(result, results))
    names = dict.fromkeys(part.partition("=")[0] for part in parts)
    aside = ("scorer", "experiment", "store", OBJECTIVE, BALANCE.rstrip("="), "name")
    several = ["name"] if len({result["name"] for result in results}) > 1 else []
    return [*several, *(name for name in names if not name.startswith(aside))]


def value_of(result: Result, name: str) -> Value:
    """Return what a result was run with at a dotted name, or what the group of that name is called.

    None where the run does not read it.
    """
    if name == "name":
        return str(result["name"])
    given = dict(part.partition("=")[::2] for part in result["overrides"])
    found: Any = read(result["config"])
    for part in name.lstrip("+~").split("."):
        if not isinstance(found, dict) or part not in found:
            return given.get(name)
        found = found[part]
    if isinstance(found, dict):
        own = [str(found[name]).rpartition(".")[2] for name in NAMES if name in found]
        return given.get(name, own[0] if own else "default")
    return found if isinstance(found, Value) else str(found)


def facts_of(settings: Sequence[Setting], what: Callable[[Sequence[Setting]], str]) -> list[str]:
    """Return one line for every name of a run and ground: data, harm, model, what is done, number of samples."""
    grounds: dict[tuple[str, str], list[Setting]] = {}
    for setting in settings:
        grounds.setdefault((setting.runs[0]["name"], setting.ground), []).append(setting)
    said = []
    for alike in grounds.values():
        config, sizes = alike[0].runs[0]["config"], alike[0].runs[0]["sizes"]
        data, model = config["data"], config["model"]
        file = f" {data['path']}" if data["path"] else ""
        given = f", attacked by others: {data['given_path']}" if data.get("given_path") else ""
        labels = f" ({data['train_labels']})" if data["train_labels"] else ""
        kind = Harm(data["harm"])
        radius = f" within {data.get('harm_eps') or config['threat']['eps']}" if "harm_eps" in kind.reads else ""
        harm = f" with {kind} harm in {100 * data['harm_rate']:g} %{radius}" if kind is not Harm.none else ""
        network = str(model["_target_"]).rpartition(".")[2]
        width = "".join(
            f", {name} {value}" for name, value in model.items() if name != "_target_" and value is not None
        )
        network = "logistic" if alike[0].is_linear else f"{network}{width}"
        counts = f"{sizes['train']} training, {sizes['validation']} validation and {sizes['test']} test samples"
        runs = sum(len(setting.runs) for setting in alike)
        said.append(
            f"{alike[0].runs[0]['name']}: data {data['source']}{file}{labels}"
            f"{harm}{given}; model {network}; {what(alike)}; {counts}; "
            f"{counted(len(alike), 'setting')}, {counted(runs, 'run')}."
        )
    return said


def about_harm(run: Scoring) -> str:
    """Return how many training samples hypocritical harm has moved, and how far; nothing of other harm.

    Labels show all other harm, and its truth is on every page.
    """
    spec, threat = run.config.data, run.config.threat
    if spec.harm is not Harm.hypocritical:
        return ""
    ball = threat if spec.harm_eps is None else replace(threat, eps=spec.harm_eps)
    count = len(run.data.train)
    moved = f"{round(spec.harm_rate * count)} of {count} training samples are moved toward their own label"
    return f"{moved} (data.harm=hypocritical; {ball}). All labels stay as they are."


def attacked(settings: Sequence[Setting]) -> str:
    """Return by what recipe the models of settings on one ground are trained, and what an attacker may do."""
    config = settings[0].runs[0]["config"]
    threat = Threat(Norm(config["threat"]["norm"]), config["threat"]["eps"])
    return f"recipe {config['train']['recipe']}; threat {threat}"


def treated(settings: Sequence[Setting]) -> str:
    """Return what is done to how many training samples in some settings: 'remove 5 %, reweight'."""
    said = []
    for setting in settings:
        spec = setting.runs[0]["config"]["treatment"]
        by = f" by metagradient descent in {counted(spec['rounds'], 'round')}" if spec["name"] == OPTIMIZE else ""
        if effect_of(spec).weighs:
            said.append(f"weights{by}" if by else str(spec["name"]))
        elif spec.get("threshold") is not None:
            said.append(f"{spec['name']} what scores below {spec['threshold']:g}")
        else:
            every = " in every class" if spec.get("balance") == "class" else ""
            said.append(f"{effect_of(spec)} {100 * spec['budget']:g} %{every}{by}")
    return ", ".join(dict.fromkeys(said))


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


def counted(number: int, what: str) -> str:
    """Return '1 run', '2 runs'."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
