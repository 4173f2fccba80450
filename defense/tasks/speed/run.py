"""How many times as long as the run's scorer do others take, on the same work?

data -> train -> time -> report
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from defense.config.choices import Clock, Direction, Members, Method, Peer
from defense.config.schema import Scorer
from defense.data.splits import Split
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.peers import PEERS, Library
from defense.influence.problem import ScoringContext
from defense.influence.scorers import METHODS, check_scorer
from defense.metagradients.contract import check_differentiable
from defense.metagradients.replay import record_states
from defense.metagradients.scores import metagradients
from defense.models.build import build
from defense.pipeline.run import Run, ScoredModel
from defense.reporting.statistics import rank_correlation
from defense.stages.race import CLOCKS, Timed, race
from defense.stages.trajectory import plainly, training_run
from defense.stages.treat import untreated
from defense.tasks.speed.report import write_speed
from defense.training.sgd import check_average

log = logging.getLogger(__name__)
WARM = (16, 16)  # training and validation samples that all are called on before they are timed


@dataclass(frozen=True)
class Answer:
    """What a scorer or a library returns: scores (n,), and how they were found."""

    scores: Tensor
    record: dict[str, float]


def speed(run: Run, output: Path, overrides: list[str]) -> dict[str, Any]:
    """How many times as long as the run's scorer do others take, on the same work?

    The same work: one trained model, the same training and validation samples, and from these a score for every
    training sample, grad v and all else that is needed included. A metagradient needs another training, and its
    reverse. Nothing that is timed comes from the store. A
    rival that took longer than `speed.seconds` on a work is not called on one with as many samples or more.
    """
    config, data = run.config, run.data
    spec = config.speed
    if spec.clock is Clock.processor and run.runtime.device.type != "cpu":
        raise InputError("speed.clock", spec.clock, f"not on {run.runtime.device.type}; expected wall")
    libraries, missing = chosen(spec.peers, run.runtime.device)
    network = build(config.model, data, seed=config.seed)
    check = partial(check_scorer, network, data.validation, config.objective, classes=data.classes)
    for scorer in spec.scorers.values():
        check(scorer, noise_known=data.noise_known)
        if scorer.method is Method.metagradient:
            check_differentiable(build(config.model, data, seed=config.seed), data.train)
            fewest = ceil(min(size for size, _ in spec.works) / config.train.batch_size) * config.train.epochs
            check_average(config.train.ema, steps=fewest)
    scored = run.baseline()
    summary = run.summary(run.scores([scored]), overrides)
    with threads_of(spec.clock):
        works, loads = timed(run, scored, libraries)
    found = {
        "works": works,
        "missing": missing,
        "exact": [str(peer) for peer, library in libraries.items() if library.exact and is_plain(config.scorer)],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "threads": 1 if spec.clock is Clock.processor else torch.get_num_threads(),
        "load": loads,
    }
    return write_speed(run.runtime, summary, found, output)


def is_plain(scorer: Scorer) -> bool:
    """Return whether a scorer is the inner product itself: at the model, of all parameters."""
    kind = (scorer.method, scorer.members, scorer.direction, scorer.cosine, scorer.parameters)
    return kind == (Method.alignment, Members.single, Direction.identity, False, "*")


def timed(
    run: Run, scored: ScoredModel, libraries: dict[Peer, Library]
) -> tuple[list[dict[str, Any]], list[float | None]]:
    """Return what result.json says of each work, and how busy the machine was before and after."""
    config, spec = run.config, run.config.speed
    load = load_average()
    calls_on(run, scored, libraries, WARM, warm=True)
    works: list[dict[str, Any]] = []
    for size in spec.works:
        own, calls = calls_on(run, scored, libraries, size)
        slow = {name: earlier for name in calls if (earlier := too_slow(name, size, works, spec.seconds))}
        running = {name: call for name, call in calls.items() if name not in slow}
        first, found = race(own, running, rounds=spec.rounds, seconds=spec.seconds, clock=CLOCKS[spec.clock])
        rivals = {name: {"skipped": slow[name]} if name in slow else told(found[name], first) for name in calls}
        works.append({"train": size[0], "validation": size[1], "seconds": first.seconds, "rivals": rivals})
        words = ", ".join(f"{name} {rival.factor:.3g}" for name, rival in found.items())
        log.info("%d x %d: %s %.3g s; times as long: %s", *size, config.scorer.name, first.seconds, words)
    return works, [load, load_average()]


@contextmanager
def threads_of(clock: Clock) -> Iterator[None]:
    """Compute by one thread if the processor's time is measured: waiting ones would count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if clock is Clock.processor else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chosen(peers: Sequence[Peer] | None, device: torch.device) -> tuple[dict[Peer, Library], dict[str, str]]:
    """Return the libraries to time, and of those that are not installed the package that each needs.

    Raises InputError if one that was asked for is not installed, or the run is not on the CPU.
    """
    wanted = list(PEERS) if peers is None else list(dict.fromkeys(peers))
    if wanted and device.type != "cpu":
        said = f"not on {device.type}; expected fabric.accelerator=cpu, or speed.peers=[]"
        raise InputError("speed.peers", ", ".join(map(str, wanted)), said)
    missing = {str(peer): PEERS[peer].package for peer in wanted if not PEERS[peer].installed}
    if missing and peers is not None:
        name, package = next(iter(missing.items()))
        raise InputError("speed.peers", name, f"{package} is not installed; expected pip install -e '.[peers]'")
    return {peer: PEERS[peer] for peer in wanted if str(peer) not in missing}, missing


