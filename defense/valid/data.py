"""What is valid of the settings of the data: which of them a source reads; a part of `defense.valid`."""

from __future__ import annotations

from pathlib import Path

from defense.choices import (
    Harm,
    Keep,
    Method,
    ObjectiveName,
    Optimizer,
    Outliers,
    Recipe,
    Source,
    Task,
    Unreadable,
)
from defense.errors import InputError, within
from defense.schema import Config, Data

READ_BY_SOURCE: dict[str, tuple[Source, ...]] = {  # settings of the data that few sources read
    "path": (Source.npz, Source.image_folder, Source.table, Source.text),
    "image_size": (Source.image_folder,),
    "train_labels": (Source.npz,),
    "validation_path": (Source.table, Source.text),
    "test_path": (Source.table, Source.text),
    "target": (Source.table, Source.text),
    **dict.fromkeys(
        ("columns", "drop", "categories", "numbers", "outliers", "sensitive", "groups"), (Source.table,)
    ),
    "channels": (Source.npz,),
    "unreadable": (Source.image_folder,),
    **dict.fromkeys(("text", "tokenizer", "given_path", "given_key", "given_text"), (Source.text,)),
}
UNSET: dict[str, object] = {"outliers": Outliers.refuse, "unreadable": Unreadable.refuse}  # others: null


def check_source(data: Data) -> None:
    """Raise InputError where something is set that the source does not read."""
    for name, readers in READ_BY_SOURCE.items():
        value = getattr(data, name)
        usual = UNSET.get(name)
        if value != usual and data.source not in readers:
            valid = (
                f"{'null' if usual is None else usual}, or {' or '.join(f'data={reader}' for reader in readers)}"
            )
            raise InputError(f"data.{name}", value, f"not read by data={data.source}; expected {valid}")
    for name in ("validation_path", "test_path"):
        other = getattr(data, name)
        apart = other is None or data.path is None or Path(other).resolve() != Path(data.path).resolve()
        within(f"data.{name}", other, apart, "another file than data.path")
    within("data.positive", data.positive, data.positive >= 0, "a class, from 0 up")
    both = sorted(set(data.categories or []) & set(data.numbers or []))
    within("data.numbers", both, not both, "other columns than in data.categories")
    if data.groups is not None and data.sensitive is None:
        raise InputError("data.groups", data.groups, "expected data.sensitive, the column that they are values of")


def check_text(config: Config) -> None:
    """Raise InputError where texts are to be attacked or changed like pictures."""
    data, train, scorer = config.data, config.train, config.scorer
    if data.source is not Source.text:
        return
    within("data.length", data.length, data.length >= 3, "a whole number of at least 3")
    within("data.tokenizer", data.tokenizer, data.tokenizer is not None, "the name of an encoder")
    robust = ObjectiveName.robustness in config.objective.weights
    for field, value, valid, expected in (
        ("task", config.task, config.task in (Task.detect, Task.repair), "detect or repair"),
        ("objective.weights", "robustness", not robust or data.given_path is not None, "data.given_path"),
        ("train.recipe", train.recipe, train.recipe is Recipe.standard, "standard"),
        ("train.keep", train.keep, train.keep is not Keep.robust, "last or clean"),
        ("train.optimizer", train.optimizer, train.optimizer is Optimizer.sgd, "sgd"),
        ("train.channels_last", train.channels_last, not train.channels_last, "false"),
        ("train.crop", train.crop, train.crop == 0, "0"),
        ("train.flip", train.flip, not train.flip, "false"),
        ("scorer.proxy", scorer.proxy, scorer.proxy in (None, Recipe.standard), "null or standard"),
        ("scorer.attacked_train", scorer.attacked_train, not scorer.attacked_train, "false"),
        ("scorer.method", scorer.method, scorer.method is not Method.adversarial_loss, "another"),
        ("data.harm", data.harm, data.harm not in (Harm.trigger, Harm.poison), "a harm of labels alone"),
    ):
        within(field, value, valid, f"{expected}, for data=text: no attack here moves texts")
