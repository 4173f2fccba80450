from __future__ import annotations

import torch
import torch.nn.functional as F

from defense.training.augment import augment, plan_epoch


def test_crop_and_flip_equal_a_loop() -> None:
    x = torch.rand(20, 3, 6, 5)
    plan = plan_epoch(20, crop=2, flip=True, seed=0, epoch=3)
    found = augment(x, plan.shifts, plan.flips, crop=2)
    for row in range(20):
        top, left = plan.shifts[row].tolist()
        expected = F.pad(x[row], (2, 2, 2, 2))[:, top : top + 6, left : left + 5]
        expected = expected.flip(-1) if plan.flips[row] else expected
        assert torch.equal(found[row], expected)
    assert 0 < int(plan.flips.sum()) < 20


def test_nothing_asked_nothing_done() -> None:
    x = torch.rand(8, 1, 4, 4)
    plan = plan_epoch(8, crop=0, flip=False, seed=0, epoch=0)
    assert torch.equal(augment(x, plan.shifts, plan.flips, crop=0), x)


def test_every_epoch_is_another_permutation() -> None:
    orders = [plan_epoch(50, crop=1, flip=True, seed=0, epoch=epoch).order for epoch in (0, 1, 0)]
    assert sorted(orders[0].tolist()) == list(range(50))
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])
