"""Retrain on many parts of the training split: what a score claims to foresee."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from defense.artifacts import Retrainings, TrainedModel
from defense.config.choices import ObjectiveName, Optimizer, Subsets
from defense.config.schema import Threat, Train
from defense.data.splits import Dataset
from defense.errors import InputError
from defense.influence.objectives import Validation
from defense.models.build import build
from defense.models.predict import predict
from defense.randomness import generator
from defense.runtime.checkpoint import Memory, Seldom
from defense.runtime.distributed import ALONE, Crew, own_part, share, together
from defense.runtime.progress import Watch
from defense.stages.train import trained

VERSION = 3


def parts_of_train(subsets: Subsets, size: int, count: int | None, *, seed: int) -> Tensor:
    """Return which of `size` samples each retraining keeps: bool (m, size).

    leave_one_out: all but one, for `count` samples drawn at random, or each in turn. halves: `count` random ones.
    Raises InputError where `count` does not fit.
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


def retrain(
    settings: dict[str, Any],
    data: Dataset,
    recipe: Train,
    parts: Tensor,
    baseline: TrainedModel,
    validation: Validation,
    *,
    threat: Threat,
    seed: int,
    fabric: Fabric,
    watch: Watch,
    memory: Memory,
    crew: Crew = ALONE,
) -> Retrainings:
    """Return the validation logits of models trained on `parts` bool (m, n) of the training split.

    All share the seed, and so first weights and order. With lbfgs they start from the baseline, which saves
    iterations and leaves the minimum of a convex model where it is. crew: the
    processes that share the models; each trains its own alone.
    """
    mine, part = share(crew, len(parts)), own_part(crew, "retrainings")

    def own() -> dict[str, Tensor]:
        seldom = Seldom(memory)
        known = seldom.recall(part) or {}
        clean, adversarial = (list(known.get(name, ())) for name in ("clean", "adversarial"))
        for keep in parts[mine.start + len(clean) : mine.stop]:
            model = build(settings, data, seed=seed)
            if recipe.optimizer is Optimizer.lbfgs:
                model.load_state_dict(baseline.weights)
            trained(model, data, recipe, keep=keep, threat=threat, seed=seed, fabric=fabric)
            clean.append(predict(model, validation.clean, batch_size=recipe.batch_size * 4))
            attacked = validation.seen_by(ObjectiveName.robustness)
            adversarial.append(predict(model, attacked, batch_size=recipe.batch_size * 4))
            if seldom.due():
                seldom.keep(part, {"clean": torch.stack(clean), "adversarial": torch.stack(adversarial)})
            watch(len(clean), len(mine))
        found = {"clean": clean, "adversarial": adversarial}
        return {name: torch.stack(logits) if logits else torch.empty(0) for name, logits in found.items()}

    return Retrainings({name: crew.gather(logits) for name, logits in together(crew, own).items()})
