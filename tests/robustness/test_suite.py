"""Attacks in turn on samples whose distance to the boundary is known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defense.config.choices import AttackName, Norm
from defense.config.schema import Attack
from defense.data.images import TensorImages
from defense.data.splits import Split
from defense.errors import InputError
from defense.robustness import suite
from defense.robustness.suite import (
    LOOK,
    LOOK_QUERIES,
    Attacked,
    check_shape,
    few_of,
    parts,
    rows_of,
    tries_of,
)
from defense.runtime.progress import no_progress
from tests.calls import perturb, run_suite
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

    def load(self, part: str) -> dict[str, Tensor] | None:
        known = self.get(part)
        return {name: value.clone() for name, value in known.items()} if known else None

    def save(self, part: str, tensors: dict[str, Tensor]) -> None:
        self[part] = {name: value.clone() for name, value in tensors.items()}


def run(
    attacks: dict[str, Attack], *, eps: str = "0.1", progress: Callable[..., None] = no_progress, **more
) -> Attacked:  # type: ignore[no-untyped-def]
    common = {"classes": 2, "batch_size": more.pop("batch_size", 4), "seed": 0, "progress": progress}
    return run_suite(more.pop("model", Counting()), SPLIT, attacks, threat(eps=eps), **common, **more)


def test_what_is_broken_is_not_attacked_again() -> None:
    model = Counting()
    found = run({"fgsm": FGSM, "pgd": PGD}, model=model)
    assert found.clean.tolist() == [True] * 6 + [False]
    assert found.standing["fgsm"].tolist() == [True, True, False, False, True, True, False]
    assert torch.equal(found.standing["pgd"], found.standing["fgsm"])
    # clean: 4 + 3; fgsm: gradient and look at 4 + 2; pgd: five gradients and a look at the four that stand
    assert model.shown == [4, 3, 4, 4, 2, 2, 4, 4, 4, 4, 4, 4]


def test_nothing_left_to_attack() -> None:
    found = run({"fgsm": FGSM, "pgd": PGD}, eps=1)
    assert not any(stands.any() for stands in found.standing.values())


def test_a_killed_suite_goes_on_after_its_last_try() -> None:
    attacks = {"fgsm": FGSM, "pgd": Attack(AttackName.pgd, steps=2, restarts=3)}
    whole, checkpoint = run(attacks), Kept()

    def killed(done: int, total: int, **numbers: float) -> None:
        if done > 2 * len(SPLIT):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(attacks, checkpoint=checkpoint, progress=killed)
    model = Counting()
    again = run(attacks, checkpoint=checkpoint, model=model)
    assert torch.equal(again.pictures, whole.pictures)
    assert all(torch.equal(again.standing[name], whole.standing[name]) for name in attacks)
    assert len(model.shown) == 6  # two tries of two steps and a look, on the one batch that stands


@pytest.mark.parametrize("kill_at", range(1, 25))
def test_a_killed_suite_goes_on_after_its_last_batch(monkeypatch: pytest.MonkeyPatch, kill_at: int) -> None:
    """Of one or two samples, in tries with a start drawn at random."""
    monkeypatch.setattr("defense.runtime.checkpoint.KEPT_EVERY", 0.0)
    attacks = {"pgd": Attack(AttackName.pgd, steps=2, restarts=2), "square": Attack(AttackName.square, queries=3)}
    more: dict[str, Any] = {"batch_size": 2, "eps": "0.12"}
    calls, checkpoint = [], Kept()

    def counted(done: int, total: int, **numbers: float) -> None:
        calls.append(done)
        if len(calls) == kill_at:
            raise KeyboardInterrupt

    whole = run(attacks, **more)
    with suppress(KeyboardInterrupt):
        run(attacks, checkpoint=checkpoint, progress=counted, **more)
    again = run(attacks, checkpoint=checkpoint, progress=counted, **more)
    assert calls == sorted(set(calls))  # no batch twice
    assert torch.equal(again.pictures, whole.pictures)
    assert all(torch.equal(again.standing[name], whole.standing[name]) for name in attacks)


@pytest.mark.parametrize("name", [AttackName.pgd, AttackName.square, AttackName.autoattack])
def test_a_killed_attack_on_all_samples_goes_on_after_its_last_batch(
    monkeypatch: pytest.MonkeyPatch, name: AttackName
) -> None:
    monkeypatch.setattr("defense.runtime.checkpoint.KEPT_EVERY", 0.0)
    spec, calls, checkpoint = Attack(name, steps=2, restarts=2, queries=3), [], Kept()

    def counted(done: int, total: int, **numbers: float) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    common: dict[str, Any] = {"classes": 2, "batch_size": 2, "seed": 0, "progress": no_progress}
    arguments = (Counting(), SPLIT, spec, threat(eps=0.12))
    whole = perturb(*arguments, **common)
    with pytest.raises(KeyboardInterrupt):
        perturb(*arguments, **common | {"progress": counted}, checkpoint=checkpoint)
    again = perturb(*arguments, **common | {"progress": counted}, checkpoint=checkpoint)
    assert calls == sorted(set(calls))
    assert torch.equal(again, whole)


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
    common = {"classes": 2, "batch_size": 16, "seed": 0, "progress": no_progress}
    high = [
        int((perturb(Hills(), split, Attack(AttackName.pgd, restarts=n), threat(eps=0.2), **common) > 0.6).sum())
        for n in (1, 8)
    ]
    assert 0 < high[0] < 40
    assert high[1] == 40


class Shows(nn.Module):
    """Logits as a function of the pixel."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits, self.scale = logits, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.logits(x.flatten(1)[:, 0])


