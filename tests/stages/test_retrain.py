from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from defense.artifacts import Retrainings
from defense.config.choices import AttackName, Dropping, Keep, ObjectiveName, Optimizer, Subsets
from defense.config.schema import Attack, Objective
from defense.config.tasks import Faithfulness
from defense.data.images import TensorImages
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.errors import InputError
from defense.influence.objectives import objective_value
from defense.models.build import Design
from defense.models.predict import predict
from defense.runtime import checkpoint as checkpoint
from defense.runtime.progress import no_progress
from defense.stages.retrain import parts_of_train
from defense.stages.treat import untreated
from defense.store.store import FileCheckpointer
from tests.calls import restore, retrain, train
from tests.conftest import recipe, threat

SETTINGS = {"_target_": "defense.models.networks.mlp", "hidden": [8]}
RECIPE = recipe(epochs=2)


def parts(subsets: Subsets = Subsets.random, count: int | None = 4, **changes: Any) -> Faithfulness:
    usual: dict[str, Any] = {"dropped": 0.5, "by": Dropping.removal, "fresh": False, "targets": 1, "singles": 0}
    return Faithfulness(subsets=subsets, count=count, **usual | changes)


def test_parts() -> None:
    every = parts_of_train(parts(Subsets.leave_one_out, None), 5, seed=0)
    assert torch.equal(~every, torch.eye(5, dtype=torch.bool))
    some = parts_of_train(parts(Subsets.leave_one_out, 7), 50, seed=0)
    assert some.shape == (7, 50)
    assert (~some).sum(1).tolist() == [1] * 7
    assert int((~some).any(0).sum()) == 7
    halves = parts_of_train(parts(), 11, seed=0)
    assert halves.sum(1).tolist() == [5] * 4
    assert torch.equal(halves, parts_of_train(parts(), 11, seed=0))
    assert not torch.equal(halves, parts_of_train(parts(), 11, seed=1))
    for dropped, kept in ((0.01, 99), (0.05, 95), (0.2, 80)):
        assert parts_of_train(parts(dropped=dropped), 100, seed=0).sum(1).tolist() == [kept] * 4
    for spec, said in (
        (parts(Subsets.leave_one_out, 12), "expected at most 11"),
        (parts(Subsets.random, None), "how many"),
        (parts(dropped=0.99), r"faithfulness\.dropped=0\.99: leaves 0 of 11"),
    ):
        with pytest.raises(InputError, match=said):
            parts_of_train(spec, 11, seed=0)


@pytest.fixture
def ready(digits: Dataset, fabric: Fabric):  # type: ignore[no-untyped-def]
    common = {"threat": threat(), "seed": 0, "fabric": fabric, "progress": no_progress}
    baseline = train(SETTINGS, digits, RECIPE, untreated(digits.train), **common)
    validation = Validation(digits.validation, digits.validation)
    kept = parts_of_train(parts(), len(digits.train), seed=0)

    def run(checkpoint, spec=RECIPE, **more) -> Retrainings:  # type: ignore[no-untyped-def]
        return retrain(SETTINGS, digits, spec, kept, baseline, validation, checkpoint=checkpoint, **common, **more)

    return run, kept, common


