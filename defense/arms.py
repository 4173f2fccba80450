"""The stages that make arms of a cell and compare them: treat, control, evaluate."""

from __future__ import annotations

from dataclasses import dataclass

from defense.artifacts import Evaluation, Scores, TrainedModel, Treatment
from defense.cell import Cell
from defense.influence.scorers import random_scores
from defense.randomness import derive
from defense.stages import evaluate, treat
from defense.stages.treat import Suggestion
from defense.store import Stored


@dataclass(frozen=True)
class Arms:
    """The arms of one cell."""

    cell: Cell

    def treat(self, scores: Stored[Scores]) -> Stored[Treatment]:
        """Treat the training split by its scores."""
        return self.cell.ledger.once(
            "treat_defended",
            Treatment,
            version=treat.VERSION,
            settings={"treatment": self.cell.config.treatment},
            inputs=self.cell.inputs("train", scores=scores.key),
            compute=lambda *_: treat.treat(
                self.cell.data.train, self.suggestion(scores), self.cell.config.treatment
            ),
        )

    def control(self, scores: Stored[Scores], defended: Stored[Treatment]) -> Treatment:
        """Treat as many samples at random."""
        config, train_split = self.cell.config, self.cell.data.train
        order = random_scores(len(train_split), seed=derive(config.seed, "control")).numpy()
        return self.cell.ledger.once(
            "treat_control",
            Treatment,
            version=treat.VERSION,
            settings={"treatment": config.treatment},
            inputs=self.cell.inputs("train", scores=scores.key, defended=defended.key),
            compute=lambda *_: treat.control(
                train_split, defended.artifact, self.suggestion(scores), config.treatment, order
            ),
        ).artifact

    def suggestion(self, scores: Stored[Scores]) -> Suggestion:
        """Return what a treatment is made from."""
        score, prediction, label = (
            scores.artifact.table[name].to_numpy() for name in ("score", "prediction", "label")
        )
        return Suggestion(score, prediction, label, self.cell.data.classes)

    def evaluate(
        self, arm: str, trained: Stored[TrainedModel], baseline: Stored[Evaluation] | None = None
    ) -> Stored[Evaluation]:
        """Evaluate one arm on the test split; `baseline`: the evaluation whose attacks are frozen for this one."""
        config = self.cell.config
        return self.cell.ledger.once(
            f"evaluate_{arm}",
            Evaluation,
            version=evaluate.VERSION,
            settings={
                "attacks": list(config.evaluation.attacks.items()),  # a list: their order matters
                "batch_size": config.evaluation.batch_size,
                "threat": config.threat,
                "classes": self.cell.data.classes,
            },
            inputs=self.cell.inputs(
                "test", model=trained.key, **({"frozen": baseline.key} if baseline is not None else {})
            ),
            compute=lambda watch, progress: evaluate.evaluate(
                self.cell.restore(trained),
                self.cell.data.test,
                config.evaluation,
                config.threat,
                None if baseline is None else baseline.artifact.tensors["pictures"],
                classes=self.cell.data.classes,
                seed=config.seed,
                watch=watch,
                memory=progress,
            ),
        )
