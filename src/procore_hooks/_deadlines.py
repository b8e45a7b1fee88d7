"""Deadlines of many things by one timer of the event loop.

With a timer of its own for each, asyncio makes one, sorts it in and cancels it thousands of times a second, and hardly
any of them ever runs out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K")


class Deadlines(Generic[K]):
    """Calls `passed` with whatever is not done by its deadline. Of one event loop.

    Attributes:
        loop: whose clock the deadlines are by.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[K], None]) -> None:
        self.loop = loop
        self._passed = passed
        self._deadlines: dict[K, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def set(self, what: K, deadline: float) -> None:
        """`what` has to be done by then."""
        self._deadlines[what] = deadline
        if self._timer is None or deadline < self._timer.when():
            self._look_at(deadline)

    def clear(self, what: K) -> None:
        """It is done, if there is such a deadline at all."""
        # The timer stays as it is: the next to set a deadline would only have to set it again.
        self._deadlines.pop(what, None)

    def end(self) -> None:
        """Forget them all."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(moment, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self.loop.time()
        for what in [what for what, deadline in self._deadlines.items() if deadline <= now]:
            if self._deadlines.pop(what, None) is not None:
                self._passed(what)
        if self._deadlines:
            self._look_at(min(self._deadlines.values()))
