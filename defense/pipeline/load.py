"""The data of a run, and the checks before any compute.

Harm that takes a model is planted after that, at a model trained on the unharmed samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from defense.config.choices import Direction, Harm, Method, Source, Task, TreatmentName
from defense.config.reads import attacks_validation, read
from defense.config.schema import Config, Data, plain
from defense.data.load import held_out, load
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.influence.hessian import check_size
from defense.influence.members import single
from defense.influence.objectives import check_objective
from defense.influence.scorers import check_scorer
from defense.metagradients.contract import check_differentiable
from defense.models.build import Design
from defense.models.states import prepared
from defense.pipeline.descent import check_room_for_removal
from defense.pipeline.parts import check_parts
from defense.pipeline.run import Run
from defense.randomness import derive
from defense.robustness.suite import check_shape
from defense.runtime.devices import make_fabric
from defense.runtime.distributed import SINGLE_PROCESS, Ranks, rank_zero_first
from defense.runtime.runtime import Runtime
from defense.runtime.tracking import check_tracker
from defense.stages.plant import PLANTERS, ball_of, harmed, plant, planter_training
from defense.stages.train import train
from defense.stages.trained import Trained
from defense.stages.treat import untreated
from defense.store.fingerprint import hash_of
from defense.store.stage import StageRunner


def load_run(
    config: Config, fabric: Fabric | None = None, ranks: Ranks = SINGLE_PROCESS, runner: StageRunner | None = None
) -> Run:
    """Return a run with its data, checked as far as that takes no training; see `defense.tasks.registry.run`.

    runner: of the stages; None takes them from the store or computes them, and notes there which pictures can be
    read.
    """
    check_tracker(config.track)
    cache = None if runner else Path(config.store)
    runner = runner or StageRunner(Path(config.store))
    runtime = Runtime(fabric or make_fabric(config.fabric), ranks, runner=runner)
    data = rank_zero_first(ranks, lambda: load_once(config.data, seed=config.seed, cache=cache))
    return checked_run(config, data, runtime, runner)


def checked_run(
    config: Config,
    data: Dataset,
    runtime: Runtime,
    runner: StageRunner,
    designs: Callable[[dict[str, Any], Dataset, int], Design] = Design,
) -> Run:
    """Return a run on these data, checked as far as that takes no training; designs: how its network is made.

    Raises InputError for the first setting that does not fit the data or the network.
    """
    if "treatment" in config.task.reads and config.treatment.holds_out:
        data = held_out(data, config.treatment.held_out, seed=config.seed)
    data = data.to(runtime.device)
    if config.train.crop >= min(data.shape[1:]):
        raise InputError(
            "train.crop", config.train.crop, f"expected less than the side of a picture, {data.shape}"
        )
    if config.task is Task.detect and config.data.harm is Harm.none and data.train.labels.equal(data.train.truth):
        raise InputError("task", config.task, "expected data with known noise, as data.harm plants it")
    design = designs(config.model, data, config.seed)
    model = design.build()  # fails here, before any compute, where it does not fit
    used = {"attack": config.attack} if attacks_validation(config) else {}
    if "evaluation" in config.task.reads and config.data.source is not Source.text:
        used |= {f"evaluation.attacks.{name}": attack for name, attack in config.evaluation.attacks.items()}
    check_shape("threat.eps", used.items(), config.threat, data.shape)
    check_parts(config, model, data, used)
    noise = data.noise_known
    if config.scorer.method is Method.metagradient:
        check_differentiable(design.build(), data.train)
    check_scorer(model, data.validation, config.objective, config.scorer, classes=data.classes, noise_known=noise)
    if data.choice is not None and config.treatment.name is TreatmentName.optimize:
        try:
            check_objective(config.objective, data.choice, data.classes)
        except InputError as error:
            said = f"{error.expected}, in the part that is held out, too"
            raise InputError("treatment.held_out", config.treatment.held_out, said) from error
    if "treatment" in config.task.reads and config.treatment.name is TreatmentName.optimize:
        check_room_for_removal(config.treatment, data)
    if config.task is Task.order and config.order.reference is Direction.hessian:
        check_size(single(model, pattern=config.scorer.parameters).parameters, "order.reference")
    data = planted(config, prepared(config.model, data, model), runtime)
    return Run(config, data, runtime, runner, designs=designs)


FILES = ("path", "validation_path", "test_path", "given_path", "root")  # settings of data
_last: dict[str, Dataset] = {}  # what this process has loaded last, by a hash of what it is made of


def load_once(spec: Data, *, seed: int, cache: Path | None) -> Dataset:
    """Return `load`; the same object again if settings and files are those of the last call.

    What is read from a folder, or by code of the user, is loaded anew: to see what has changed takes as long.
    """
    files = files_named(spec)
    if files is None:
        return load(spec, seed=seed, cache=cache)
    stats = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    made_of = hash_of([plain(spec), seed, str(cache), [str(file.resolve()) for file in files], stats])
    if made_of not in _last:
        _last.clear()  # before there are two in memory
        _last[made_of] = load(spec, seed=seed, cache=cache)
    return _last[made_of]


def files_named(spec: Data) -> list[Path] | None:
    """Return the files that data are read from; None if they are read from a folder, or by code of the user.

    Such code may read any file, so that it is called for every run.
    """
    named = {name: value for name, value in read(spec).items() if name in FILES and value is not None}
    files = [Path(value) for value in named.values()]
    if spec.source in (Source.dataset, Source.image_table) or "root" in named:
        return None
    return files if all(file.is_file() for file in files) else None


def planted(config: Config, data: Dataset, runtime: Runtime) -> Dataset:
    """Return the data with the harm that takes a model, or as they are if there is none of that kind.

    The model is the run's, trained as `planter_training` says; and from first weights of its own, so that harm is
    not made at the very model that it is found with.
    """
    spec, seed = config.data, config.seed
    if spec.harm not in PLANTERS:
        return data
    training = planter_training(spec, config.train, config.threat)
    design = Design(config.model, data, derive(seed, "planter"))
    trained = train(runtime.named("planter"), design, data, training, untreated(data.train))
    model, ball = Trained(design, trained), ball_of(spec, config.threat)
    found = plant(runtime, model, data.train, spec, ball=ball, batch_size=config.train.batch_size, seed=seed)
    return replace(data, train=harmed(data.train, found))
