from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.errors import InputError
from defense.models.contract import check_function, check_logits, check_made, logits_on, oddity
from tests.conftest import make_split
from tests.habits import HABITS, small

SPLIT = make_split(20, 3, (1, 8, 8))
X = SPLIT.images.pixels


class Does(nn.Module):
    """A small network with something done to its picture before, and to its logits after."""

    def __init__(
        self, before: Callable[[Tensor], Tensor] | None = None, after: Callable[..., object] | None = None
    ):
        super().__init__()
        torch.manual_seed(0)
        self.network, self.before, self.after = small(), before, after

    def forward(self, x: Tensor) -> object:
        logits = self.network(self.before(x) if self.before else x)
        return self.after(logits) if self.after else logits


def stateful() -> nn.Module:
    """Return a network whose logits depend on the call before."""
    seen = [torch.zeros(3)]

    def drift(logits: Tensor) -> Tensor:
        seen.append(logits.mean(0))
        return logits + seen[-2]

    return Does(after=drift)


NO_FUNCTIONS = {
    "noise": (Does(lambda x: x + 0.1 * torch.randn_like(x)), "other logits each time"),
    "dropout left on": (Does(lambda x: F.dropout(x, 0.3)), "other logits each time"),
    "a state": (stateful(), "other logits each time"),
    "pixels by the batch": (Does(lambda x: (x - x.mean()) / x.std()), "depend on the other pictures"),
    "features by the batch": (
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)
        ),
        r"depend on the other pictures of the batch \(Expected more than 1 value",
    ),
    "the rank in the batch": (
        Does(after=lambda z: z + torch.arange(len(z))[:, None] % 3 * z),
        "depend on the other",
    ),
}


@pytest.mark.parametrize("name", NO_FUNCTIONS)
def test_no_function_of_the_picture(name: str) -> None:
    model, said = NO_FUNCTIONS[name]
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=f"{said}.*; no sample has a score"):
        check_function(model.eval(), SPLIT, "model", "x")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", HABITS)
def test_a_function_of_the_picture(name: str) -> None:
    torch.manual_seed(0)
    assert oddity(HABITS[name]().eval(), SPLIT, "model", name) is None


def test_half_precision_inside_is_rounding_and_no_oddity() -> None:
    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small()

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.network(x)

    assert oddity(Casts().eval(), SPLIT, "model", "x") is None


def test_a_picture_alone_that_loses_its_axis_is_one_line() -> None:
    with pytest.raises(
        InputError, match=r"gives \(3,\) of torch.float32 for 1 pictures; expected logits \(1, classes\)"
    ):
        oddity(Does(after=torch.squeeze), SPLIT, "model", "x")


class Output(NamedTuple):
    logits: Tensor
    loss: Tensor


OUTPUTS = {  # of which the logits z can be told
    "a tuple": lambda z: (z, z.mean()),
    "a list within a tuple": lambda z: ([z], z.mean()),
    "a dict": lambda z: {"loss": z.mean(), "logits": z, "features": 2 * z},
    "a dict of one matrix": lambda z: {"loss": z.mean(), "scores": z},
    "an output object": lambda z: Output(z, z.mean()),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_logits_are_picked_out_of_an_output(name: str) -> None:
    model = Does(after=OUTPUTS[name])
    assert torch.equal(logits_on(model, X[:8], "model", "x"), logits_on(Does(), X[:8], "model", "x"))
    assert not isinstance(model(X[:8]), Tensor)  # outside, it is as it was


NO_LOGITS = {
    "a dict of two": (lambda z: {"a": z, "b": 2 * z}, r"gives a dict of a, b; expected logits .* with 'logits'"),
    "an empty tuple": (lambda z: (), "gives a tuple; expected logits"),
    "classes": (lambda z: z.argmax(1), r"gives \(8,\) of torch.int64 for 8 pictures"),
    "one logit": (lambda z: z[:, :1], r"gives \(8, 1\) .* of two classes or more"),
    "nothing": (lambda z: None, "gives a NoneType"),
}


@pytest.mark.parametrize("name", NO_LOGITS)
def test_what_is_no_logits_is_named(name: str) -> None:
    after, said = NO_LOGITS[name]
    with pytest.raises(InputError, match=said):
        logits_on(Does(after=after), X[:8], "model", "x")


@pytest.mark.parametrize("error", [ValueError, AssertionError, KeyError, RuntimeError, IndexError])
def test_whatever_a_network_raises_is_one_line(error: type[Exception]) -> None:
    def fail(x: Tensor) -> Tensor:
        raise error("224 pixels\nexpected")

    with pytest.raises(
        InputError, match=r"model=x: fails on pictures of shape 1x8x8 \(\w+: .*224 pixels"
    ) as found:
        logits_on(Does(fail), X[:8], "model", "x")
    assert "\n" not in str(found.value)


def test_probabilities_are_no_logits_and_log_probabilities_are(caplog: pytest.LogCaptureFixture) -> None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="gives probabilities"):
        check_logits(logits.softmax(1), "model", "x")
    with pytest.raises(InputError, match="gives probabilities"):
        check_logits(logits.softmax(1).bfloat16(), "model", "x")
    with caplog.at_level(logging.WARNING):
        check_logits(logits.log_softmax(1), "model", "x")
        check_logits(logits, "model", "x")
        assert not caplog.text
        check_logits(logits.sigmoid(), "model", "x")
    assert "leave out the sigmoid" in caplog.text


def test_weights_that_are_not_there_yet_or_have_no_gradient() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(InputError, match=r"1\.weight is drawn in the first forward pass"):
        check_made(lazy)
    lazy(X)
    check_made(lazy)
    with torch.inference_mode():
        inside = small()
    with pytest.raises(InputError, match=r"1\.weight was made inside torch.inference_mode"):
        check_made(inside)
