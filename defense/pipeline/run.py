"""One run: its settings, its data, and each stage called with what the settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from defense.artifacts import (
    AdversarialSet,
    Checks,
    Contributions,
    DescentRound,
    Evaluation,
    Measurement,
    Scores,
    Smoothness,
    Treatment,
)
from defense.config.choices import Harm, Optimizer, Recipe, TreatmentName
from defense.config.reads import attacks_validation, reading
from defense.config.schema import Config, Scorer, Train, Training, Treat, plain
from defense.data.given_scores import read_scores
from defense.data.harm import stamped
from defense.data.images import TensorImages
from defense.data.splits import Dataset, Split
from defense.data.validation import Validation
from defense.models.build import Design
from defense.randomness import derive
from defense.reporting.run import Scoring
from defense.robustness.checks import judge, learned
from defense.runtime.runtime import Runtime
from defense.stages.attack import attack
from defense.stages.check import check
from defense.stages.contribution import contribution
from defense.stages.crossval import crossval
from defense.stages.descent import Adversary, descent
from defense.stages.evaluate import evaluate
from defense.stages.measure import measure
from defense.stages.metagradient import metagradient, smoothness
from defense.stages.score import score, score_by_file, score_mean
from defense.stages.train import train, untrained
from defense.stages.trained import Trained
from defense.stages.trajectory import plainly, trajectory
from defense.stages.treat import control, treat, trusting, untreated
from defense.stages.treat_user import control_of_user, treat_by_user
from defense.store.stage import StageRunner


@dataclass(frozen=True)
class ScoredModel:
    """A model trained on everything, at which samples are scored."""

    name: str  # baseline, proxy, or one of them trained again
    model: Trained
    recipe: Recipe
    adversarial: AdversarialSet | None  # the validation split attacked at it, if anything looks at that

    @property
    def label(self) -> str:
        """Its part of the labels of stages; none for the baseline."""
        return "" if self.name == "baseline" else self.name


@dataclass(frozen=True)
class Run:
    """Composed settings, the data, and the stages that take them."""

    config: Config
    data: Dataset
    runtime: Runtime
    runner: StageRunner
    models: dict[str, ScoredModel] = field(default_factory=dict)  # by name, once they are trained
    designs: Callable[[dict[str, Any], Dataset, int], Design] = Design  # how its network is made

    @property
    def writes(self) -> bool:
        """Whether this process writes the report."""
        return self.runtime.ranks.rank == 0

    def baseline(self) -> ScoredModel:
        """Return the model that is trained on everything."""
        return self.scored_model(self.config.train.recipe, 0)

    def scored_models(self) -> list[ScoredModel]:
        """Return the models that the scorer is taken at: the baseline or a proxy, under one seed or several."""
        recipe = self.config.scorer.proxy or self.config.train.recipe
        return [self.scored_model(recipe, index) for index in range(self.config.scorer.seeds)]

    def scored_model(self, recipe: Recipe, index: int) -> ScoredModel:
        """Train on everything by `recipe`, under the run's seed (index 0) or another, and attack validation."""
        name = "baseline" if recipe is self.config.train.recipe else "proxy"
        name += f"_seed{index}" if index else ""
        if name not in self.models:
            spec = replace(self.config.train, recipe=recipe)
            model = self.train(name, untreated(self.data.train), spec, index=index)
            found = ScoredModel(name, model, recipe, None)
            if attacks_validation(self.config):
                found = replace(found, adversarial=self.attack(found, "validation"))
            self.models[name] = found
        return self.models[name]

    def train(self, arm: str, treatment: Treatment, recipe: Train | None = None, *, index: int = 0) -> Trained:
        """Train one arm; checkpoints are kept of what is not treated."""
        recipe = recipe or self.config.train
        if treatment.table["treated"].any():
            recipe = replace(recipe, checkpoints=1)
        design = self.design(index)
        if recipe.recipe is Recipe.none:
            return Trained(design, untrained(design))
        found = train(self.runtime.named(arm), design, self.data, self.training(recipe), treatment)
        return Trained(design, found)

    def train_trusted(self, arm: str, baseline: Trained) -> tuple[Treatment, Trained]:
        """Train one arm on the trusted samples too, by their weight there; nothing is treated.

        No validation is left to choose its epoch by, so it is that of the baseline: the same part of all steps.
        """
        data, design = self.data.trusting, self.design()
        weight = self.config.evaluation.trusted_arms[arm]
        treatment = trusting(data.train, len(data.train) - len(self.data.train), weight)
        recipe = self.training(replace(self.config.train, checkpoints=1))
        found = train(self.runtime.named(arm), design, data, recipe, treatment, kept=baseline.kept)
        return treatment, Trained(design, found)

    def design(self, index: int = 0) -> Design:
        """Return how the network of one of several trainings is made; the first has the seed of the run."""
        seed = derive(self.config.seed, "training", index) if index else self.config.seed
        return self.designs(self.config.model, self.data, seed)

    def training(self, recipe: Train | None = None) -> Training:
        """Return a recipe with the threat model of the run."""
        return Training(recipe or self.config.train, self.config.threat)

    def attack(self, scored: ScoredModel, part: str) -> AdversarialSet:
        """Attack one split at a model."""
        config = self.config
        return attack(
            self.runtime.named(part, scored.label),
            scored.model,
            getattr(self.data, part),
            config.attack.within(config.threat),
            config.threat,
            batch_size=config.evaluation.batch_size,
            seed=derive(config.seed, "attack", part),
        )

    def attacked(self, split: Split, adversarial: AdversarialSet) -> Split:
        """Return the split with its attacked pictures."""
        return split.with_images(TensorImages(adversarial.tensors["pictures"].to(self.runtime.device)))

    def validation(self, scored: ScoredModel) -> Validation:
        """Return the validation split as it is, and attacked: at a model, or by others if the data bring that."""
        clean = self.data.validation
        if "validation" in self.data.given:
            return Validation(clean, self.data.given["validation"])
        return Validation(clean, self.attacked(clean, scored.adversarial) if scored.adversarial else None)

    def scores(self, models: list[ScoredModel], target: str = "", rows: Tensor | None = None) -> Scores:
        """Score the training split at every model; the mean. `target`: the validation samples at `rows` alone."""
        each = {scored.name: self.score(scored, target, self.seen(scored, rows)) for scored in models}
        return next(iter(each.values())) if len(each) == 1 else score_mean(self.runtime.named(target), each)

    def seen(self, scored: ScoredModel, rows: Tensor | None = None) -> Validation:
        """Return what the objective looks at; its attacked samples only if it has a robustness term."""
        validation = self.validation(scored)
        if not self.config.objective.reads_adversarial:
            validation = Validation(validation.clean, None)
        return validation if rows is None else validation.subset(rows)

    def score(self, scored: ScoredModel, target: str, validation: Validation) -> Scores:
        """Score the training split at one model by what the objective sees of `validation`; see `scores`."""
        scorer, train_split = self.config.scorer, self.data.train
        names = reading(scorer)
        if "trajectory" in names:
            return self.metagradient(scored, target, validation)
        if "path" in names:
            given, here = read_scores(scorer.path, self.data), self.runtime.named(scored.label)
            return score_by_file(here, scored.model, train_split, given, batch_size=scorer.batch_size)
        looks = "objective" in names
        attacks = "attacked" in names or ("attacked_train" in names and scorer.attacked_train)
        return score(
            self.runtime.named(scored.label, target),
            scored.model,
            train_split,
            validation if looks else None,
            self.config.objective if looks else None,
            scorer,
            attacked=self.attacked(train_split, self.attack(scored, "train")) if attacks else None,
            states=scored.model.checkpoints if "checkpoints" in names else (),
            held_out=crossval(*self.folds(scored), folds=scorer.folds) if "folds" in names else None,
            seed=self.config.seed,
        )

    def metagradient(self, scored: ScoredModel, target: str, validation: Validation) -> Scores:
        """Score by the derivative of the whole training of a model, and measure how smooth that training is."""
        design, epochs = scored.model.design, scored.model.kept
        training = self.training(plainly(replace(self.config.train, recipe=scored.recipe)))
        made_of = (self.data, training, untreated(self.data.train))
        here, threads = self.runtime.named(scored.label), torch.get_num_threads()
        states = trajectory(here, design, *made_of, epochs=epochs, threads=threads)
        smooth = smoothness(here, design, states, *made_of)
        scores = metagradient(
            self.runtime.named(scored.label, target),
            scored.model,
            states,
            *made_of,
            validation=validation,
            objective=self.config.objective,
            batch_size=self.config.scorer.batch_size,
        )
        return self.with_smoothness(scores, smooth)

    def with_smoothness(self, scores: Scores, smooth: Smoothness) -> Scores:
        """Return scores with the smoothness of their training in the record."""
        return Scores(scores.table, pd.concat([scores.record, smooth.table], ignore_index=True))

    def descent(self, number: int, which: int, treatment: Treatment) -> DescentRound:
        """Return round `number` of a descent, from 0 up, by one of its trainings, `which` from 0 up.

        Each has first weights and an order of its own, which no arm has.
        """
        config = self.config
        index = 1 + number * config.scorer.seeds + which  # arms have 0
        design, adversary = self.design(index), None
        if config.objective.reads_adversarial:
            seed = derive(config.seed, "descent attack", index)
            adversary = Adversary(config.attack.within(config.threat), config.threat, seed)
        return descent(
            self.runtime.named(str(number), f"seed{which}" if which else ""),
            design,
            self.data,
            self.training(plainly(config.train)),
            treatment,
            objective=config.objective,
            adversary=adversary,
            batch_size=config.evaluation.batch_size,
            threads=torch.get_num_threads(),
            last=number == config.treatment.rounds,
        )

    def deciding(self, arm: str, which: int, treatment: Treatment) -> Contributions:
        """Return what each deciding sample contributes to the objective after a training, `which` from 0 up.

        Arms under the same `which` have the same first weights and order, which no round of the descent has.
        """
        config, choice = self.config, self.data.choice
        assert choice is not None
        name = f"deciding_{arm}" + (f"_seed{which}" if which else "")
        model = self.train(name, treatment, index=-1 - which)  # rounds count from 1 up
        attacked = None
        if config.objective.reads_adversarial:
            scored = ScoredModel(name, model, config.train.recipe, None)
            attacked = self.attacked(choice, self.attack(scored, "choice"))
        return contribution(
            self.runtime.named(name),
            model,
            Validation(choice, attacked),
            config.objective,
            batch_size=config.evaluation.batch_size,
        )

    def folds(self, scored: ScoredModel) -> tuple[Runtime, Design, Dataset, Training]:
        """Return what cross-validation takes to train as a model was trained."""
        recipe = replace(self.config.train, recipe=scored.recipe, checkpoints=1)
        return self.runtime.named(scored.name), scored.model.design, self.data, self.training(recipe)

    def treat(self, scores: Scores, spec: Treat, label: str = "") -> Treatment:
        """Treat the training split by its scores."""
        runtime, train, classes = self.runtime.named("defended", label), self.data.train, self.data.classes
        if spec.name is TreatmentName.own:
            seed = derive(self.config.seed, "user treatment")
            return treat_by_user(runtime, train, scores, spec, classes=classes, seed=seed)
        return treat(runtime, train, scores, spec, classes=classes)

    def control(
        self, scores: Scores, defended: Treatment, spec: Treat, label: str = "", *, index: int = 0
    ) -> Treatment:
        """Treat as many samples at random."""
        draw = control_of_user if spec.name is TreatmentName.own else control
        return draw(
            self.runtime.named(label),
            self.data.train,
            scores,
            defended,
            spec,
            classes=self.data.classes,
            seed=derive(self.design(index).seed, "control"),
        )

    def evaluate(
        self, arm: str, model: Trained, baseline: Evaluation | None = None, *, part: str = "test"
    ) -> Evaluation:
        """Evaluate one arm on a split; `baseline`: the evaluation whose attacks are frozen for this one.

        Without one it is the baseline itself, whose attacked test pictures are kept for the others.
        """
        config, split = self.config, getattr(self.data, part)
        trigger = stamped(split, config.data) if config.data.harm is Harm.trigger and part == "test" else None
        return evaluate(
            self.runtime.named("" if part == "test" else part, arm),
            model,
            split,
            config.evaluation.within(config.threat),
            config.threat,
            frozen=None if baseline is None else baseline.tensors["pictures"],
            stamped=trigger,
            keep=baseline is None and part == "test",
            seed=config.seed,
        )

    def measure(self, arm: str, model: Trained) -> Measurement:
        """Predict the test samples by one arm, and those that others have attacked."""
        given = {"given": self.data.given["test"]} if "test" in self.data.given else {}
        size = self.config.evaluation.batch_size
        return measure(self.runtime.named(arm), model, {"test": self.data.test, **given}, batch_size=size)

    def learned(self, evaluation: Evaluation) -> dict[str, Any]:
        """Return whether an arm has learned anything, by what it predicts of every test sample."""
        labels = self.data.test.labels.cpu().numpy()
        return plain(learned(labels, evaluation.table["prediction"].to_numpy()))

    def check(self, arm: str, model: Trained, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
        """Return what the health checks say of one arm and its evaluation; nothing if they are left out."""
        config = self.config
        if config.evaluation.checked == 0:
            return {}
        found = check(
            self.runtime.named(arm),
            model,
            self.data.test,
            config.threat,
            count=config.evaluation.checked,
            batch_size=config.evaluation.batch_size,
            seed=config.seed,
        )
        return self.findings(found, evaluation)

    def findings(self, found: Checks, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
        """Return what the health checks say of one arm, by the samples that they attacked and its evaluation."""
        stands = evaluation.table.set_index("id")["adaptive.worst"]
        findings = judge(found.samples, found.curve, stands.loc[found.samples["id"]].to_numpy())
        return {name: plain(finding) for name, finding in findings.items()}

    def with_scorer(self, scorer: Scorer) -> Run:
        """Return the same run with another scorer; what is trained is shared."""
        return replace(self, config=replace(self.config, scorer=scorer))

    def starts(self, scored: ScoredModel) -> Any:
        """Return the first weights of retrainings: those of a model for lbfgs, else drawn from the seed."""
        return scored.model.artifact if self.config.train.optimizer is Optimizer.lbfgs else None

    def summary(self, scores: Scores, overrides: list[str]) -> Scoring:
        """Return what the report of every task begins with."""
        return Scoring(
            config=self.config,
            settings=plain(self.config),
            overrides=overrides,
            data=self.data,
            scores=scores.table,
            record=dict(zip(scores.record["name"], scores.record["value"], strict=True)),
            keys=self.runner.keys,
            seconds=self.runner.seconds,
            reused=self.runner.reused,
            device=str(self.runtime.device),
            learned=plain(learned(*(scores.table[name].to_numpy() for name in ("label", "prediction")))),
        )
