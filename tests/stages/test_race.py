"""By a clock that calls turn on themselves: what is measured is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from defense.stages.race import SHORTEST, race, timed


class Machine:
    """A clock, and calls that take known seconds, in a machine that becomes slower with every call."""

    def __init__(self, slower: float = 1.0) -> None:
        self.now, self.slowness, self.slower = 0.0, 1.0, slower
        self.order: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: float) -> Callable[[], str]:
        def run() -> str:
            self.order.append(name)
            self.now += seconds * self.slowness
            self.slowness *= self.slower
            return f"{name} {self.order.count(name)}"

        return run


def test_each_rival_stands_between_two_calls_of_the_other() -> None:
    machine = Machine()
    rivals = {"a": machine.call("a", 2.0), "b": machine.call("b", 0.5)}
    own, found = race(machine.call("own", 1.0), rivals, rounds=2, seconds=10, clock=machine.clock)
    assert machine.order == ["own", "a", "own", "b", "own"] * 2
    assert (own.seconds, own.rounds, own.found) == (1.0, 6, "own 6")
    assert (found["a"].seconds, found["a"].factor, found["a"].rounds) == (2.0, 2.0, 2)
    assert (found["b"].factor, found["b"].found) == (0.5, "b 2")


def test_a_machine_that_slows_down_slows_both() -> None:
    """Times triple while they are taken; of factors that of the last round is as that of the first."""
    machine = Machine(slower=1.02)
    _, found = race(
        machine.call("own", 1.0), {"a": machine.call("a", 4.0)}, rounds=20, seconds=1e9, clock=machine.clock
    )
    assert machine.slowness > 3
    assert found["a"].factor == pytest.approx(4, rel=0.001)


def test_what_takes_long_is_called_in_no_further_round() -> None:
    machine = Machine()
    rivals = {"slow": machine.call("slow", 30.0), "quick": machine.call("quick", 4.0)}
    _, found = race(machine.call("own", 1.0), rivals, rounds=5, seconds=9, clock=machine.clock)
    assert (found["slow"].rounds, found["quick"].rounds) == (1, 3)


def test_what_is_short_is_called_often() -> None:
    machine = Machine()
    seconds, last = timed(machine.call("a", SHORTEST / 7.5), machine.clock)
    assert seconds == pytest.approx(SHORTEST / 7.5)
    assert last == "a 8"
