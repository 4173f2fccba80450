"""The stages that make arms of a cell and compare them: treat, control, evaluate, check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from defense.artifacts import Checks, Evaluation, Measurement, Scores, TrainedModel, Treatment
from defense.config.choices import Harm
from defense.config.reads import read
from defense.config.schema import Treat, plain
from defense.data.harm import stamped
from defense.influence.scorers import random_scores
from defense.pipeline.cell import Cell
from defense.randomness import derive
from defense.robustness.checks import judge, learned
from defense.stages import check, evaluate, measure, treat
from defense.stages.treat import Suggestion
from defense.store.store import Stored


@dataclass(frozen=True)
class Arms:
    """The arms of one cell under one treatment."""

    cell: Cell
    spec: Treat
    label: str = ""  # of its stages, where there are several treatments
    index: int = 0  # of the trainings: 0 has the run's seed, others have first weights and a control of their own

    @property
    def settings(self) -> dict[str, Any]:
        """What the key of a treatment is made of, without what it may have been chosen from."""
        names = ("name", "budget", "threshold", "balance")
        return {name: value for name, value in read(self.spec).items() if name in names}

    def treat(self, scores: Stored[Scores]) -> Stored[Treatment]:
        """Treat the training split by its scores."""
        return self.cell.ledger.once(
            f"treat_defended{self.label}",
            Treatment,
            version=treat.VERSION,
            settings={"treatment": self.settings},
            inputs=self.cell.inputs("train", scores=scores.key),
            compute=lambda *_: treat.treat(self.cell.data.train, self.suggestion(scores), self.spec),
        )

    def control(self, scores: Stored[Scores], defended: Stored[Treatment]) -> Treatment:
        """Treat as many samples at random."""
        train_split, seed = self.cell.data.train, derive(self.cell.seed_of(self.index), "control")
        order = random_scores(len(train_split), seed=seed).numpy()
        return self.cell.ledger.once(
            f"treat_control{self.label}",
            Treatment,
            version=treat.VERSION,
            settings={"treatment": self.settings, "order": seed},
            inputs=self.cell.inputs("train", scores=scores.key, defended=defended.key),
            compute=lambda *_: treat.control(
                train_split, defended.artifact, self.suggestion(scores), self.spec, order
            ),
        ).artifact

    def suggestion(self, scores: Stored[Scores]) -> Suggestion:
        """Return what a treatment is made from."""
        score, prediction, label = (
            scores.artifact.table[name].to_numpy() for name in ("score", "prediction", "label")
        )
        return Suggestion(score, prediction, label, self.cell.data.classes)

    def evaluate(
        self,
        arm: str,
        trained: Stored[TrainedModel],
        baseline: Stored[Evaluation] | None = None,
        *,
        part: str = "test",
    ) -> Stored[Evaluation]:
        """Evaluate one arm on a split; `baseline`: the evaluation whose attacks are frozen for this one.

        Without one it is the baseline itself, whose attacked test pictures are kept for the others.
        """
        config, split = self.cell.config, getattr(self.cell.data, part)
        trigger = stamped(split, config.data) if config.data.harm is Harm.trigger and part == "test" else None
        return self.cell.ledger.once(
            f"evaluate_{arm}{self.label}" if part == "test" else f"evaluate_{part}_{arm}{self.label}",
            Evaluation,
            version=evaluate.VERSION,
            settings={
                "attacks": [(name, read(spec)) for name, spec in config.evaluation.attacks.items()],  # in order
                "batch_size": config.evaluation.batch_size,
                "threat": config.threat,
                "classes": self.cell.data.classes,
            },
            inputs=self.cell.inputs(
                part,
                model=trained.key,
                **({"frozen": baseline.key} if baseline is not None else {}),
                **({"stamped": trigger.digest()} if trigger is not None else {}),
            ),
            compute=lambda watch, progress: evaluate.evaluate(
                self.cell.restore(trained, self.index),
                split,
                config.evaluation,
                config.threat,
                None if baseline is None else baseline.artifact.tensors["pictures"],
                classes=self.cell.data.classes,
                seed=config.seed,
                stamped=trigger,
                keep=baseline is None and part == "test",
                watch=watch,
                memory=progress,
                crew=self.cell.crew,
            ),
            shared=True,
        )

    def measure(self, arm: str, trained: Stored[TrainedModel]) -> Stored[Measurement]:
        """Let one arm say what it makes of the test samples, and of those that others have attacked."""
        data, size = self.cell.data, self.cell.config.evaluation.batch_size
        given = {"given": data.given["test"]} if "test" in data.given else {}
        return self.cell.ledger.once(
            f"measure_{arm}{self.label}",
            Measurement,
            version=measure.VERSION,
            settings={"batch_size": size},
            inputs=self.cell.inputs("test", *(["given_test"] if given else []), model=trained.key),
            compute=lambda *_: measure.measure(
                self.cell.restore(trained, self.index),
                {"test": data.test, **given},
                batch_size=size,
                crew=self.cell.crew,
            ),
            shared=True,
        )

    def learned(self, evaluation: Stored[Evaluation]) -> dict[str, Any]:
        """Return whether an arm has learned anything, by what it makes of every test sample."""
        labels = self.cell.data.test.labels.cpu().numpy()
        return plain(learned(labels, evaluation.artifact.table["prediction"].to_numpy()))

    def check(
        self, arm: str, trained: Stored[TrainedModel], evaluation: Stored[Evaluation]
    ) -> dict[str, dict[str, Any]]:
        """Return what the health checks say of one arm and its evaluation; nothing where they are left out."""
        config = self.cell.config
        if config.evaluation.checked == 0:
            return {}
        found = self.cell.ledger.once(
            f"check_{arm}{self.label}",
            Checks,
            version=check.VERSION,
            settings={
                "count": config.evaluation.checked,
                "batch_size": config.evaluation.batch_size,
                "threat": config.threat,
                "classes": self.cell.data.classes,
            },
            inputs=self.cell.inputs("test", model=trained.key),
            compute=lambda watch, _: check.check(
                self.cell.restore(trained, self.index),
                self.cell.data.test,
                config.threat,
                count=config.evaluation.checked,
                classes=self.cell.data.classes,
                batch_size=config.evaluation.batch_size,
                seed=config.seed,
                watch=watch,
            ),
        ).artifact
        stands = evaluation.artifact.table.set_index("id")["adaptive.worst"]
        findings = judge(found.samples, found.curve, stands.loc[found.samples["id"]].to_numpy())
        return {name: plain(finding) for name, finding in findings.items()}
