from __future__ import annotations

import torch
from torch import nn

from defense.config.choices import AttackName
from defense.config.schema import Attack, Evaluation
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.runtime.progress import no_progress
from tests.calls import evaluate
from tests.conftest import threat

SUITE = Evaluation(
    attacks={
        "fgsm": Attack(name=AttackName.fgsm, steps=1, random_start=False),
        "pgd": Attack(name=AttackName.pgd, steps=3),
    },
    batch_size=4,
)


class Threshold(nn.Module):
    """Class 1 where the single pixel is above `at`: how far each sample is from the boundary is known."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = x.flatten(1)[:, 0] - self.at
        return torch.stack([-margin, margin], dim=1)


def test_clean_transfer_adaptive_and_worst() -> None:
    pixels = torch.tensor([0.1, 0.45, 0.55, 0.9, 0.9]).view(5, 1, 1, 1)
    labels = torch.tensor([0, 0, 1, 1, 0])
    split = Split(torch.arange(5) + 10, TensorImages(pixels), labels, labels)
    # the frozen set turns the wrong sample 14 right: that must not count as robust
    frozen = torch.tensor([0.2, 0.55, 0.45, 0.8, 0.1]).view(5, 1, 1, 1)
    model = Threshold(0.5)
    common = {"classes": 2, "seed": 0, "progress": no_progress}
    table = evaluate(model, split, SUITE, threat(eps=0.1), frozen, **common).table
    assert table["id"].tolist() == [10, 11, 12, 13, 14]
    assert table["clean"].tolist() == [True, True, True, True, False]
    assert table["transfer"].tolist() == [True, False, False, True, False]
    for attack in ("fgsm", "pgd", "worst"):
        assert table[f"adaptive.{attack}"].tolist() == [True, False, False, True, False]
    assert evaluate(model, split, SUITE, threat(eps=0.1), frozen, **common).tensors == {}
    stamped = split.with_images(TensorImages(torch.tensor([0.1, 0.9, 0.1, 0.9, 0.1]).view(5, 1, 1, 1)))
    table = evaluate(model, split, SUITE, threat(eps=0.1), frozen, stamped=stamped, **common).table
    assert table["triggered"].tolist() == [True, False, False, True, True]
    source = evaluate(model, split, SUITE, threat(eps=0.1), None, keep=True, **common)
    assert source.table["adaptive.worst"].tolist() == [True, False, False, True, False]
    assert source.table["transfer"].equals(source.table["adaptive.worst"].rename("transfer"))
    moved = (source.tensors["pictures"] - pixels).flatten()
    assert (model(source.tensors["pictures"]).argmax(1) == labels).tolist() == [True, False, False, True, False]
    assert float(moved.abs().max()) <= 0.1 + 1e-6