def calls_on(
    run: Run, scored: ScoredModel, libraries: dict[Peer, Library], size: Sequence[int], *, warm: bool = False
) -> tuple[Callable[[], Answer], dict[str, Callable[[], Answer]]]:
    """Return the call of the run's scorer on so many training and validation samples, and those of its rivals.

    What is more than there are samples begins again at the first one: scores cost the same whatever is in a
    picture. warm: make each call once, with fewer steps, so that what is loaded on first use is loaded.
    """
    config, data = run.config, run.data
    train = data.train.subset(torch.arange(size[0]) % len(data.train))
    network, validation = (
        scored.model.network,
        run.validation(scored).subset(torch.arange(size[1]) % len(data.validation)),
    )

    def by_scorer(scorer: Scorer) -> Answer:
        states = scored.model.checkpoints if scorer.members is Members.checkpoints else ()
        objective, seed = config.objective, config.seed
        problem = ScoringContext(network, train, None, validation, objective, scorer, seed, states)
        found = METHODS[scorer.method](problem)
        return Answer(found.total, found.record)

    def by_library(library: Library) -> Answer:
        return Answer(library.scores(network, train, validation.clean), {})

    def by_training(scorer: Scorer) -> Answer:
        return through_training(run, train, validation, scorer, **({"epochs": 1, "ema": None} if warm else {}))

    scorers: dict[str, Scorer] = {config.scorer.name: config.scorer, **config.speed.scorers}
    if warm:
        scorers = {
            name: replace(scorer, iterations=1, count=2, tolerance=float("inf"))
            for name, scorer in scorers.items()
        }
    calls: dict[str, Callable[[], Answer]] = {}
    for name, scorer in scorers.items():
        calls[name] = partial(by_training if scorer.method is Method.metagradient else by_scorer, scorer)
    calls |= {str(peer): partial(by_library, library) for peer, library in libraries.items()}
    if warm:
        for call in calls.values():
            call()
    return calls.pop(config.scorer.name), calls


def through_training(run: Run, train: Split, validation: Validation, scorer: Scorer, **changes: Any) -> Answer:
    """Return metagradients on `train`: train, keep states, and go back. changes: of the recipe."""
    config, alone, data = run.config, run.runtime.alone(), replace(run.data, train=train)
    training = run.training(plainly(replace(config.train, **changes)))
    again = training_run(alone, run.design(), data, training, untreated(train))
    states, size = record_states(again, again.total, alone), scorer.batch_size
    return Answer(metagradients(again, states, validation, config.objective, alone, batch_size=size)[0], {})


def too_slow(
    name: str, size: Sequence[int], works: Sequence[dict[str, Any]], seconds: float
) -> dict[str, Any] | None:
    """Return the first of `works`, none larger than `size` in either number, on which a rival took too long."""
    for work in works:
        smaller = work["train"] <= size[0] and work["validation"] <= size[1]
        took = work["rivals"][name].get("seconds", 0.0)
        if smaller and took > seconds:
            return {"train": work["train"], "validation": work["validation"], "seconds": took}
    return None


def told(rival: Timed[Answer], own: Timed[Answer]) -> dict[str, Any]:
    """Return what result.json says of a rival; agreement: the rank correlation with the scores it is beside."""
    scores = [answer.found.scores.double().cpu().numpy() for answer in (rival, own)]
    residuals = [value for name, value in rival.found.record.items() if name.endswith("residual")]
    return {
        "seconds": rival.seconds,
        "factor": rival.factor,
        "rounds": rival.rounds,
        "agreement": rank_correlation(*scores),
        "residual": max(residuals, default=None),
    }


def load_average() -> float | None:
    """Return how many processes have wanted a processor in the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
