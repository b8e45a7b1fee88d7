"""What passes between a storage and a dispatcher: claims one way, settlements the other."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import attrs

from .models import Attempt, DeliveryStatus, Event, Hook

__all__ = [
    "CLOCK_TOLERANCE",
    "Claim",
    "ClockReading",
    "HookChange",
    "Settled",
    "Settlement",
    "Turn",
    "moved_claim",
    "moved_settlement",
]

# A wall clock that was set by less is left to itself: waits are then wrong by no more than this.
CLOCK_TOLERANCE: Final = timedelta(seconds=1)


@attrs.frozen
class ClockReading:
    """How far the wall clock is ahead of a steady one that nobody can set.

    When the offset changes, the wall clock was set, and every moment that is still to come lies at another reading of
    it.

    Attributes:
        steady: which steady clock it is: only offsets from the same one can be compared.
    """

    steady: str
    offset: timedelta

    def set_since(self, earlier: ClockReading | None) -> timedelta:
        """By how much the wall clock was set since an earlier reading; 0 for a change within `CLOCK_TOLERANCE`, or
        where there is none of the same steady clock to compare with.
        """
        if earlier is None or earlier.steady != self.steady:
            return timedelta(0)
        by = self.offset - earlier.offset
        return by if abs(by) > CLOCK_TOLERANCE else timedelta(0)


@attrs.frozen(kw_only=True)
class Claim:
    """A delivery that this dispatcher, and no other, may send until `lease_until`.

    Attributes:
        hook: the hook as it is now, with `failing_since` and `paused_until`.
        number: the number of this attempt, 1 for the first; with `delivery_id` it is the fence.
        epoch: the epoch of the hook's queue when it was claimed.
        failures: the hook's consecutive failures.
        first_attempt_at: when attempt 1 of this delivery was claimed; None if this is attempt 1.
        claimed_at: the `now` of the turn.
    """

    delivery_id: int
    hook: Hook
    event: Event
    number: int
    epoch: int
    failures: int
    first_attempt_at: datetime | None
    claimed_at: datetime
    lease_until: datetime


@attrs.frozen(kw_only=True)
class HookChange:
    """What a settlement does to its hook's queue.

    Attributes:
        failures, failing_since, paused_until: the new values.
        flush_reason: if set, everything that waits for this hook is discarded with this reason.
        disable: the hook becomes disabled; what waits is kept.
    """

    failures: int = 0
    failing_since: datetime | None = None
    paused_until: datetime | None = None
    flush_reason: str | None = None
    disable: bool = False


@attrs.frozen(kw_only=True)
class Settlement:
    """The result of a claimed attempt, decided by the core.

    Attributes:
        attempt: stored as it is. An empty `request_body` says that the body can be rendered from the event.
        status: ``retrying``, ``delivered``, ``failed`` or ``discarded``.
        due_at: of a ``retrying`` delivery; None is at once, as soon as its hook's pause permits.
        hook_change: None leaves the hook's queue as it is.
    """

    claim: Claim
    attempt: Attempt
    status: DeliveryStatus
    reason: str | None = None
    due_at: datetime | None = None
    hook_change: HookChange | None = None


@attrs.frozen(kw_only=True)
class Settled:
    """A settlement that was taken, and what came of it.

    Attributes:
        status: the delivery's status now; ``discarded`` instead of ``retrying`` where the hook was deleted, or
            its waiting deliveries were dropped or flushed while this attempt was under way.
        changed: whether the settlement's `hook_change` was taken.
    """

    settlement: Settlement
    status: DeliveryStatus
    changed: bool


@attrs.frozen(kw_only=True)
class Turn:
    """What a turn did.

    Attributes:
        settled: the settlements whose fence held, in the order given.
        late: those whose fence did not hold; nothing of them was stored.
        discarded: how many waiting deliveries it discarded for flushed, dropped or deleted queues.
        expired: how many leases it found expired and returned to their queues.
        claims: the deliveries to send now.
        next_due_at: the earliest moment at which a later turn has anything to do, leases counted and disabled
            hooks not; at most `now` when there is more to do at once; None when nothing waits.
    """

    settled: tuple[Settled, ...] = ()
    late: tuple[Settlement, ...] = ()
    discarded: int = 0
    expired: int = 0
    claims: tuple[Claim, ...] = ()
    next_due_at: datetime | None = None


def moved_claim(claim: Claim, by: timedelta) -> Claim:
    """The claim in the terms of a wall clock that was set by `by` since. History keeps what the clock showed then."""
    hook = attrs.evolve(
        claim.hook,
        failing_since=_moved(claim.hook.failing_since, by),
        paused_until=_moved(claim.hook.paused_until, by),
    )
    return attrs.evolve(
        claim,
        hook=hook,
        first_attempt_at=_moved(claim.first_attempt_at, by),
        lease_until=claim.lease_until + by,
    )


def moved_settlement(settlement: Settlement, by: timedelta) -> Settlement:
    """The settlement in the terms of a wall clock that was set by `by` since it was decided."""
    change = settlement.hook_change
    if change is not None:
        change = attrs.evolve(
            change, failing_since=_moved(change.failing_since, by), paused_until=_moved(change.paused_until, by)
        )
    return attrs.evolve(
        settlement,
        claim=moved_claim(settlement.claim, by),
        due_at=_moved(settlement.due_at, by),
        hook_change=change,
    )


def _moved(moment: datetime | None, by: timedelta) -> datetime | None:
    return None if moment is None else moment + by
