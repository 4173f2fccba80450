"""The models of one cell and what is attacked at them: each stage with what its key is made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from lightning_fabric import Fabric
from pandas.util import hash_pandas_object
from torch import nn

from defense.artifacts import AdversarialSet, TrainedModel, Treatment
from defense.config.choices import Optimizer, Recipe
from defense.config.reads import read, reading
from defense.config.schema import Attack, Config, Train
from defense.data.splits import Dataset
from defense.models.source import source_digest
from defense.randomness import derive
from defense.runtime.distributed import ALONE
from defense.stages import attack, train, treat
from defense.store.stage import Ledger
from defense.store.store import Stored


@dataclass(frozen=True)
class Site:
    """A trained model that samples are scored at, with the validation split attacked at it where that is seen."""

    name: str  # baseline, proxy, or one of them trained again
    trained: Stored[TrainedModel]
    model: nn.Module
    adversarial: Stored[AdversarialSet] | None
    recipe: Recipe
    seed: int  # of its training

    @property
    def attacked(self) -> dict[str, str]:
        """The key of the attacked validation split by name, as a stage takes it; nothing where there is none."""
        return {"adversarial": self.adversarial.key} if self.adversarial else {}


class Trainings:
    """One composed set of settings, its data, and the stages that train and attack."""

    def __init__(self, config: Config, data: Dataset, fabric: Fabric, ledger: Ledger) -> None:
        self.config, self.data, self.fabric, self.ledger = config, data, fabric, ledger
        self.crew = ledger.crew
        self.sites: dict[tuple[Recipe, int], Site] = {}
        self.digests = {part: split.digest() for part, split in data.splits.items()}

    def baseline(self) -> Site:
        """Return the model that is trained on everything."""
        return self.site(self.config.train.recipe, 0)

    def scored_at(self) -> list[Site]:
        """Return the models that the scorer is taken at: the baseline or a proxy, under one seed or several."""
        recipe = self.config.scorer.proxy or self.config.train.recipe
        return [self.site(recipe, index) for index in range(self.config.scorer.seeds)]

    def site(self, recipe: Recipe, index: int) -> Site:
        """Train on everything by `recipe`, under the run's seed (index 0) or another, and attack validation."""
        if (recipe, index) in self.sites:
            return self.sites[recipe, index]
        name = "baseline" if recipe is self.config.train.recipe else "proxy"
        name += f"_seed{index}" if index else ""
        spec = replace(self.config.train, recipe=recipe)
        trained = self.train(name, treat.untreated(self.data.train), spec, index)
        model = self.restore(trained, index)
        label = "attack_validation" + ("" if name == "baseline" else f"_{name}")
        adversarial = None
        if self.config.attacks_validation:
            adversarial = self.attack(label, "validation", model, trained.key, self.config.attack)
        self.sites[recipe, index] = Site(name, trained, model, adversarial, recipe, self.seed_of(index))
        return self.sites[recipe, index]

    def train(
        self, arm: str, treatment: Treatment, recipe: Train | None = None, index: int = 0
    ) -> Stored[TrainedModel]:
        """Train one arm. Two arms treated alike are one stage; checkpoints are kept of what is not treated."""
        config = self.config
        recipe = recipe or config.train
        if treatment.table["treated"].any():
            recipe = replace(recipe, checkpoints=1)
        seed, shared = self.seed_of(index), recipe.optimizer is Optimizer.sgd
        seen = treatment.table[["id", "keep", "label", "weight"]]  # what a training run looks at
        rows = hash_pandas_object(seen, index=False).to_numpy()
        return self.ledger.once(
            f"train_{arm}",
            TrainedModel,
            version=train.VERSION,
            settings=self.training(recipe) | {"training_seed": seed} | (self.processes if shared else {}),
            inputs=self.inputs("train", "validation", treatment=hashlib.sha256(rows.tobytes()).hexdigest()),
            compute=lambda watch, progress: train.train(
                config.model,
                self.data,
                recipe,
                treatment,
                threat=config.threat,
                seed=seed,
                fabric=self.fabric,
                watch=watch,
                memory=progress,
                crew=self.crew if shared else ALONE,
            ),
            shared=shared,
        )

    @property
    def processes(self) -> dict[str, int]:
        """How many share the batches of a training: draws and rounding depend on it. Nothing for one alone."""
        return {"processes": self.crew.size} if self.crew.size > 1 else {}

    def training(self, recipe: Train) -> dict[str, object]:
        """Return the settings that a training run depends on; what its recipe does not read is left out."""
        return {
            "model": self.config.model,
            "source": source_digest(self.config.model),
            "train": read(recipe),
            "threat": self.config.threat if "threat" in reading(recipe) else None,
            "classes": self.data.classes,
        }

    def restore(self, trained: Stored[TrainedModel], index: int = 0) -> nn.Module:
        """Return the network of a trained arm."""
        return train.restore(
            self.config.model, self.data, trained.artifact, seed=self.seed_of(index), device=self.fabric.device
        )

    def seed_of(self, index: int) -> int:
        """Return the seed of one of several trainings; the first has that of the run."""
        return derive(self.config.seed, "training", index) if index else self.config.seed

    def attack(
        self, label: str, part: str, model: nn.Module, model_key: str, spec: Attack
    ) -> Stored[AdversarialSet]:
        """Attack one split at a model."""
        config = self.config
        return self.ledger.once(
            label,
            AdversarialSet,
            version=attack.VERSION,
            settings={
                "attack": read(spec),
                "threat": config.threat,
                "batch_size": config.evaluation.batch_size,
                "classes": self.data.classes,
            },
            inputs=self.inputs(part, model=model_key),
            compute=lambda watch, progress: attack.attack(
                model,
                getattr(self.data, part),
                spec,
                config.threat,
                classes=self.data.classes,
                batch_size=config.evaluation.batch_size,
                seed=derive(config.seed, "attack", part),
                watch=watch,
                memory=progress,
                crew=self.crew,
            ),
            shared=True,
        )

    def inputs(self, *parts: str, **keys: str) -> dict[str, str]:
        """Return the digests of the named splits together with the keys of other inputs."""
        return {part: self.digests[part] for part in parts} | keys
