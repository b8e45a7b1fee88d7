"""What the storage contract's tests are written with: hooks, events, turns and settlements in few words.

Times are arguments everywhere: `at(5)` is five seconds after the start of a test.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import attrs

from .._core.models import Attempt, AttemptOutcome, Delivery, DeliveryStatus, Emission, Event, Hook
from .._core.secret import Secret
from ..storage._base import Claim, ClockReading, DeliveryQuery, EmitRequest, HookChange, Settlement, Storage, Turn

__all__ = [
    "CAPACITY",
    "LEASE",
    "SIGNING_SECRET",
    "T0",
    "a_hook",
    "accepted",
    "an_attempt",
    "an_event",
    "at",
    "emit",
    "emit_many",
    "fails_and_pauses",
    "given_up",
    "history",
    "ids",
    "listening",
    "put_off",
    "statuses",
    "sweep",
    "turn",
]

T0 = datetime(2031, 5, 17, 9, 30, tzinfo=UTC)
LEASE = timedelta(seconds=30)
CAPACITY = 100
SIGNING_SECRET = Secret("whsec_c2VjcmV0LW9mLXRoZS1jb250cmFjdC1zdWl0ZQ==")
_EVENT_IDS = count(1)


def at(seconds: float) -> datetime:
    """The moment so many seconds after the start."""
    return T0 + timedelta(seconds=seconds)


def a_hook(**fields: Any) -> Hook:
    """A hook that is not stored yet."""
    given = {"destination_url": "https://hooks.example/in", "namespace": "contract", **fields}
    return Hook(id=0, signing_secret=SIGNING_SECRET, created_at=T0, updated_at=T0, **given)


def an_event(resource: str = "RFIs", action: str = "update", **fields: Any) -> Event:
    """An event with an id that no other event has."""
    number = next(_EVENT_IDS)
    given = {"id": number, "ulid": f"{number:026d}", "occurred_at": T0, **fields}
    return Event(resource=resource, action=action, **given)


def listening(storage: Storage, *pairs: tuple[str, str], **fields: Any) -> Hook:
    """A stored hook with these triggers; without any, for updates of RFIs."""
    hook = storage.add_hook(a_hook(**fields))
    for resource, action in pairs or (("RFIs", "update"),):
        storage.add_trigger(hook.id, resource, action)
    return hook


def emit(
    storage: Storage,
    event: Event | None = None,
    *,
    now: datetime = T0,
    key: str | None = None,
    fingerprint: bytes = b"one",
) -> Emission:
    """Emit one event; without one, an update of RFIs without a scope."""
    request = EmitRequest(event=event or an_event(), idempotency_key=key, fingerprint=fingerprint)
    return storage.emit([request], now, None)[0]


def emit_many(storage: Storage, number: int, *, now: datetime = T0, resource: str = "RFIs") -> list[int]:
    """Emit so many updates in one call. Returns the ids of their deliveries, in order."""
    emissions = storage.emit([EmitRequest(event=an_event(resource)) for _ in range(number)], now, None)
    return [delivery_id for emission in emissions for delivery_id in emission.delivery_ids]


def turn(
    storage: Storage,
    *settlements: Settlement,
    now: datetime = T0,
    due_by: datetime | None = None,
    lease: timedelta = LEASE,
    capacity: int = CAPACITY,
    reading: ClockReading | None = None,
    wait: bool = True,
) -> Turn:
    """A turn; what is due by `now`, unless another moment is given."""
    due_by = due_by or now
    return storage.turn(settlements, now=now, due_by=due_by, lease=lease, capacity=capacity, reading=reading, wait=wait)


def sweep(storage: Storage, now: datetime = T0) -> int:
    """Turn, without claiming, until nothing is left to discard. Returns how many deliveries were discarded."""
    discarded = 0
    while swept := turn(storage, now=now, capacity=0).discarded:
        discarded += swept
    return discarded


def ids(result: Turn) -> list[int]:
    """The ids of the deliveries claimed."""
    return [claim.delivery_id for claim in result.claims]


def an_attempt(claim: Claim, outcome: AttemptOutcome, now: datetime, **fields: Any) -> Attempt:
    """The record of a claim's attempt."""
    given = {"request_url": "https://hooks.example/in", "started_at": claim.claimed_at, "completed_at": now, **fields}
    return Attempt(number=claim.number, outcome=outcome, **given)


def accepted(claim: Claim, now: datetime = T0, change: HookChange | None = None) -> Settlement:
    """The endpoint took the delivery."""
    attempt = an_attempt(claim, "ok", now, response_status=200)
    return Settlement(claim=claim, attempt=attempt, status="delivered", hook_change=change)


def put_off(
    claim: Claim, now: datetime = T0, *, due_at: datetime | None = None, change: HookChange | None = None
) -> Settlement:
    """The attempt failed, and another one will follow."""
    attempt = an_attempt(claim, "retried", now, response_status=500)
    return Settlement(claim=claim, attempt=attempt, status="retrying", due_at=due_at, hook_change=change)


def fails_and_pauses(claim: Claim, now: datetime, until: datetime) -> Settlement:
    """The attempt failed, and pauses its hook."""
    change = HookChange(failures=claim.failures + 1, failing_since=claim.hook.failing_since or now, paused_until=until)
    return put_off(claim, now, change=change)


def given_up(
    claim: Claim, now: datetime = T0, *, reason: str = "given up", change: HookChange | None = None
) -> Settlement:
    """The attempt failed, and was the last."""
    attempt = an_attempt(claim, "failed", now, response_error="connection refused")
    return Settlement(claim=claim, attempt=attempt, status="failed", reason=reason, hook_change=change)


def history(storage: Storage, hook_id: int | None = None, **filters: Any) -> list[Delivery]:
    """The deliveries, newest first, up to a thousand."""
    query = attrs.evolve(DeliveryQuery(hook_id=hook_id, limit=1000), **filters)
    return storage.list_deliveries(query)


def statuses(storage: Storage, delivery_ids: list[int]) -> list[DeliveryStatus]:
    """The statuses of these deliveries, in this order."""
    return [storage.get_delivery(delivery_id).status for delivery_id in delivery_ids]
