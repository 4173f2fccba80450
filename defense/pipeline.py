"""One run: the stages in their order, for the three arms; the only caller of the store.

data -> train -> attack -> score -> treat -> retrain -> evaluate -> report
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from pandas.util import hash_pandas_object
from torch import nn

from defense.artifacts import AdversarialSet, Artifact, Evaluation, Scores, TrainedModel, Treatment
from defense.data.images import TensorImages
from defense.data.load import load
from defense.data.splits import Dataset
from defense.devices import make_fabric
from defense.errors import InputError
from defense.influence.objectives import Validation
from defense.influence.scorers import random_scores
from defense.models.build import build, source_digest
from defense.randomness import derive
from defense.reporting.progress import Watch, watching
from defense.reporting.record import Arm, Run
from defense.schema import Attack, Config, plain
from defense.stages import attack, evaluate, score, train, treat
from defense.stages.report import write_report
from defense.store import Store, Stored

log = logging.getLogger(__name__)


def run(config: Config, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Run every stage that the store does not hold yet, write the report into `output`, return its result."""
    store = Store(Path(config.store))
    fabric = make_fabric(config.fabric)
    data = load(config.data, seed=config.seed).to(fabric.device)
    if config.train.crop >= min(data.shape[1:]):
        raise InputError(
            "train.crop", config.train.crop, f"expected less than the side of a picture, {data.shape}"
        )
    build(config.model, data, seed=config.seed)  # fails here, before any compute, where it does not fit
    return Pipeline(config, data, fabric, store).run(output, overrides)


