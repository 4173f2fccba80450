from __future__ import annotations

import torch
import torch.nn.functional as F

from defense.config.choices import Method, ObjectiveName
from defense.config.schema import Objective
from defense.data.images import TensorImages
from defense.data.splits import Dataset
from defense.data.validation import Validation
from defense.models.build import build
from defense.runtime.progress import no_progress
from tests.calls import score
from tests.conftest import scorer
from tests.reference import inner_products


def test_objectives_look_at_their_own_pictures(digits: Dataset) -> None:
    model = build({"_target_": "defense.models.networks.mlp", "hidden": [16]}, digits, seed=0).eval()
    clean = digits.validation
    adversarial = clean.with_images(TensorImages(1 - clean.images.take(torch.arange(len(clean)))))
    for name, split in ((ObjectiveName.utility, clean), (ObjectiveName.robustness, adversarial)):
        table = score(
            model,
            digits.train,
            Validation(clean, adversarial),
            Objective({name: 1.0}, positive=1),
            scorer(batch_size=64),
            seed=0,
            progress=no_progress,
        ).table
        expected = inner_products(model, digits.train, split)
        torch.testing.assert_close(torch.tensor(table["score"].to_numpy()), expected, rtol=1e-3, atol=1e-5)
        logits = model(digits.train.images.take(torch.arange(len(digits.train)))).detach()
        losses = F.cross_entropy(logits, digits.train.labels, reduction="none")
        torch.testing.assert_close(torch.tensor(table["loss"].to_numpy()), losses, rtol=1e-4, atol=1e-5)
        assert table["prediction"].tolist() == logits.argmax(1).tolist()
        assert table["id"].tolist() == digits.train.ids.tolist()


def test_random_scores_differ_by_seed_and_look_at_nothing(digits: Dataset) -> None:
    validation = Validation(digits.validation, digits.validation)
    model = build({"_target_": "defense.models.networks.mlp", "hidden": [16]}, digits, seed=0).eval()
    tables = [
        score(
            model,
            digits.train,
            validation,
            Objective({ObjectiveName.utility: 1.0}, positive=1),
            scorer(method=Method.random),
            seed=seed,
            progress=no_progress,
        ).table["score"]
        for seed in (0, 0, 1)
    ]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert tables[0].between(-1, 1).all()
