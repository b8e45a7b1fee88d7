"""Deadlines: each passes at its own time, whatever becomes of the others."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

from procore_hooks._deadlines import Deadlines


class Timer:
    """A call that the loop is to make."""

    def __init__(self, moment: float, call: Callable[[], None]) -> None:
        self._moment = moment
        self.call = call
        self.cancelled = False

    def when(self) -> float:
        return self._moment

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """What of an event loop has to do with time, which the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, moment: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(moment, call))
        return self.timers[-1]

    def until(self, moment: float) -> None:
        """Go on to this moment, making the calls on the way."""
        while due := [timer for timer in self.timers if timer.when() <= moment and not timer.cancelled]:
            first = min(due, key=Timer.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when())
            first.call()
        self.now = moment


def deadlines(loop: Loop, passed: Callable[[Any], None]) -> Deadlines[Any]:
    return Deadlines(cast(Any, loop), passed)


def test_each_passes_at_its_own_moment() -> None:
    """Set in any order, some cleared and some set anew, each that is left passes when its moment comes, once."""
    dice = random.Random(20261124)
    for _ in range(200):
        loop, passed = Loop(), list[tuple[float, int]]()
        ours = deadlines(loop, lambda number, at=loop, to=passed: to.append((at.now, number)))
        due: dict[int, float] = {}
        for number in range(40):
            loop.until(loop.now + dice.choice((0.0, 0.1, 2.0)))
            due[number] = loop.now + dice.choice((0.0, 0.5, 1.0, 5.0, 60.0))
            ours.set(number, due[number])
            other = dice.randrange(number + 1)
            if dice.random() < 0.3 and due[other] > loop.now:
                ours.clear(other)
                due[other] = float("inf")
        loop.until(1000.0)
        assert sorted(passed) == sorted((moment, number) for number, moment in due.items() if moment < 1000.0)


def test_there_is_one_timer_for_all() -> None:
    """However many are set and cleared, one timer waits; it is set anew only for an earlier deadline."""
    loop = Loop()
    ours = deadlines(loop, lambda _: None)
    for number in range(1000):
        ours.set(number, 5.0 + number)
        ours.clear(number)
    assert len(loop.timers) == 1
    ours.set("sooner", 1.0)
    assert [timer.when() for timer in loop.timers if not timer.cancelled] == [1.0]


def test_what_passes_may_clear_others() -> None:
    """One that is cleared by what another's passing does, in the same moment, does not pass."""
    loop, passed = Loop(), list[str]()

    def pass_one(what: str) -> None:
        passed.append(what)
        ours.clear("second")

    ours = deadlines(loop, pass_one)
    ours.set("first", 1.0)
    ours.set("second", 1.0)
    loop.until(10.0)
    assert passed == ["first"]


def test_after_the_end_nothing_passes() -> None:
    """No timer is left behind in the loop."""
    loop, passed = Loop(), list[str]()
    ours = deadlines(loop, passed.append)
    ours.set("first", 1.0)
    ours.end()
    assert all(timer.cancelled for timer in loop.timers)
    loop.until(10.0)
    assert passed == []