@pytest.mark.parametrize("at", [0.0, 0.52])
def test_what_is_not_finite_is_not_robust(at: float) -> None:
    """On all pictures, or on those alone that an attack reaches."""
    model = Shows(lambda pixel: torch.stack([pixel, torch.where(pixel > at, torch.nan, -pixel)], dim=1))
    with pytest.raises(FloatingPointError, match="logits that are not finite"):
        run({"pgd": PGD}, model=model)
    with pytest.raises(FloatingPointError, match="logits that are not finite"):
        perturb(model, SPLIT, PGD, threat(eps=0.1), classes=2, batch_size=4, seed=0, progress=no_progress)


def test_a_mistaken_try_is_kept_before_one_of_higher_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three classes: at pixel 0.6 the sample is right with the higher loss, at 0.4 mistaken with the lower."""
    logits = {0.5: [5.0, 0, 0], 0.6: [1.0, 0.99, 0.98], 0.4: [1.0, 1.01, -9.0]}

    def look_up(pixel: Tensor) -> Tensor:
        return torch.tensor([logits[round(float(value), 1)] for value in pixel])

    tries = iter([0.4, 0.6])
    monkeypatch.setattr(
        "defense.robustness.suite.perturb_batch", lambda model, x, *_, **__: torch.full_like(x, next(tries))
    )
    labels = torch.zeros(1, dtype=torch.int64)
    split = Split(torch.arange(1), TensorImages(torch.full((1, 1, 1, 1), 0.5)), labels, labels)
    spec, common = Attack(AttackName.pgd, restarts=2), {"batch_size": 4, "seed": 0, "progress": no_progress}
    found = perturb(Shows(look_up), split, spec, threat(eps=0.2), classes=3, **common)
    assert float(found) == pytest.approx(0.4)


def test_of_what_stands_the_picture_of_highest_loss_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack that gives nothing back does not put the clean picture in place of a better one."""
    tries = iter([0.45, 0.05])
    monkeypatch.setattr(
        "defense.robustness.suite.perturb_batch", lambda model, x, *_, **__: torch.full_like(x, next(tries))
    )
    labels = torch.zeros(1, dtype=torch.int64)
    split = Split(torch.arange(1), TensorImages(torch.full((1, 1, 1, 1), 0.1)), labels, labels)
    common = {"classes": 2, "batch_size": 4, "seed": 0, "progress": no_progress}
    found = run_suite(Counting(), split, {"a": PGD, "b": FGSM}, threat(eps=0.4), **common)
    assert found.standing["b"].tolist() == [True]
    assert float(found.pictures) == pytest.approx(0.45)


def test_small_pictures_and_wide_balls_are_said_beforehand() -> None:
    spec, wide = Attack(AttackName.autoattack), threat(norm=Norm.L2, eps=3)
    with pytest.raises(InputError, match=r"own=autoattack: square does not fit pictures of 4x4 in L2"):
        check_shape("eps", [("own", spec)], threat(norm=Norm.L2, eps=0.5), (1, 4, 4))
    check_shape("eps", [("own", PGD)], threat(norm=Norm.L2, eps=0.5), (1, 4, 4))
    with pytest.raises(InputError, match=r"eps=3: the farthest two pictures are 2 apart"):
        check_shape("eps", [], wide, (1, 2, 2))


class Rounded(nn.Module):
    """Class 1 if the pixels, rounded to tenths, are 1/2 or more on average: gradients are zero everywhere."""

    def __init__(self, *, masks: bool) -> None:
        super().__init__()
        self.masks = masks
        self.shown: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(len(x))
        seen = x + ((10 * x).round() / 10 - x).detach() if not self.masks else (10 * x).round() / 10 + 0 * x
        margin = seen.flatten(1).mean(1) - 0.5
        return torch.stack([-margin, margin], dim=1)


