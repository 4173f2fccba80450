"""Retrain on many parts of the training split: what a score claims to foresee."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from defense import models, robustness, training
from defense.artifacts import Retrainings, TrainedModel
from defense.config.choices import ObjectiveName, Subsets, reads
from defense.config.schema import Training
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.errors import InputError
from defense.models.build import Design
from defense.models.predict import predict
from defense.randomness import generator
from defense.runtime.checkpoint import ThrottledCheckpoint
from defense.runtime.distributed import raise_on_all, rank_name, shard
from defense.runtime.runtime import Runtime
from defense.stages.train import TRAINED_ON, train_network
from defense.store.stage import stage
from defense.training.inputs import TrainingSet


def parts_of_train(subsets: Subsets, size: int, count: int | None, *, seed: int) -> Tensor:
    """Return which of `size` samples each retraining keeps: bool (m, size).

    leave_one_out: all but one, for `count` samples drawn at random, or each in turn. halves: `count` random ones.
    Raises InputError if `count` does not fit.
    """
    chance = generator(seed, "subsets")
    if subsets is Subsets.leave_one_out:
        if count is not None and count > size:
            raise InputError("faithfulness.count", count, f"expected at most {size}, the training samples")
        out = torch.arange(size) if count is None else torch.randperm(size, generator=chance)[:count].sort().values
        return torch.arange(size)[None] != out[:, None]
    if count is None:
        raise InputError("faithfulness.count", count, "expected how many random halves to retrain on")
    return torch.stack([torch.randperm(size, generator=chance) < size // 2 for _ in range(count)])


@stage(version=4, code=(models, robustness, training), shared=True)
def retrain(
    runtime: Runtime,
    design: Design,
    data: Annotated[Dataset, reads(*TRAINED_ON)],
    training: Training,
    *,
    parts: Tensor,
    validation: Validation,
    start: Annotated[TrainedModel | None, reads("weights")] = None,
) -> Retrainings:
    """Return the validation logits of models trained on `parts` bool (m, n) of the training split.

    All share the seed, and so first weights and order. start: first weights for lbfgs, which save iterations and
    leave the minimum of a convex model where it is. Each rank trains some of the models, alone.
    """
    ranks, size = runtime.ranks, 4 * training.recipe.batch_size
    mine, part = shard(ranks, len(parts)), rank_name(ranks, "retrainings")

    def own() -> dict[str, Tensor]:
        checkpoint = ThrottledCheckpoint(runtime.checkpoint)
        known = checkpoint.load(part) or {}
        clean, adversarial = (list(known.get(name, ())) for name in ("clean", "adversarial"))
        for keep in parts[mine.start + len(clean) : mine.stop]:
            model = design.build()
            if start is not None:
                model.load_state_dict(start.weights)
            samples = TrainingSet.of(data.train, keep)
            train_network(model, data, training, runtime.alone(), samples=samples, seed=design.seed)
            clean.append(predict(model, validation.clean, batch_size=size))
            attacked = validation.seen_by(ObjectiveName.robustness)
            adversarial.append(predict(model, attacked, batch_size=size))
            if checkpoint.due():
                checkpoint.save(part, {"clean": torch.stack(clean), "adversarial": torch.stack(adversarial)})
            runtime.progress(len(clean), len(mine))
        found = {"clean": clean, "adversarial": adversarial}
        return {name: torch.stack(logits) if logits else torch.empty(0) for name, logits in found.items()}

    return Retrainings({name: ranks.gather(logits) for name, logits in raise_on_all(ranks, own).items()})
