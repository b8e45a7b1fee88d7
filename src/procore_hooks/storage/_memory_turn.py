"""A dispatcher's turn in `MemoryStorage`: settle what finished, return expired leases, claim what is due.

What a flush, a drop or a delete discards is discarded in the same call: in memory that is quick. What is under way
then is marked, and discarded should it come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from heapq import heappop, heappush

import attrs

from .._core.models import Attempt, masked_url
from ._base import LEFT_OPEN, Claim, ClockReading, HookChange, Settled, Settlement
from ._memory_history import History
from ._memory_hooks import Directory
from ._memory_queue import DeliveryRow, HookQueue, Lease, Schedule

__all__ = ["Dispatch"]


class Dispatch:
    """The steps of a turn, and what else moves deliveries in or out of queues."""

    def __init__(self, directory: Directory, history: History) -> None:
        self._directory = directory
        self._history = history
        self._schedule = Schedule()
        self._leases: list[tuple[datetime, int, int]] = []  # (until, delivery id, attempt number)
        self._reading: ClockReading | None = None

    def place(self, queue: HookQueue) -> None:
        """Say that the queue has changed."""
        self._schedule.place(queue)

    def discard_waiting(self, queue: HookQueue, reason: str, now: datetime) -> int:
        """Discard all that waits, and what is under way should it come back. Returns how many were waiting."""
        discarded = 0
        for row in queue.waiting():
            row.finish("discarded", reason, now)
            discarded += 1
        queue.clear()
        for row in queue.under_way.values():
            row.doom = reason
        self._schedule.place(queue)
        return discarded

    def forget(self, queue: HookQueue) -> None:
        """Take a deleted hook out of the schedule."""
        self._schedule.remove(queue)

    def follow_clock(self, reading: ClockReading) -> None:
        """Move all that is still to come, if the wall clock was set since the last turn."""
        by = reading.set_since(self._reading)
        if by or self._reading is None or self._reading.steady != reading.steady:
            self._reading = reading
        if not by:
            return
        for queue in self._directory.queues():
            queue.move(by)
            self._schedule.place(queue)
        self._leases = [(until + by, delivery_id, number) for until, delivery_id, number in self._leases]

    def settle(self, settlements: Iterable[Settlement], now: datetime) -> tuple[list[Settled], list[Settlement], int]:
        """Take the settlements whose fence holds. Returns those, the late ones, and how many a flush discarded."""
        settled: list[Settled] = []
        late: list[Settlement] = []
        discarded = 0
        for settlement in settlements:
            row = self._under_way(settlement.claim.delivery_id, settlement.claim.number)
            if row is None:
                late.append(settlement)
                continue
            queue = self._directory.find(row.hook_id)
            changed = False
            if queue is not None and settlement.hook_change is not None and queue.epoch == settlement.claim.epoch:
                discarded += self._change(queue, settlement.hook_change, now)
                changed = True
            self._store(row, queue, settlement, now)
            settled.append(Settled(settlement=settlement, status=row.status, changed=changed))
        return settled, late, discarded

    def expire(self, now: datetime) -> tuple[int, int]:
        """Return deliveries whose lease has run out. Returns how many, and how many of them were discarded."""
        expired = discarded = 0
        while self._leases and self._leases[0][0] <= now:
            _, delivery_id, number = heappop(self._leases)
            row = self._under_way(delivery_id, number)
            if row is None or row.lease is None:
                continue
            row.attempts.append(_unknown_attempt(number, row.lease))
            expired += 1
            discarded += row.doom is not None
            self._come_back(row, self._land(row), None, now)
        return expired, discarded

    def claim(self, now: datetime, due_by: datetime, lease: timedelta, capacity: int) -> list[Claim]:
        """Claim one delivery of each ready hook, then another of each, until the room or what is due is used up."""
        served = self._schedule.pick(due_by, capacity)
        claims: list[Claim] = []
        hungry = deque(served)
        while hungry and len(claims) < capacity:
            queue = hungry.popleft()
            row = queue.take(due_by)
            if row is not None:
                claims.append(self._claim(queue, row, now, now + lease))
                hungry.append(queue)
        for queue in served:
            self._schedule.served(queue)
        return claims

    def next_due_at(self, due_by: datetime) -> datetime | None:
        """The earliest moment at which a hook is ready or a lease runs out; `due_by` if a hook is ready now."""
        while self._leases and self._under_way(*self._leases[0][1:]) is None:
            heappop(self._leases)
        moments = [self._schedule.next_moment(due_by), self._leases[0][0] if self._leases else None]
        return min((moment for moment in moments if moment is not None), default=None)

    def _under_way(self, delivery_id: int, number: int) -> DeliveryRow | None:
        """The delivery if this attempt of it is under way: the fence."""
        row = self._history.find(delivery_id)
        return row if row is not None and row.lease is not None and row.attempt_count == number else None

    def _change(self, queue: HookQueue, change: HookChange, now: datetime) -> int:
        """Apply a settlement's change to its hook's queue. Returns how many waiting deliveries it discarded."""
        before = queue.failures, queue.hook
        queue.failures = change.failures
        queue.hook = attrs.evolve(queue.hook, failing_since=change.failing_since, paused_until=change.paused_until)
        if change.disable:
            queue.hook = attrs.evolve(queue.hook, status="disabled", updated_at=now)
        if (queue.failures, queue.hook) != before or change.flush_reason is not None:
            queue.epoch += 1
        return 0 if change.flush_reason is None else self.discard_waiting(queue, change.flush_reason, now)

    def _store(self, row: DeliveryRow, queue: HookQueue | None, settlement: Settlement, now: datetime) -> None:
        row.attempts.append(settlement.attempt)
        self._land(row)
        if settlement.status == "retrying":
            self._come_back(row, queue, settlement.due_at, now)
            return
        row.finish(settlement.status, settlement.reason, settlement.attempt.completed_at or now)
        if queue is not None:
            self._schedule.place(queue)

    def _land(self, row: DeliveryRow) -> HookQueue | None:
        """End the attempt under way. Returns the queue; None if the hook is deleted."""
        row.lease = None
        queue = self._directory.find(row.hook_id)
        if queue is not None:
            del queue.under_way[row.id]
        return queue

    def _come_back(self, row: DeliveryRow, queue: HookQueue | None, due_at: datetime | None, now: datetime) -> None:
        """Let the delivery wait again, or discard it if its queue was dropped, flushed or deleted meanwhile."""
        if row.doom is not None:
            row.finish("discarded", row.doom, now)
        elif queue is not None:
            row.status = "retrying"
            row.due_at = due_at
            queue.give_back(row)
        if queue is not None:
            self._schedule.place(queue)

    def _claim(self, queue: HookQueue, row: DeliveryRow, now: datetime, until: datetime) -> Claim:
        row.attempt_count += 1
        row.began_at = row.began_at or now
        row.due_at = None
        row.lease = Lease(now, masked_url(queue.hook.destination_url))
        queue.under_way[row.id] = row
        heappush(self._leases, (until, row.id, row.attempt_count))
        return Claim(
            delivery_id=row.id,
            hook=queue.hook,
            event=row.event,
            number=row.attempt_count,
            epoch=queue.epoch,
            failures=queue.failures,
            first_attempt_at=row.began_at if row.attempt_count > 1 else None,
            claimed_at=now,
            lease_until=until,
        )


def _unknown_attempt(number: int, lease: Lease) -> Attempt:
    return Attempt(
        number=number,
        outcome="unknown",
        request_url=lease.request_url,
        response_error=LEFT_OPEN,
        started_at=lease.claimed_at,
    )