def bright(count: int) -> Split:
    """Return pictures of class 1, half of which are within 0.2 of the boundary of `Rounded`."""
    levels = torch.where(torch.arange(count) % 2 == 0, 0.6, 0.95)
    labels = torch.ones(count, dtype=torch.int64)
    return Split(torch.arange(count), TensorImages(levels.view(-1, 1, 1, 1).expand(-1, 1, 5, 5)), labels, labels)


def looked(model: nn.Module, **more: Any) -> Attacked:
    attacks = {"pgd": PGD, "square": Attack(AttackName.square, queries=200)}
    common = {"classes": 2, "batch_size": 64, "seed": 0, "progress": no_progress, "masked": ["square"]}
    return run_suite(model, bright(100), attacks, threat(eps=0.2), **common | more)


@pytest.mark.parametrize(("masks", "calls"), [(False, [("pgd", 64), ("pgd", 36), ("square", 32)]), (True, None)])
def test_square_runs_on_all_only_if_a_look_breaks_what_gradients_leave(
    masks: bool, calls: list[tuple[str, int]] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    original = suite.perturb_batch

    def noting(model: nn.Module, x: Tensor, labels: Tensor, attack: Attack, *rest: Any, **more: Any) -> Tensor:
        seen.append((attack.name.value, len(x)))
        return original(model, x, labels, attack, *rest, **more)

    monkeypatch.setattr(suite, "perturb_batch", noting)
    found = looked(Rounded(masks=masks))
    standing = {name: int(stands.sum()) for name, stands in found.standing.items()}
    if not masks:
        assert seen == calls
        assert standing == {"pgd": 50, "square": 50}
        return
    after_look = sum(count for name, count in seen[3:])
    assert seen[:3] == [("pgd", 64), ("pgd", 36), ("square", 32)]
    assert 100 - 16 <= after_look < 100  # all that the look has left
    assert standing["pgd"] == 100
    assert 50 <= standing["square"] < 100 - LOOK  # more fall than were looked at


class Stepped(nn.Module):
    """A net that sees pixels in tenths: its gradients are zero, and some of its samples fall to Square."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((8 * x).round() / 8 + 0 * x)
        return logits


def test_a_look_costs_no_accuracy_if_gradients_are_masked() -> None:
    model, x = Stepped(), torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(x).argmax(1)
    split = Split(torch.arange(150), TensorImages(x), labels, labels)
    attacks = {"pgd": PGD, "square": Attack(AttackName.square, queries=1500)}
    common = {"classes": 3, "batch_size": 256, "seed": 0, "progress": no_progress}
    left = [
        int(run_suite(model, split, attacks, threat(eps=0.08), masked=masked, **common).standing["square"].sum())
        for masked in ([], ["square"])
    ]
    by_gradients = int(run_suite(model, split, {"pgd": PGD}, threat(eps=0.08), **common).standing["pgd"].sum())
    assert left[0] < by_gradients - 15
    assert left[1] <= left[0] + 5


def test_a_suite_that_is_killed_after_a_look_goes_on_as_it_would_have() -> None:
    whole, checkpoint = looked(Rounded(masks=True)), Kept()

    def killed(done: int, total: int, **numbers: float) -> None:
        if done > 2 * 100:  # in the third try, the one on all that stand
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        looked(Rounded(masks=True), checkpoint=checkpoint, progress=killed)
    assert len(checkpoint["attacked"]["after"]) == 3  # as they are, after pgd, and after the look
    again = looked(Rounded(masks=True), checkpoint=checkpoint)
    assert torch.equal(again.pictures, whole.pictures)
    assert torch.equal(again.standing["square"], whole.standing["square"])


def test_every_restart_after_a_look_asks_the_look() -> None:
    spec = Attack(AttackName.square, queries=700, restarts=2)
    look, *others = tries_of("own", spec, look=True)
    assert look.attack.queries == LOOK_QUERIES
    assert [each.attack.queries for each in others] == [700, 700]
    before, broken = torch.ones(100, dtype=torch.bool), torch.ones(100, dtype=torch.bool)
    rows = few_of(torch.arange(100))
    assert rows.tolist() == [100 * k // LOOK for k in range(LOOK)]
    assert torch.equal(rows_of(look, [before]), rows)
    for count in (0, 1):
        broken[rows[:count]] = False
        left = broken.nonzero().flatten() if count else torch.empty(0, dtype=torch.int64)
        assert torch.equal(rows_of(others[0], [before, broken]), left)
        assert torch.equal(rows_of(others[1], [before, broken, broken]), left)
    assert len(few_of(torch.arange(0))) == 0
    assert few_of(torch.arange(3)).tolist() == [0, 1, 2]
