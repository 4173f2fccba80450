"""One run: the stages in their order, for the three arms; the only caller of the store.

data -> train -> attack -> score -> treat -> retrain -> evaluate -> report
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pandas.util import hash_pandas_object
from torch import nn

from defense.artifacts import AdversarialSet, Evaluation, Scores, TrainedModel, Treatment
from defense.data.images import TensorImages
from defense.data.load import load
from defense.data.splits import Dataset, Split
from defense.devices import make_fabric
from defense.errors import InputError
from defense.influence.objectives import Validation
from defense.influence.scorers import check_scorer, random_scores
from defense.ledger import Ledger
from defense.models.build import build, source_digest
from defense.randomness import derive
from defense.reporting.record import Arm, Run
from defense.schema import Attack, Config, Method, plain
from defense.stages import attack, evaluate, score, train, treat
from defense.stages.report import write_report
from defense.stages.treat import Suggestion
from defense.store import Stored


def run(config: Config, output: Path, overrides: list[str]) -> dict[str, Any]:
    """Run every stage that the store does not hold yet, write the report into `output`, return its result."""
    fabric = make_fabric(config.fabric)
    common = {"seed": config.seed, "precision": config.fabric.precision, "device": fabric.device.type}
    ledger = Ledger(Path(config.store), common)
    data = load(config.data, seed=config.seed).to(fabric.device)
    if config.train.crop >= min(data.shape[1:]):
        raise InputError(
            "train.crop", config.train.crop, f"expected less than the side of a picture, {data.shape}"
        )
    model = build(config.model, data, seed=config.seed)  # fails here, before any compute, where it does not fit
    check_scorer(model, data.validation, config.objective, config.scorer, noise_known=data.noise_known)
    return Pipeline(config, data, fabric, ledger).run(output, overrides)


class Pipeline:
    """The stages of one run, each bound to the settings and inputs that its key is made of."""

    def __init__(self, config: Config, data: Dataset, fabric: Fabric, ledger: Ledger) -> None:
        self.config, self.data, self.fabric, self.ledger = config, data, fabric, ledger
        self.digests = {part: getattr(data, part).digest() for part in ("train", "validation", "test")}

    def run(self, output: Path, overrides: list[str]) -> dict[str, Any]:
        """Go through the stages and write the report."""
        config, data = self.config, self.data
        untreated = treat.untreated(data.train)
        baseline = self.train("baseline", untreated)
        model = self.restore(baseline)
        validation = self.attack("validation", model, baseline.key, config.attack)
        scores = self.score(model, baseline.key, validation)
        defended = self.treat(scores)
        treatments = {
            "baseline": untreated,
            "control": self.control(scores, defended),
            "defended": defended.artifact,
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
                seconds=self.ledger.seconds,
                reused=self.ledger.reused,
                device=str(self.fabric.device),
            ),
            output,
        )

    def train(self, arm: str, treatment: Treatment) -> Stored[TrainedModel]:
        """Train one arm. Two arms that are treated alike are one stage."""
        config = self.config
        seen = treatment.table[["id", "keep", "label", "weight"]]  # what a training run looks at
        rows = hash_pandas_object(seen, index=False).to_numpy()
        return self.ledger.once(
            f"train_{arm}",
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
        return self.ledger.once(
            f"attack_{part}_{name}" if name else f"attack_{part}",
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
        config, data = self.config, self.data
        validation = Validation(data.validation, self.attacked(data.validation, adversarial))
        needs_attacked = config.scorer.attacked_train or config.scorer.method is Method.adversarial_loss
        attack = self.attack("train", model, model_key, config.attack) if needs_attacked else None
        keys = {"adversarial": adversarial.key, **({"attacked": attack.key} if attack else {})}
        return self.ledger.once(
            "score",
            Scores,
            version=score.VERSION,
            settings={"objective": config.objective, "scorer": config.scorer},
            inputs=self.inputs("train", "validation", model=model_key, **keys),
            compute=lambda watch: score.score(
                model,
                data.train,
                validation,
                config.objective,
                config.scorer,
                attacked=self.attacked(data.train, attack) if attack else None,
                seed=config.seed,
                watch=watch,
            ),
        )

    def attacked(self, split: Split, adversarial: Stored[AdversarialSet]) -> Split:
        """Return the split with its attacked pictures."""
        return split.with_images(TensorImages(adversarial.artifact.tensors["pictures"].to(self.fabric.device)))

    def treat(self, scores: Stored[Scores]) -> Stored[Treatment]:
        """Treat the training split by its scores."""
        return self.ledger.once(
            "treat_defended",
            Treatment,
            version=treat.VERSION,
            settings={"treatment": self.config.treatment},
            inputs=self.inputs("train", scores=scores.key),
            compute=lambda watch: treat.treat(self.data.train, self.suggestion(scores), self.config.treatment),
        )

    def control(self, scores: Stored[Scores], defended: Stored[Treatment]) -> Treatment:
        """Treat as many samples at random."""
        config, train_split = self.config, self.data.train
        order = random_scores(len(train_split), seed=derive(config.seed, "control")).numpy()
        return self.ledger.once(
            "treat_control",
            Treatment,
            version=treat.VERSION,
            settings={"treatment": config.treatment},
            inputs=self.inputs("train", scores=scores.key, defended=defended.key),
            compute=lambda watch: treat.control(
                train_split, defended.artifact, self.suggestion(scores), config.treatment, order
            ),
        ).artifact

    def suggestion(self, scores: Stored[Scores]) -> Suggestion:
        """Return what a treatment is made from."""
        score, prediction, label = (
            scores.artifact.table[name].to_numpy() for name in ("score", "prediction", "label")
        )
        return Suggestion(score, prediction, label, self.data.classes)

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
        return self.ledger.once(
            f"evaluate_{arm}",
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
