"""What a dispatcher has in flight: a task for each attempt, its deadline, and the settlements that come of them.

Requests are made some at a time, and attempts that are over are decided together, when their settlements are wanted.
Doing these things one by one, between the system calls of sending, takes more than twice as long: each time caches and
predictions of the processor begin anew.

Nor are they all made at once: what an attempt consists of until its answer comes is a dozen objects, and whenever seven
hundred more have been made than let go, the garbage collector looks at them all. So answers are read in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from ._core.claims import Claim, Settled, Settlement, moved_claim, moved_settlement
from ._core.decide import Backoff, backoff_basis, decide, is_success
from ._deadlines import Deadlines
from ._sending import Sender, Underway, left_open
from .retry import RetryPolicy

__all__ = ["InFlight"]

_log = logging.getLogger("procore_hooks")

# How many are begun in one step of the loop. More saves little, and keeps the first of them waiting.
_TOGETHER: Final = 32
# What follows when a retry strategy raises: neither hammering nor giving up.
_FALLBACK: Final = Backoff(wait=timedelta(minutes=1), stop=False)


class InFlight:
    """The attempts of one event loop that are under way, or over and not settled yet.

    Args:
        now: tells the time, and calls `move` first if the clock was set.
        woken: set whenever an attempt is over.
    """

    def __init__(self, sender: Sender, retry: RetryPolicy, now: Callable[[], datetime], woken: asyncio.Event) -> None:
        self._sender = sender
        self._retry = retry
        self._now = now
        self._woken = woken
        self._loop = asyncio.get_running_loop()
        self._claimed: deque[Claim] = deque()
        self._send_by = 0.0
        self._settled: list[Settled] = []
        self._running: dict[Underway, asyncio.Task[None]] = {}
        self._over: deque[Underway] = deque()
        self._settlements: list[Settlement] = []
        self._deadlines = Deadlines(self._loop, self._cancel_late)

    def __len__(self) -> int:
        """How many are under way, or about to begin."""
        return len(self._claimed) + len(self._running)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything here."""
        return len(self) > 0 or self.has_settlements

    @property
    def is_beginning(self) -> bool:
        """Whether some have not begun yet, which they do in the next steps of the loop."""
        return bool(self._claimed)

    @property
    def has_settlements(self) -> bool:
        """Whether some are over."""
        return self.over > 0

    @property
    def over(self) -> int:
        """How many are over."""
        return len(self._over) + len(self._settlements)

    def begin(self, claims: Sequence[Claim], send_by: float, settled: Sequence[Settled]) -> None:
        """Make the attempts, over by `send_by` of the loop's clock, while nobody else can have claimed them.

        Of those that are `settled` as many are let go as begin.
        """
        if claims:
            self._claimed.extend(claims)
            self._settled = list(settled)
            self._send_by = send_by
            self._begin_some()

    def _begin_some(self) -> None:
        some = [Underway(claim, claim.claimed_at) for claim in islice(self._claimed, _TOGETHER)]
        try:
            self._sender.prepare(some, self._send_by)
        except Exception:
            # A mistake of ours. Their leases say when they are tried again, and the others are not to wait for that.
            for one in some:
                if not one.is_prepared:
                    _log_unknown(one.claim)
        for one in some:
            self._claimed.popleft()
            if not one.is_prepared:
                continue
            # Not the loop's `create_task`: by the host's own factory a task may run before it is known here.
            self._running[one] = asyncio.Task(self._attempt(one), loop=self._loop)
        del self._settled[-_TOGETHER:]
        if self._claimed:
            self._loop.call_soon(self._begin_some)
        else:
            self._settled.clear()

    def take_settlements(self) -> list[Settlement]:
        """The settlements of all that are over, to be stored by the caller."""
        while self._over:
            one = self._over.popleft()
            try:
                self._settlements.append(self._decided(one))
            except Exception:
                # A mistake of ours. Its lease says when it is tried again: at once would be over and over.
                _log_unknown(one.claim)
        taken, self._settlements = self._settlements, []
        return taken

    def give_back(self, settlements: Sequence[Settlement]) -> None:
        """Keep settlements that could not be stored; the next to take them gets them first."""
        self._settlements = [*settlements, *self._settlements]

    def move(self, by: timedelta) -> None:
        """The wall clock was set by `by`: what is still to come lies at another reading of it."""
        self._settlements = [moved_settlement(one, by) for one in self.take_settlements()]
        self._claimed = deque(moved_claim(one, by) for one in self._claimed)
        for one in self._running:
            one.claim = moved_claim(one.claim, by)

    async def cut_short(self) -> None:
        """End all that are under way; their settlements can be taken then."""
        self._deadlines.end()
        unsaid = list(self._claimed)
        self._claimed.clear()  # else they would begin while we wait
        cut = dict(self._running)
        for task in cut.values():
            task.cancel()
        if cut:
            await asyncio.wait(cut.values())
        # A task that was cancelled before its first step has left nothing.
        unsaid += [one.claim for one in cut if one.completed_at is None]
        now = self._now()
        self._settlements = [*self._settlements, *(left_open(claim, now) for claim in unsaid)]

    async def _attempt(self, one: Underway) -> None:
        try:
            self._deadlines.set(one, one.deadline)
            await self._sender.send(one)
            one.completed_at = self._now()
            self._over.append(one)
        except Exception:
            _log_unknown(one.claim)
        except BaseException:
            one.completed_at = now = self._now()  # first: the list is another one if the clock was set
            self._settlements.append(left_open(one.claim, now))
            raise
        finally:
            self._deadlines.clear(one)
            self._running.pop(one, None)
            self._woken.set()

    def _cancel_late(self, one: Underway) -> None:
        one.is_late = True
        self._running[one].cancel()

    def _decided(self, one: Underway) -> Settlement:
        attempt, answer = self._sender.outcome(one)
        now, policy = attempt.completed_at or attempt.started_at, self._retry
        backoff = _FALLBACK
        if not is_success(answer):
            number, since = backoff_basis(one.claim, policy.on_failure, attempt.started_at, now)
            try:
                backoff = policy.backoff(number, since, now, answer.status)
            except Exception:
                _log.exception("the retry policy raised; trying again in %s", _FALLBACK.wait)
        return decide(
            one.claim,
            attempt,
            answer,
            backoff=backoff,
            mode=policy.on_failure,
            max_retry_after=policy.max_retry_after,
            now=now,
        )


def _log_unknown(claim: Claim) -> None:
    _log.exception("delivery %d: what came of attempt %d is not known", claim.delivery_id, claim.number)