class Pipeline:
    """The stages of one run, each bound to the settings and inputs that its key is made of."""

    def __init__(self, config: Config, data: Dataset, fabric: Fabric, store: Store) -> None:
        self.config, self.data, self.fabric, self.store = config, data, fabric, store
        self.digests = {part: getattr(data, part).digest() for part in ("train", "validation", "test")}
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    def run(self, output: Path, overrides: list[str]) -> dict[str, Any]:
        """Go through the stages and write the report."""
        config, data = self.config, self.data
        untreated = treat.untreated(data.train)
        baseline = self.train("baseline", untreated)
        model = self.restore(baseline)
        validation = self.attack("validation", model, baseline.key, config.attack)
        scores = self.score(model, baseline.key, validation)
        control = random_scores(len(data.train), seed=derive(config.seed, "control"))
        treatments = {
            "baseline": untreated,
            "control": self.treat("control", control.numpy()),
            "defended": self.treat("defended", scores.artifact.table["score"].to_numpy()),
        }
        frozen = {
            name: self.attack("test", model, baseline.key, spec, name)
            for name, spec in config.evaluation.attacks.items()
        }
        arms = {}
        for name, treatment in treatments.items():
            trained = self.train(name, treatment) if name != "baseline" else baseline
            evaluation = self.evaluate(name, trained, frozen, at_source=trained.key == baseline.key)
            arms[name] = Arm(treatment.table, trained.artifact.history, evaluation.artifact.table)
        return write_report(
            Run(
                config=config,
                settings=plain(config),
                overrides=overrides,
                data=data,
                arms=arms,
                scores=scores.artifact.table,
                adversarial=validation.artifact.tensors["pictures"],
                seconds=self.seconds,
                reused=self.reused,
                device=str(self.fabric.device),
            ),
            output,
        )

    def train(self, arm: str, treatment: Treatment) -> Stored[TrainedModel]:
        """Train one arm. Two arms that are treated alike are one stage."""
        config = self.config
        rows = hash_pandas_object(treatment.table, index=False).to_numpy()
        return self.once(
            "train",
            arm,
            TrainedModel,
            version=train.VERSION,
            settings={
                "model": config.model,
                "source": source_digest(config.model),
                "train": config.train,
                "classes": self.data.classes,
            },
            inputs=self.inputs("train", "validation", treatment=hashlib.sha256(rows.tobytes()).hexdigest()),
            compute=lambda watch: train.train(
                config.model,
                self.data,
                config.train,
                treatment,
                seed=config.seed,
                fabric=self.fabric,
                watch=watch,
            ),
        )

    def attack(
        self, part: str, model: nn.Module, model_key: str, spec: Attack, name: str | None = None
    ) -> Stored[AdversarialSet]:
        """Attack one split at the baseline."""
        config = self.config
        return self.once(
            "attack",
            f"{part}_{name}" if name else part,
            AdversarialSet,
            version=attack.VERSION,
            settings={
                "name": name,
                "attack": spec,
                "threat": config.threat,
                "batch_size": config.evaluation.batch_size,
                "classes": self.data.classes,
            },
            inputs=self.inputs(part, model=model_key),
            compute=lambda watch: attack.attack(
                model,
                getattr(self.data, part),
                spec,
                config.threat,
                classes=self.data.classes,
                batch_size=config.evaluation.batch_size,
                seed=derive(config.seed, "attack", name or part),
                watch=watch,
            ),
        )

    def score(self, model: nn.Module, model_key: str, adversarial: Stored[AdversarialSet]) -> Stored[Scores]:
        """Score the training split at the baseline."""
        config, clean = self.config, self.data.validation
        pictures = adversarial.artifact.tensors["pictures"].to(self.fabric.device)
        validation = Validation(clean, clean.with_images(TensorImages(pictures)))
        return self.once(
            "score",
            None,
            Scores,
            version=score.VERSION,
            settings={"objective": config.objective, "scorer": config.scorer},
            inputs=self.inputs("train", "validation", model=model_key, adversarial=adversarial.key),
            compute=lambda watch: score.score(
                model,
                self.data.train,
                validation,
                config.objective,
                config.scorer,
                seed=config.seed,
                watch=watch,
            ),
        )

    def treat(self, arm: str, scores: np.ndarray) -> Treatment:
        """Treat the training split by scores (n,)."""
        return self.once(
            "treat",
            arm,
            Treatment,
            version=treat.VERSION,
            settings={"treatment": self.config.treatment},
            inputs=self.inputs("train", scores=hashlib.sha256(scores.tobytes()).hexdigest()),
            compute=lambda watch: treat.treat(self.data.train, scores, self.config.treatment),
        ).artifact

    def evaluate(
        self,
        arm: str,
        trained: Stored[TrainedModel],
        frozen: dict[str, Stored[AdversarialSet]],
        *,
        at_source: bool,
    ) -> Stored[Evaluation]:
        """Evaluate one arm on the test split."""
        config = self.config
        return self.once(
            "evaluate",
            arm,
            Evaluation,
            version=evaluate.VERSION,
            settings={
                "evaluation": config.evaluation,
                "threat": config.threat,
                "classes": self.data.classes,
            },
            inputs=self.inputs(
                "test", model=trained.key, **{f"frozen {name}": set_.key for name, set_ in frozen.items()}
            ),
            compute=lambda watch: evaluate.evaluate(
                self.restore(trained),
                self.data.test,
                config.evaluation,
                config.threat,
                {name: set_.artifact for name, set_ in frozen.items()},
                at_source=at_source,
                classes=self.data.classes,
                seed=config.seed,
                watch=watch,
            ),
        )

    def restore(self, trained: Stored[TrainedModel]) -> nn.Module:
        """Return the network of a trained arm."""
        config, device = self.config, self.fabric.device
        return train.restore(config.model, self.data, trained.artifact, seed=config.seed, device=device)

    def inputs(self, *parts: str, **keys: str) -> dict[str, str]:
        """Return the digests of the named splits together with the keys of other inputs."""
        return {part: self.digests[part] for part in parts} | keys

    def once(
        self,
        stage: str,
        arm: str | None,
        kind: type[Artifact],
        *,
        version: int,
        settings: dict[str, Any],
        inputs: dict[str, str],
        compute: Callable[[Watch], Artifact],
    ) -> Stored[Artifact]:
        """Take a stage from the store or compute it, in sight; keep its time."""
        label = f"{stage}_{arm}" if arm else stage
        with watching(label.replace("_", " ")) as watch:
            stored = self.store.once(
                stage,
                kind,
                settings={
                    **plain(settings),
                    "seed": self.config.seed,
                    "precision": self.config.fabric.precision,
                    "device": self.fabric.device.type,
                },
                inputs=inputs,
                stage_version=version,
                compute=lambda: compute(watch),
            )
        self.seconds[label] = stored.seconds
        if stored.reused:
            self.reused.append(label)
        how = "from the store" if stored.reused else f"{stored.seconds:.1f} s"
        log.info("%-20s %s", label.replace("_", " "), how)
        return stored
