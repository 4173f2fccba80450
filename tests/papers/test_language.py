"""The whole experiment on a tiny encoder and made-up reviews."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.texts import tiny_encoder, write_given, write_pairs, write_reviews

pytestmark = pytest.mark.extra("transformers", "peft")

Command = Callable[..., tuple[int, str, str]]
SMALL = [
    "experiment=paper/language",
    "data.root=files",
    "data.tokenizer=encoder",
    "data.train_size=60",
    "data.validation_size=20",
    "data.test_size=40",
    "data.length=8",
    "train.epochs=2",
    "scorer.count=2",
    "hydra.sweep.dir=sweep",
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write what the experiment reads, in the folder that the command runs in."""
    tiny_encoder(tmp_path / "encoder")
    for name in ("sst2", "mrpc", "advglue"):
        (tmp_path / "files" / name).mkdir(parents=True)
    for seed, (part, count) in enumerate({"train": 120, "test": 60}.items()):
        write_reviews(tmp_path / "files" / "sst2" / f"{part}.tsv", count, seed=seed)
        write_pairs(tmp_path / "files" / "mrpc" / f"{part}.tsv", count, seed=seed)
    write_given(tmp_path / "files" / "advglue" / "dev.json", 16)
    return tmp_path


@pytest.mark.slow
def test_the_experiment_runs_and_answers(files: Path, command: Command) -> None:
    scorers = "hydra.sweeper.params.scorer=ip_ensemble"
    code, _, err = command(*SMALL, "hydra.sweeper.params.seed='0,1'", scorers)
    assert code == 0, err
    page = (files / "sweep" / "report.md").read_text("utf-8")
    assert "Accuracy: " in page
    assert "## Accuracy on samples attacked by others, %" in page
    results = [json.loads(file.read_text("utf-8")) for file in (files / "sweep").glob("*/result.json")]
    assert len(results) == 2 * 2
    for result in results:
        assert result["selection"]["noise"] == pytest.approx(0.2)
        assert result["sizes"]["treated"] == 12
        given = "advglue" in str(result["overrides"])
        assert ("given" in result["arms"]["defended"]) is given
    samples = pd.read_parquet(files / "sweep" / "0" / "per_sample.parquet")
    counts = samples.groupby(["arm", "part"]).size()
    assert counts.to_dict() == {
        (arm, part): count
        for arm in ("baseline", "control", "defended")
        for part, count in (("given", 8), ("test", 40))
    }


@pytest.mark.slow
def test_given_samples_are_what_robustness_looks_at(files: Path, command: Command) -> None:
    alone = [word for word in SMALL if not word.startswith("hydra.")]
    alone += ["hydra.mode=RUN", "scorer=datainf", "data=advglue", "data.length=8", "objective=robustness"]

    def keys(name: str, *changes: str) -> dict[str, str]:
        code, _, err = command(*alone, *changes, f"hydra.run.dir={name}")
        assert code == 0, err
        found: dict[str, str] = json.loads((files / name / "result.json").read_text("utf-8"))["keys"]
        return found

    first = keys("first")
    assert not any(name.startswith("attack") for name in first)
    utility = keys("utility", "objective=utility")
    assert utility["train_baseline"] == first["train_baseline"]
    assert utility["score"] != first["score"]
    write_given(files / "files" / "advglue" / "dev.json", 16, seed=10)
    other = keys("other")
    assert other["train_baseline"] == first["train_baseline"]
    assert other["score"] != first["score"]
    assert keys("again", "objective=utility")["score"] == utility["score"]


def test_a_model_of_pictures_is_refused(files: Path, command: Command) -> None:
    alone = [word for word in SMALL if not word.startswith("hydra.")]
    code, _, err = command(*alone, "hydra.mode=RUN", "scorer=ip", "data=sst2", "data.length=8", "model=mlp")
    assert code == 2
    assert err.startswith(
        "defense: model._target_=defense.models.networks.mlp: is for pictures; expected one of texts"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=defend"], "task=defend: expected detect, repair or score, for data=text"),
        (["data=mrpc", "objective=robustness"], "objective.weights=robustness: expected data.given_path"),
        (["train=adversarial"], "train.recipe=adversarial: expected standard"),
        (["scorer=adversarial_loss"], "scorer.method=adversarial_loss: expected another"),
        (["data.harm=poison"], "data.harm=poison: expected a harm of labels alone"),
        (["data.harm=hypocritical"], "data.harm=hypocritical: expected a harm of labels alone"),
        (["data.length=2"], "data.length=2: expected a whole number of at least 3"),
        (["data.tokenizer=null"], "data.tokenizer=null: expected the name of an encoder"),
        (["data=digits", "data.text=[label]"], "data.text=['label']: not read by data=digits"),
    ],
)
def test_what_texts_cannot_do_is_said_before_anything_is_read(
    command: Command, words: list[str], message: str
) -> None:
    code, _, err = command("experiment=paper/language", "hydra.mode=RUN", *words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