def test_each_is_the_training_of_a_part(digits: Dataset, ready, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run, parts, common = ready
    found = run(FileCheckpointer(tmp_path)).tensors["clean"]
    plain = untreated(digits.train)
    for part, logits in zip(parts, found, strict=True):
        treatment = type(plain)(plain.table.assign(keep=part.numpy()))
        trained = train(SETTINGS, digits, RECIPE, treatment, **common)
        model = restore(SETTINGS, digits, trained, seed=0, device=torch.device("cpu"))
        assert torch.equal(logits, predict(model, digits.validation, batch_size=256))


def test_at_weight_zero_the_others_stay_in_their_batches(digits: Dataset, ready, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run, kept, common = ready
    found = run(FileCheckpointer(tmp_path), dropping=parts(by=Dropping.weight)).tensors["clean"]
    plain = untreated(digits.train)
    for part, logits in zip(kept, found, strict=True):
        treatment = type(plain)(plain.table.assign(weight=part.double().numpy()))
        trained = train(SETTINGS, digits, RECIPE, treatment, **common)
        model = restore(SETTINGS, digits, trained, seed=0, device=torch.device("cpu"))
        assert torch.equal(logits, predict(model, digits.validation, batch_size=256))


def test_fresh_seeds_are_others_for_every_retraining(ready, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run, kept, _ = ready
    kept[1:] = kept[:1]  # all the same part
    same = run(FileCheckpointer(tmp_path / "same")).tensors["clean"]
    fresh = run(FileCheckpointer(tmp_path / "fresh"), dropping=parts(fresh=True)).tensors["clean"]
    assert torch.equal(same[0], same[3])
    assert len({float(logits.sum()) for logits in fresh}) == 4
    again = run(FileCheckpointer(tmp_path / "again"), dropping=parts(fresh=True)).tensors["clean"]
    assert torch.equal(fresh, again)


def test_validation_is_attacked_anew_at_every_model(digits: Dataset, ready, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Each finds its own pictures harder than those as they are, which stand for the ones of the baseline here."""
    run, _, _ = ready
    found = run(FileCheckpointer(tmp_path), attack=Attack(AttackName.pgd, steps=3, step_size=0.05)).tensors
    assert found.keys() == {"clean", "frozen", "adversarial"}
    assert torch.equal(found["clean"], found["frozen"])
    labels = digits.validation.labels

    def losses(logits: torch.Tensor) -> list[float]:
        return [float(torch.nn.functional.cross_entropy(each, labels)) for each in logits]

    pairs = zip(losses(found["adversarial"]), losses(found["clean"]), strict=True)
    assert all(attacked > clean + 0.01 for attacked, clean in pairs)


def test_what_is_kept_is_what_is_predicted_with(digits: Dataset, ready, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run, parts, common = ready
    spec = recipe(epochs=6, learning_rate=3.0, keep=Keep.clean)
    found = run(FileCheckpointer(tmp_path), spec).tensors["clean"]
    plain, kept = untreated(digits.train), []
    for part, logits in zip(parts, found, strict=True):
        trained = train(SETTINGS, digits, spec, type(plain)(plain.table.assign(keep=part.numpy())), **common)
        right = (logits.argmax(1) == digits.validation.labels).double().mean()
        assert 100 * float(right) == pytest.approx(trained.history["validation_accuracy"].max())
        kept.append(int(trained.history["epoch"][trained.history["kept"]].item()))
    assert min(kept) < 6


def test_goes_on_where_it_was_killed(ready, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    run, _, _ = ready
    whole = run(FileCheckpointer(tmp_path / "whole"))
    monkeypatch.setattr(checkpoint, "KEPT_EVERY", 0.0)
    calls = []

    def killed(*args, **kwargs):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return build(*args, **kwargs)

    build = Design.build
    monkeypatch.setattr(Design, "build", killed)
    with pytest.raises(KeyboardInterrupt):
        run(FileCheckpointer(tmp_path / "broken"))
    again = run(FileCheckpointer(tmp_path / "broken"))
    assert len(calls) == 3 + 2  # two were kept, the third was killed
    assert torch.equal(again.tensors["clean"], whole.tensors["clean"])


def test_lbfgs_ends_at_the_minimum_wherever_it_starts(digits: Dataset, fabric: Fabric, tmp_path: Path) -> None:
    """From the baseline, as here, or from first weights, as one arm is trained."""
    settings = {"_target_": "defense.models.networks.mlp", "hidden": []}
    spec = recipe(optimizer=Optimizer.lbfgs, epochs=2000, weight_decay=0.05)
    common = {"threat": threat(), "seed": 0, "fabric": fabric, "progress": no_progress}
    baseline = train(settings, digits, spec, untreated(digits.train), **common)
    kept = parts_of_train(parts(Subsets.leave_one_out, 2), len(digits.train), seed=0)
    other = digits.validation.with_images(TensorImages(1 - digits.validation.images.pixels))
    both = Validation(digits.validation, other)
    found = retrain(
        settings, digits, spec, kept, baseline, both, checkpoint=FileCheckpointer(tmp_path), **common
    ).tensors
    plain = untreated(digits.train)
    for number, part in enumerate(kept):
        treatment = type(plain)(plain.table.assign(keep=part.numpy()))
        model = restore(
            settings,
            digits,
            train(settings, digits, spec, treatment, **common),
            seed=0,
            device=torch.device("cpu"),
        )
        for name, split in (("clean", digits.validation), ("frozen", other)):
            expected = predict(model, split, batch_size=256)
            torch.testing.assert_close(found[name][number], expected, rtol=1e-4, atol=1e-4)


def test_the_objective_of_logits() -> None:
    from tests.conftest import make_split

    split = make_split(6, 3, (1, 2, 2))
    logits = {"clean": torch.randn(6, 3), "adversarial": torch.randn(6, 3)}
    objective = Objective({ObjectiveName.utility: 0.5, ObjectiveName.robustness: 2.0}, positive=1)
    loss = torch.nn.functional.cross_entropy
    expected = 0.5 * loss(logits["clean"], split.labels) + 2 * loss(logits["adversarial"], split.labels)
    assert objective_value(logits, Validation(split, split), objective) == pytest.approx(float(expected))
