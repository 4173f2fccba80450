"""The stages of one cell, each bound to the settings and inputs that its key is made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from defense.artifacts import AdversarialSet, HeldOut, Retrainings, Scores
from defense.config.choices import ObjectiveName
from defense.config.reads import read, reading
from defense.config.schema import Scorer
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.influence.objectives import Validation
from defense.pipeline.trainings import Site, Trainings
from defense.stages import crossval, retrain, score
from defense.stages.train import checkpoints_of
from defense.store.store import Stored


@dataclass(frozen=True)
class Seen:
    """What an objective looks at, and the keys of those of its parts that are stages."""

    validation: Validation
    keys: dict[str, str]


def scoring_settings(scorer: Scorer) -> dict[str, Any]:
    """Return the settings that a score at one model is computed by; which model and which folds is for others."""
    return {name: value for name, value in read(scorer).items() if name not in ("name", "proxy", "seeds", "folds")}


class Cell(Trainings):
    """One composed set of settings, its data, and all stages but those that make arms."""

    def scores(self, sites: list[Site], target: str = "", rows: Tensor | None = None) -> Stored[Scores]:
        """Score the training split at every site; the mean. `target`: the validation samples at `rows` alone."""
        each = [self.score(site, target, rows) for site in sites]
        if len(each) == 1:
            return each[0]
        return self.ledger.once(
            f"score_mean_{target}" if target else "score_mean",
            Scores,
            version=score.VERSION,
            settings={},
            inputs={site.name: stored.key for site, stored in zip(sites, each, strict=True)},
            compute=lambda watch, _: score.mean(
                {site.name: stored.artifact for site, stored in zip(sites, each, strict=True)}
            ),
        )

    def score(
        self, site: Site, target: str = "", rows: Tensor | None = None, seen: Seen | None = None
    ) -> Stored[Scores]:
        """Score the training split at one site; see `scores`. seen: by the objective, instead of validation."""
        config, data, scorer = self.config, self.data, self.config.scorer
        names = reading(scorer)
        states = checkpoints_of(site.trained.artifact) if "checkpoints" in names else []
        looks = "objective" in names
        robust = looks and ObjectiveName.robustness in config.objective.weights
        seen = seen or Seen(self.validation(site), self.adversarial(site) if robust else {})
        validation = seen.validation
        attack = None
        if "attacked" in names or ("attacked_train" in names and scorer.attacked_train):
            label = "attack_train" + ("" if site.name == "baseline" else f"_{site.name}")
            attack = self.attack(label, "train", site.model, site.trained.key, config.attack)
        keys = {**(seen.keys if looks else {}), **({"attacked": attack.key} if attack else {})}
        held_out = None
        if "folds" in names:
            held_out = self.cross_validated(site)
            keys |= {"held_out": held_out.key}
        label = "score" + ("" if site.name == "baseline" else f"_{site.name}")
        return self.ledger.once(
            f"{label}_{target}" if target else label,
            Scores,
            version=score.VERSION,
            settings={
                "objective": config.objective if looks else None,
                "scorer": scoring_settings(scorer),
                "rows": rows.tolist() if looks and rows is not None else None,
            },
            inputs=self.inputs("train", *(["validation"] if looks else []), model=site.trained.key, **keys),
            compute=lambda watch, progress: score.score(
                site.model,
                data.train,
                validation if rows is None else validation.subset(rows),
                config.objective,
                scorer,
                attacked=self.attacked(data.train, attack) if attack else None,
                states=states,
                held_out=held_out.artifact.tensors["probabilities"] if held_out else None,
                seed=config.seed,
                watch=watch,
                memory=progress,
                crew=self.crew,
            ),
            shared=True,
        )

    def cross_validated(self, site: Site) -> Stored[HeldOut]:
        """Train as a site was on all folds but one, for each, and predict the training samples of that one."""
        config = self.config
        recipe = replace(config.train, recipe=site.recipe, checkpoints=1)
        return self.ledger.once(
            f"crossval_{site.name}",
            HeldOut,
            version=crossval.VERSION,
            settings=self.training(recipe) | {"folds": config.scorer.folds, "training_seed": site.seed},
            inputs=self.inputs("train", "validation"),
            compute=lambda watch, _: crossval.cross_validate(
                config.model,
                self.data,
                recipe,
                config.scorer.folds,
                threat=config.threat,
                seed=site.seed,
                fabric=self.fabric,
                watch=watch,
            ),
        )

    def validation(self, site: Site) -> Validation:
        """Return the validation split as it is, and attacked: at a site, or by others where that is given."""
        clean = self.data.validation
        if "validation" in self.data.given:
            return Validation(clean, self.data.given["validation"])
        return Validation(clean, self.attacked(clean, site.adversarial) if site.adversarial else None)

    def adversarial(self, site: Site) -> dict[str, str]:
        """Return the key of what `validation` calls attacked by its name, as an input of a stage."""
        return self.inputs("given_validation") if "validation" in self.data.given else site.attacked

    def attacked(self, split: Split, adversarial: Stored[AdversarialSet]) -> Split:
        """Return the split with its attacked pictures."""
        return split.with_images(TensorImages(adversarial.artifact.tensors["pictures"].to(self.fabric.device)))

    def retrain(self, site: Site, parts: Tensor) -> Stored[Retrainings]:
        """Retrain on `parts` bool (m, n) of the training split."""
        config = self.config
        return self.ledger.once(
            "retrain",
            Retrainings,
            version=retrain.VERSION,
            settings=self.training(replace(config.train, checkpoints=1)),
            inputs=self.inputs(
                "train",
                "validation",
                **site.attacked,
                parts=hashlib.sha256(parts.to(torch.uint8).numpy().tobytes()).hexdigest(),
            ),
            compute=lambda watch, progress: retrain.retrain(
                config.model,
                self.data,
                replace(config.train, checkpoints=1),
                parts,
                site.trained.artifact,
                self.validation(site),
                threat=config.threat,
                seed=config.seed,
                fabric=self.fabric,
                watch=watch,
                memory=progress,
                crew=self.crew,
            ),
            shared=True,
        )
