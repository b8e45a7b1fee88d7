"""The interface of a storage. Its docstrings are the specification, and `testing.StorageContract` tests it.

Every method is synchronous, may be called from any thread, and is atomic: it does the whole of what it says,
durably, or raises a `StorageError` and has done nothing. Each sees what every returned call before it stored.

**The queue of a hook.** Its waiting deliveries, of two kinds: *fresh* ones, which no claim has taken yet,
and *returned* ones, whose last attempt failed or was left open, each with the moment at which it is due.
A hook is *ready* when all of these hold:

- it exists, is active, and none of its dropped deliveries is still to be discarded;
- fewer deliveries are under way than `max_in_flight`, or than 1 while `failures` is above 0 (the probe);
- it is not paused: `paused_until` is None or has come;
- it has a fresh delivery, or a returned one that is due.

**Order.** Of one hook, due returned deliveries are taken first, by (due moment, id), then fresh ones by id. A
returned delivery without a due moment counts as due since ever. Ids rise in the order of emission. Hooks take
turns: of those that are ready, the one served longest ago comes first, and a turn shares its room evenly among
the hooks that it serves, so that a long queue does not hold up a short one.

**Lease and fence.** A claim counts the attempt (`attempt_count` rises) and holds a lease. The fence of a claim is
(delivery, attempt number, under way): a settlement is taken only while it holds. Once a lease has run out, the
next turn records that attempt as ``unknown``, without touching the hook's pause, and the delivery returns, due at
once.

**Epoch.** Each queue has an epoch, which rises whenever its failures or its pause change: by a settlement's
`HookChange`, by `enable_hook`, `disable_hook` or a flush. A claim carries the epoch that it saw, and a
`HookChange` is taken only if the epoch is still the same, so of several attempts that fail together only the
first lengthens the pause, and a success that began before a failure does not lift it.

**A wall clock that is set.** Moments to come (the ends of pauses and leases, due moments) and the beginnings from
which spells are measured (`failing_since`, the first claim of a delivery) are stored by the wall clock. A turn that
brings a `ClockReading` first moves all of them by as much as that clock was set since the last reading that a turn
brought. So each moment comes as long after as it was to, whoever notices first, and what was written into the history
stays as it was. After a reading of another steady clock, as the machine has after a restart, nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import attrs

from .._core.claims import Claim, ClockReading, HookChange, Settled, Settlement, Turn
from .._core.models import Delivery, DeliveryStatus, Emission, Event, Hook, HookStatus, Trigger

__all__ = [
    "DROPPED",
    "LEFT_OPEN",
    "Changes",
    "Claim",
    "ClockReading",
    "DeliveryQuery",
    "EmitRequest",
    "EventIdTaken",
    "HookChange",
    "HookQuery",
    "Settled",
    "Settlement",
    "Storage",
    "Turn",
    "Wanted",
    "changes_for",
    "wanted_of",
]


# What a history says, whatever storage it is in.
DROPPED: Final = "the hook was disabled and drops events"
LEFT_OPEN: Final = "no result was recorded: the process that made this attempt ended, or lost its lease"


Pairs = Sequence[tuple[str, str]]
Wanted = Pairs | Callable[[Sequence[Trigger]], Pairs]
Changes = Mapping[str, Any] | Callable[[Hook], Mapping[str, Any]]


class EventIdTaken(Exception):
    """Another process made the same event id in the same millisecond: make another and emit again."""


@attrs.frozen(kw_only=True)
class EmitRequest:
    """An event to store, with the idempotency key of its emit and a fingerprint of its content."""

    event: Event
    idempotency_key: str | None = None
    fingerprint: bytes = b""


@attrs.frozen(kw_only=True)
class HookQuery:
    """Which hooks to list: id above `after`, ascending, at most `limit`; None means any."""

    namespace: str | None = None
    company_id: str | None = None
    project_id: str | None = None
    status: HookStatus | None = None
    after: int = 0
    limit: int = 25


@attrs.frozen(kw_only=True)
class DeliveryQuery:
    """Which deliveries to list: id below `before`, newest first, at most `limit`; None or empty means any.

    `start <= created_at < end`. `statuses` holds the statuses wanted.
    """

    hook_id: int | None = None
    statuses: frozenset[DeliveryStatus] = frozenset()
    resource: str | None = None
    action: str | None = None
    resource_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    before: int | None = None
    limit: int = 25


def changes_for(changes: Changes, hook: Hook) -> Mapping[str, Any]:
    """What is to change of the hook."""
    return changes(hook) if callable(changes) else changes


def wanted_of(wanted: Wanted, present: Sequence[Trigger]) -> Mapping[tuple[str, str], None]:
    """The pairs that are to be, each once."""
    return dict.fromkeys(wanted(present) if callable(wanted) else wanted)


class Storage(Protocol):
    """What `HookRegistry` and `Dispatcher` need of a storage. See the module's text for queues and fences."""

    def close(self) -> None:
        """Let go of files and connections. Calling it again does nothing; any other call afterwards raises."""

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake`, from any thread, after each commit of this object that may have made a hook ready.

        Returns a function that ends the subscription. `wake` must not raise and must not block.
        """

    # Hooks

    def add_hook(self, hook: Hook) -> Hook:
        """Store a new hook and return it with an id of the storage's choice; `hook.id` is ignored.

        Ids of hooks, triggers and deliveries rise and are never used again.
        """

    def get_hook(self, hook_id: int) -> Hook:
        """The hook. Raises `NotFound` for one that never was or that is deleted."""

    def list_hooks(self, query: HookQuery) -> list[Hook]:
        """The hooks that fit, without deleted ones, by id."""

    def update_hook(self, hook_id: int, changes: Changes, now: datetime) -> Hook:
        """Set the named fields of the hook, and `updated_at`. Any field but `id`, `status`, `payload_version`,
        `failing_since`, `paused_until`, `created_at` and `updated_at`. A change of scope goes for its triggers
        too; a change of `max_in_flight` goes for the next turn. Raises `NotFound`.

        `changes` may be a function of the hook as it stands: it is called once, in the same transaction, so that of
        two changes at once each sees the other or is seen by it. If it raises, nothing is stored.
        """

    def enable_hook(self, hook_id: int, now: datetime) -> Hook:
        """Make the hook active and forget its failures and its pause: what waits is due at once."""

    def disable_hook(self, hook_id: int, now: datetime, drop_reason: str | None) -> Hook:
        """Make the hook disabled. With `drop_reason`, discard all that waits for it, with that reason."""

    def delete_hook(self, hook_id: int, now: datetime, reason: str) -> None:
        """Delete the hook, its triggers and its secrets, and discard all that waits for it, with `reason`.

        Its deliveries stay in the history. An attempt under way is still settled. Raises `NotFound`.
        """

    # Triggers

    def add_trigger(self, hook_id: int, resource: str, action: str) -> Trigger:
        """Store a trigger. Raises `NotFound` without the hook, `DuplicateTrigger` if the hook has it."""

    def list_triggers(self, hook_id: int, after: int, limit: int) -> list[Trigger]:
        """The hook's triggers with an id above `after`, by id, at most `limit`. Raises `NotFound`."""

    def delete_trigger(self, trigger_id: int) -> None:
        """Delete the trigger. Raises `NotFound`."""

    def replace_triggers(self, hook_id: int, wanted: Wanted) -> list[Trigger]:
        """Make the (resource, action) pairs `wanted` the hook's triggers; those it has keep their ids.

        `wanted` may be a function of those it has, by id: it is called once, in the same transaction.
        Returns all of them by id. Raises `NotFound`.
        """

    # Events

    def emit(self, requests: Sequence[EmitRequest], now: datetime, connection: object | None) -> list[Emission]:
        """Store events and their deliveries, in this order, in one transaction.

        A delivery is made for each hook with a trigger that matches (`_core.matching` holds the rule), once per
        hook, by ascending hook id: ``enqueued``, or ``discarded`` with a reason where the hook is disabled and
        drops. An event that no hook matches is not stored (unless it came with a key).

        A key seen before, with the same fingerprint, gives the first `Emission` again and stores nothing; with
        another fingerprint it raises `IdempotencyConflict`.

        `connection` is the caller's own, on the same database: what is stored is then part of the caller's
        transaction. Raises `InvalidInput` for a connection that is not, or where the storage has none.
        Raises `EventIdTaken` if an event's id is in use.
        """

    def add_ping(self, hook_id: int, event: Event, now: datetime) -> Delivery:
        """Store an event and one delivery of it to this hook, ahead of all that waits, and end its pause.

        Raises `NotFound` without the hook, `Conflict` if it is disabled.
        """

    # Deliveries

    def list_deliveries(self, query: DeliveryQuery) -> list[Delivery]:
        """The deliveries that fit, newest first, with their attempts but without bodies.

        Raises `NotFound` for a hook that never was; a deleted one has its history.
        """

    def get_delivery(self, delivery_id: int) -> Delivery:
        """The delivery with all of its attempts, bodies included. Raises `NotFound`."""

    def payload_version_of(self, hook_id: int) -> str:
        """The payload version of a hook, deleted or not. Raises `NotFound` for one that never was."""

    def redeliver(self, delivery_id: int, now: datetime) -> Delivery:
        """A new delivery of the same event to the same hook, at the end of its queue.

        Raises `NotFound` without the delivery or without its hook, `Conflict` while the delivery is not final
        or while its hook is disabled and drops.
        """

    def recover(self, hook_id: int, since: datetime, until: datetime, now: datetime) -> int:
        """Redeliver, by ascending id, the failed and discarded deliveries of the hook with
        `since <= created_at < until`: each event once, and not if a redelivery of it to this hook is
        ``enqueued``, ``retrying`` or ``delivered``. Returns how many were made.

        Raises as `redeliver` does for the hook.
        """

    def prune(self, before: datetime) -> int:
        """Delete final deliveries created before `before` with their attempts, the events that no delivery is
        left of, and idempotency keys stored before `before`. Returns how many deliveries were deleted.
        Works in small transactions, so that others are not held up.
        """

    def count_deliveries(self, hook_id: int | None, since: datetime) -> dict[DeliveryStatus, int]:
        """How many deliveries with `created_at >= since` are in each status; statuses without any are left out."""

    def count_in_buckets(
        self, hook_id: int | None, since: datetime, width: timedelta, number: int
    ) -> list[dict[DeliveryStatus, int]]:
        """The same for each of `number` spans of time, each `width` long, the first of which begins at `since`. The
        last has no end, so that all of them together are what `count_deliveries` counts.

        The time that it takes depends on how many deliveries were created since then, not on how many there are.
        """

    # Dispatch

    def turn(
        self,
        settlements: Sequence[Settlement],
        *,
        now: datetime,
        due_by: datetime,
        lease: timedelta,
        capacity: int,
        reading: ClockReading | None = None,
        wait: bool = True,
    ) -> Turn:
        """Settle what finished and claim up to `capacity` deliveries that are due by `due_by` (at most `now`),
        in one transaction. In this order: move what is stored if the clock was set; take the settlements whose fence
        holds; discard up to 1,000 waiting deliveries of dropped, flushed and deleted queues; return expired leases;
        claim.

        `reading` goes with `now`, and all settlements are in its terms; None is a clock that is not followed.

        Without `wait` it raises `StorageBusy` at once, and has done nothing, where it would have to wait for another
        writer or for another machine: whoever calls has something else to do meanwhile, and calls again from a thread
        that has not.
        """
