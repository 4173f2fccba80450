"""Which settings a training run reads: what its key is made of."""

from __future__ import annotations

from collections.abc import Callable

from defense.config.choices import Keep, Optimizer, Recipe
from defense.config.schema import Threat, Train, plain


def kept_by(recipe: Train) -> Keep:
    """Return what decides which epoch is kept: on ordinary training robust accuracy is mostly about zero."""
    return recipe.keep or (Keep.last if recipe.recipe is Recipe.standard else Keep.robust)


def sees_attacks(recipe: Train) -> bool:
    """Return whether a training attacks anything: its batches, or the validation split after every epoch."""
    return recipe.recipe is not Recipe.standard or kept_by(recipe) is Keep.robust


def in_batches(recipe: Train) -> bool:
    """Return whether a training goes through the samples in batches, epoch by epoch."""
    return recipe.optimizer is Optimizer.sgd


READ_WHERE: dict[str, Callable[[Train], bool]] = {  # every training reads the others
    "attack_steps": lambda recipe: recipe.recipe in (Recipe.adversarial, Recipe.trades),
    "beta": lambda recipe: recipe.recipe is Recipe.trades,
    "validation_steps": sees_attacks,
    "tolerance": lambda recipe: not in_batches(recipe),
    "learning_rate": in_batches,
    "momentum": in_batches,
    "crop": in_batches,
    "flip": in_batches,
}


def settings_read(recipe: Train, threat: Threat) -> dict[str, object]:
    """Return the settings that a training depends on, as plain values; what it does not read is left out."""
    unread = {name for name, read in READ_WHERE.items() if not read(recipe)}
    said = {name: value for name, value in plain(recipe).items() if name not in unread}
    return {
        "train": said | {"keep": kept_by(recipe).value},  # null is one of the others
        "threat": plain(threat) if sees_attacks(recipe) else None,
    }
