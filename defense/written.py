"""What is valid of a run on texts: no attack here moves a word, and what is of pictures is not of texts."""

from __future__ import annotations

from defense.choices import Harm, Keep, Method, ObjectiveName, Optimizer, Recipe, Source, Task
from defense.errors import InputError
from defense.schema import Config


def check_text(config: Config) -> None:
    """Raise InputError where texts are to be attacked or changed like pictures."""
    data, train, scorer = config.data, config.train, config.scorer
    if data.source is not Source.text:
        return
    if data.length < 3:
        raise InputError("data.length", data.length, "expected a whole number of at least 3")
    if data.tokenizer is None:
        raise InputError("data.tokenizer", None, "expected the name of an encoder")
    robust = ObjectiveName.robustness in config.objective.weights
    for field, value, valid, expected in (
        ("task", config.task, config.task not in (Task.defend, Task.faithfulness), "detect or repair"),
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
        if not valid:
            raise InputError(field, value, f"expected {expected}, for data=text: no attack here moves texts")
