"""Retrain on many parts of the training split: what a score claims to foresee."""

from __future__ import annotations

from dataclasses import replace
from math import floor
from typing import Annotated

import torch
from torch import Tensor, nn

from defense import models, robustness, training
from defense.artifacts import Retrainings, TrainedModel
from defense.config.choices import Dropping, ObjectiveName, Subsets, reads
from defense.config.schema import Attack, Threat, Training
from defense.config.tasks import Faithfulness
from defense.data.images import TensorImages
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.errors import InputError
from defense.models.build import Design
from defense.models.predict import predict
from defense.randomness import derive, generator
from defense.robustness.attacks import Attacker
from defense.robustness.suite import perturb
from defense.runtime.checkpoint import ThrottledCheckpoint
from defense.runtime.distributed import raise_on_all, rank_name, shard
from defense.runtime.runtime import Runtime
from defense.stages.train import TRAINED_ON, train_network
from defense.store.stage import stage
from defense.training.inputs import TrainingSet


def parts_of_train(spec: Faithfulness, size: int, *, seed: int) -> Tensor:
    """Return which of `size` samples each retraining keeps: bool (m, size).

    leave_one_out: all but one, for `spec.count` samples drawn at random, or each in turn. random: all but a random
    part, `spec.count` times. Raises InputError if the numbers do not fit.
    """
    chance, count = generator(seed, "subsets"), spec.count
    if spec.subsets is Subsets.leave_one_out:
        if count is not None and count > size:
            raise InputError("faithfulness.count", count, f"expected at most {size}, the training samples")
        out = torch.arange(size) if count is None else torch.randperm(size, generator=chance)[:count].sort().values
        return torch.arange(size)[None] != out[:, None]
    if count is None:
        raise InputError("faithfulness.count", count, "expected how many random parts to retrain without")
    kept = floor(round(size * (1 - spec.dropped), 6))
    if not 0 < kept < size:
        found = f"leaves {kept} of {size} training samples; expected some, and fewer than all"
        raise InputError("faithfulness.dropped", spec.dropped, found)
    return torch.stack([torch.randperm(size, generator=chance) < kept for _ in range(count)])


@stage(version=5, code=(models, robustness, training), shared=True)
def retrain(
    runtime: Runtime,
    design: Design,
    data: Annotated[Dataset, reads(*TRAINED_ON)],
    training: Training,
    *,
    parts: Tensor,
    validation: Validation,
    spec: Annotated[Faithfulness, reads("by", "fresh")],
    attack: Attack | None,
    threat: Threat,
    start: Annotated[TrainedModel | None, reads("weights")] = None,
) -> Retrainings:
    """Return the validation logits of models trained on `parts` bool (m, n) of the training split.

    All share the seed, and so first weights and order, unless `spec.fresh` gives each one of its own. `spec.by`
    says whether the other samples are removed, or stay in their batches at weight 0. attack: None, or made on the
    validation samples anew at each model, within `threat`. start: first weights for lbfgs, which save iterations
    and leave the minimum of a convex model where it is. Each rank trains some of the models, alone.
    """
    ranks, size = runtime.ranks, 4 * training.recipe.batch_size
    mine, part = shard(ranks, len(parts)), rank_name(ranks, "retrainings")
    at_baseline = validation.seen_by(ObjectiveName.robustness, attacked=True)

    def retrained(number: int) -> nn.Module:
        own = replace(design, seed=derive(design.seed, "retraining", number)) if spec.fresh else design
        model, left = own.build(), parts[number]
        if start is not None:
            model.load_state_dict(start.weights)
        keep, weights = (torch.ones_like(left), left.float()) if spec.by is Dropping.weight else (left, None)
        samples = TrainingSet.of(data.train, keep, weights)
        train_network(model, data, training, runtime.alone(), samples=samples, seed=own.seed)
        return model

    def logits_of(model: nn.Module) -> dict[str, Tensor]:
        splits = {"clean": validation.clean, "frozen": at_baseline}
        if attack is not None:
            attacker = Attacker(
                model.eval(), threat, data.classes, size, derive(design.seed, "attack", "validation")
            )
            images = perturb(attacker, validation.clean, attack, runtime.alone())
            splits["adversarial"] = validation.clean.with_images(TensorImages(images))
        return {name: predict(model, split, batch_size=size) for name, split in splits.items()}

    def own() -> dict[str, Tensor]:
        checkpoint = ThrottledCheckpoint(runtime.checkpoint)
        known = checkpoint.load(part) or {}
        found = {name: list(logits) for name, logits in known.items()}
        for number in range(mine.start + len(found.get("clean", ())), mine.stop):
            for name, logits in logits_of(retrained(number)).items():
                found.setdefault(name, []).append(logits)
            if checkpoint.due():
                checkpoint.save(part, {name: torch.stack(logits) for name, logits in found.items()})
            runtime.progress(len(found["clean"]), len(mine))
        names = ("clean", "frozen") if attack is None else ("clean", "frozen", "adversarial")
        return {name: torch.stack(found[name]) if name in found else torch.empty(0) for name in names}

    return Retrainings({name: ranks.gather(logits) for name, logits in raise_on_all(ranks, own).items()})
