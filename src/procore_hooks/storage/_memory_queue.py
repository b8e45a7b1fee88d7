"""What `MemoryStorage` keeps of a hook's queue, and the schedule that says which hook's turn it is.

A queue is a deque of fresh deliveries and a heap of returned ones, so that its head costs the same whatever waits
behind it. The schedule holds two heaps of hooks: those to claim from now, by when they were last served, and those
that only time will make ready, by that moment. An entry that no longer says the truth about its hook is left where
it lies and passed over when it comes up: its version is not the queue's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush

import attrs

from .._core.models import Attempt, DeliveryStatus, Event, Hook, Trigger

__all__ = ["DeliveryRow", "HookQueue", "Lease", "Schedule"]

AT_ONCE = datetime.min.replace(tzinfo=UTC)


@attrs.frozen
class Lease:
    """What is known of an attempt under way."""

    claimed_at: datetime
    request_url: str


@attrs.define(kw_only=True, eq=False)
class DeliveryRow:
    """A delivery as it is kept.

    Attributes:
        due_at: of a returned delivery; None is at once.
        began_at: when it was first claimed, by the wall clock as it is set now.
        lease: of the attempt under way; None while none is.
        doom: why it is discarded, should it come back from this attempt.
    """

    id: int
    hook_id: int
    event: Event
    created_at: datetime
    status: DeliveryStatus = "enqueued"
    redelivery_of: int | None = None
    attempts: list[Attempt] = attrs.field(factory=list)
    attempt_count: int = 0
    due_at: datetime | None = None
    began_at: datetime | None = None
    completed_at: datetime | None = None
    reason: str | None = None
    lease: Lease | None = None
    doom: str | None = None

    def finish(self, status: DeliveryStatus, reason: str | None, moment: datetime) -> None:
        """Enter a final status."""
        self.status = status
        self.reason = reason
        self.completed_at = moment
        self.due_at = None


@attrs.define(kw_only=True, eq=False)
class HookQueue:
    """A hook, its triggers, and the deliveries that wait for it or are under way.

    Attributes:
        served: when it was last served, as a number that rises; 0 for never.
        placed, version: where the schedule has it, and which of its entries there is the true one.
    """

    hook: Hook
    triggers: dict[tuple[str, str], Trigger] = attrs.field(factory=dict)
    failures: int = 0
    epoch: int = 0
    served: int = 0
    under_way: dict[int, DeliveryRow] = attrs.field(factory=dict)
    placed: datetime | None = None
    version: int = 0
    _fresh: deque[DeliveryRow] = attrs.field(factory=deque)
    # (due moment, rank, row). The rank of a ping is below 0, so that it is ahead of all that is due since ever.
    _returned: list[tuple[datetime, int, DeliveryRow]] = attrs.field(factory=list)

    def append(self, row: DeliveryRow) -> None:
        """Put a fresh delivery at the end."""
        self._fresh.append(row)

    def give_back(self, row: DeliveryRow) -> None:
        """Let a delivery wait for its next attempt."""
        heappush(self._returned, (row.due_at or AT_ONCE, row.id, row))

    def push_ahead(self, row: DeliveryRow) -> None:
        """Put a delivery ahead of all that waits."""
        heappush(self._returned, (AT_ONCE, -row.id, row))

    def waiting(self) -> Iterator[DeliveryRow]:
        """All that waits, in no order."""
        yield from self._fresh
        yield from (row for _, _, row in self._returned)

    def clear(self) -> None:
        """Forget all that waits."""
        self._fresh.clear()
        self._returned.clear()

    def forget_due_moments(self) -> None:
        """Make all that waits due at once."""
        entries = []
        for _, rank, row in self._returned:
            row.due_at = None
            entries.append((AT_ONCE, rank, row))
        heapify(entries)
        self._returned = entries

    def move(self, by: timedelta) -> None:
        """Move all that is still to come, and the beginnings of spells, to where a wall clock set by `by` has them."""
        since, until = self.hook.failing_since, self.hook.paused_until
        self.hook = attrs.evolve(self.hook, failing_since=since and since + by, paused_until=until and until + by)
        entries = []
        for due_at, rank, row in self._returned:
            row.due_at = row.due_at and row.due_at + by
            row.began_at = row.began_at and row.began_at + by
            entries.append((due_at if due_at == AT_ONCE else due_at + by, rank, row))
        self._returned = entries  # all that is not at once moves alike, so it is still a heap
        for row in self.under_way.values():
            row.began_at = row.began_at and row.began_at + by

    def has_room(self) -> bool:
        """Whether one more delivery may be under way: one probe at a time while the hook fails."""
        return len(self.under_way) < (1 if self.failures else self.hook.max_in_flight)

    def ready_from(self) -> datetime | None:
        """The moment from which the hook is ready, `AT_ONCE` for always; None if time alone will not make it so."""
        if self.hook.status == "disabled" or not self.has_room():
            return None
        if self._fresh:
            due = AT_ONCE
        elif self._returned:
            due = self._returned[0][0]
        else:
            return None
        return due if self.hook.paused_until is None else max(due, self.hook.paused_until)

    def take(self, due_by: datetime) -> DeliveryRow | None:
        """Take the next delivery that is due: returned ones first. None if none is, or there is no room."""
        if not self.has_room():
            return None
        if self._returned and self._returned[0][0] <= due_by:
            return heappop(self._returned)[2]
        return self._fresh.popleft() if self._fresh else None


class Schedule:
    """Which hooks to claim from now, in which order, and when the others will be ready."""

    def __init__(self) -> None:
        self._ready: list[tuple[int, int, int, HookQueue]] = []  # (served, hook id, version, queue)
        self._asleep: list[tuple[datetime, int, int, HookQueue]] = []  # (moment, hook id, version, queue)
        self._services = 0

    def place(self, queue: HookQueue) -> None:
        """Put the queue where it belongs, after any change to it."""
        moment = queue.ready_from()
        if moment == queue.placed:
            return
        queue.placed = moment
        queue.version += 1
        if moment == AT_ONCE:
            self._push_ready(queue)
        elif moment is not None:
            heappush(self._asleep, (moment, queue.hook.id, queue.version, queue))

    def remove(self, queue: HookQueue) -> None:
        """Forget a queue."""
        queue.placed = None
        queue.version += 1

    def pick(self, due_by: datetime, most: int) -> list[HookQueue]:
        """Take out up to `most` hooks that are ready by `due_by`, those served longest ago first."""
        self._wake(due_by)
        picked: list[HookQueue] = []
        while len(picked) < most and self._settle_first(due_by):
            queue = heappop(self._ready)[3]
            self.remove(queue)
            picked.append(queue)
        return picked

    def served(self, queue: HookQueue) -> None:
        """Note that it was this hook's turn, and put it back."""
        self._services += 1
        queue.served = self._services
        self.place(queue)

    def next_moment(self, due_by: datetime) -> datetime | None:
        """The earliest moment at which a hook is ready: `due_by` if one is; None if time makes none ready."""
        self._wake(due_by)
        if self._settle_first(due_by):
            return due_by
        return self._asleep[0][0] if self._asleep else None

    def _push_ready(self, queue: HookQueue) -> None:
        heappush(self._ready, (queue.served, queue.hook.id, queue.version, queue))

    def _wake(self, due_by: datetime) -> None:
        """Move the sleepers whose moment has come; afterwards the first sleeper, if any, is a true one."""
        while self._asleep:
            moment, _, version, queue = self._asleep[0]
            if version == queue.version and moment > due_by:
                return
            heappop(self._asleep)
            if version == queue.version:
                self._push_ready(queue)

    def _settle_first(self, due_by: datetime) -> bool:
        """Bring a hook that is ready by `due_by` to the front; False if there is none.

        A hook that had woken may not be ready any more: the clock can have been set back.
        """
        while self._ready:
            _, _, version, queue = self._ready[0]
            moment = queue.placed
            if version == queue.version and moment is not None:
                if moment <= due_by:
                    return True
                heappush(self._asleep, (moment, queue.hook.id, version, queue))
            heappop(self._ready)
        return False
