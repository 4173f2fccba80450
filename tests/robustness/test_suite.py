"""Attacks in turn on samples whose distance to the boundary is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from defense.choices import AttackName
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.reporting.progress import silent
from defense.robustness.suite import Attacked, in_turn, parts, perturb
from defense.schema import Attack
from tests.conftest import threat

FGSM = Attack(AttackName.fgsm, steps=1)
PGD = Attack(AttackName.pgd, steps=5)
PIXELS = torch.tensor([0.05, 0.2, 0.45, 0.55, 0.7, 0.95, 0.9])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 0])  # the last is wrong without attack
SPLIT = Split(torch.arange(7), TensorImages(PIXELS.view(7, 1, 1, 1)), LABELS, LABELS)


class Counting(nn.Module):
    """Class 1 where the pixel is above a half; counts the pictures that it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(0.5))
        self.shown: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(len(x))
        margin = x.flatten(1)[:, 0] - self.at
        return torch.stack([-margin, margin], dim=1)


class Kept(dict[str, dict[str, Tensor]]):
    """A memory in a dict."""

    def recall(self, part: str) -> dict[str, Tensor] | None:
        known = self.get(part)
        return {name: value.clone() for name, value in known.items()} if known else None

    def keep(self, part: str, tensors: dict[str, Tensor]) -> None:
        self[part] = {name: value.clone() for name, value in tensors.items()}


def run(attacks: dict[str, Attack], *, eps: str = "0.1", watch: Callable[..., None] = silent, **more) -> Attacked:  # type: ignore[no-untyped-def]
    common = {"classes": 2, "batch_size": 4, "seed": 0, "watch": watch}
    return in_turn(more.pop("model", Counting()), SPLIT, attacks, threat(eps=eps), **common, **more)


def test_what_is_broken_is_not_attacked_again() -> None:
    model = Counting()
    found = run({"fgsm": FGSM, "pgd": PGD}, model=model)
    assert found.clean.tolist() == [True] * 6 + [False]
    assert found.standing["fgsm"].tolist() == [True, True, False, False, True, True, False]
    assert torch.equal(found.standing["pgd"], found.standing["fgsm"])
    # clean: 4 + 3; fgsm: gradient and look at 4 + 2; pgd: five gradients and a look at the four that stand
    assert model.shown == [4, 3, 4, 4, 2, 2, 4, 4, 4, 4, 4, 4]


def test_nothing_left_to_attack() -> None:
    found = run({"fgsm": FGSM, "pgd": PGD}, eps="1")
    assert not any(stands.any() for stands in found.standing.values())


def test_a_killed_suite_goes_on_after_its_last_try() -> None:
    attacks = {"fgsm": FGSM, "pgd": Attack(AttackName.pgd, steps=2, restarts=3)}
    whole, memory = run(attacks), Kept()

    def killed(done: int, total: int, **numbers: float) -> None:
        if done > 2 * len(SPLIT):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(attacks, memory=memory, watch=killed)
    model = Counting()
    again = run(attacks, memory=memory, model=model)
    assert torch.equal(again.pictures, whole.pictures)
    assert all(torch.equal(again.standing[name], whole.standing[name]) for name in attacks)
    assert len(model.shown) == 6  # two tries of two steps and a look, on the one batch that stands


def test_autoattack_is_four_attacks() -> None:
    whole = Attack(AttackName.autoattack, steps=7, queries=11)
    names = [part.name for part in parts(whole)]
    assert names == [AttackName.apgd_ce, AttackName.apgd_t, AttackName.fab_t, AttackName.square]
    assert all((part.steps, part.queries) == (7, 11) for part in parts(whole))


def test_of_several_tries_the_worst_is_kept() -> None:
    """On a loss with two hills, one start finds the lower one; many starts find the higher."""

    class Hills(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            pixel = x.flatten(1)[:, 0]
            margin = self.scale * torch.where(pixel < 0.5, (0.5 - pixel), 3 * (pixel - 0.5))
            return torch.stack([-margin, margin], dim=1)

    labels = torch.zeros(40, dtype=torch.int64)
    split = Split(torch.arange(40), TensorImages(torch.full((40, 1, 1, 1), 0.5)), labels, labels)
    common = {"classes": 2, "batch_size": 16, "seed": 0, "watch": silent}
    high = [
        int((perturb(Hills(), split, Attack(AttackName.pgd, restarts=n), threat(eps="0.2"), **common) > 0.6).sum())
        for n in (1, 8)
    ]
    assert 0 < high[0] < 40
    assert high[1] == 40
