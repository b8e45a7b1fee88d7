"""A storage that keeps everything in the memory of one process, and loses it with the process.

One lock makes each call atomic; what is due is found in heaps (`_memory_queue`), so a turn costs the same whatever
waits. Subscribers are called after the lock is released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count, islice
from threading import Lock

import attrs

from .._core.models import Delivery, DeliveryStatus, Emission, Event, Hook, Trigger
from .._core.states import FINAL
from ..exceptions import Conflict, IdempotencyConflict, InvalidInput, StorageError
from ._base import (
    DROPPED,
    Changes,
    ClockReading,
    DeliveryQuery,
    EmitRequest,
    EventIdTaken,
    HookQuery,
    Settlement,
    Turn,
    Wanted,
    changes_for,
    wanted_of,
)
from ._memory_history import History, view
from ._memory_hooks import Directory
from ._memory_queue import DeliveryRow, HookQueue
from ._memory_turn import Dispatch

__all__ = ["MemoryStorage"]

_PRUNED_AT_ONCE = 1000


class MemoryStorage:
    """A storage without a file, for tests and for apps that can afford to lose what waits. See `Storage`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._closed = False
        self._wakes: dict[int, Callable[[], None]] = {}
        self._wake_ids = count(1)
        self._forget_everything()

    def _forget_everything(self) -> None:
        self._directory = Directory()
        self._history = History()
        self._dispatch = Dispatch(self._directory, self._history)

    def close(self) -> None:
        """Forget everything. Calling it again does nothing; any other call afterwards raises `StorageError`."""
        with self._lock:
            self._closed = True
            self._wakes.clear()
            self._forget_everything()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after each change that may have made a hook ready. Returns what ends the subscription."""
        with self._locked():
            number = next(self._wake_ids)
            self._wakes[number] = wake

        def unsubscribe() -> None:
            with self._lock:
                self._wakes.pop(number, None)

        return unsubscribe

    # Hooks

    def add_hook(self, hook: Hook) -> Hook:
        """Store a new hook and return it with its id."""
        with self._locked():
            return self._directory.add(hook)

    def get_hook(self, hook_id: int) -> Hook:
        """The hook. Raises `NotFound`."""
        with self._locked():
            return self._directory.get(hook_id).hook

    def list_hooks(self, query: HookQuery) -> list[Hook]:
        """The hooks that fit, by id."""
        with self._locked():
            return self._directory.select(query)

    def update_hook(self, hook_id: int, changes: Changes, now: datetime) -> Hook:
        """Set the named fields of the hook, and `updated_at`. Raises `NotFound`."""
        with self._locked():
            queue = self._directory.get(hook_id)
            self._directory.update(queue, {**changes_for(changes, queue.hook), "updated_at": now})
            self._dispatch.place(queue)
            hook = queue.hook
        self._wake()
        return hook

    def enable_hook(self, hook_id: int, now: datetime) -> Hook:
        """Make the hook active and forget its failures and its pause. Raises `NotFound`."""
        with self._locked():
            queue = self._directory.get(hook_id)
            queue.hook = attrs.evolve(
                queue.hook, status="active", failing_since=None, paused_until=None, updated_at=now
            )
            queue.failures = 0
            queue.epoch += 1
            queue.forget_due_moments()
            self._dispatch.place(queue)
            hook = queue.hook
        self._wake()
        return hook

    def disable_hook(self, hook_id: int, now: datetime, drop_reason: str | None) -> Hook:
        """Make the hook disabled; with `drop_reason`, discard what waits. Raises `NotFound`."""
        with self._locked():
            queue = self._directory.get(hook_id)
            queue.hook = attrs.evolve(queue.hook, status="disabled", updated_at=now)
            queue.epoch += 1
            if drop_reason is not None:
                self._dispatch.discard_waiting(queue, drop_reason, now)
            self._dispatch.place(queue)
            return queue.hook

    def delete_hook(self, hook_id: int, now: datetime, reason: str) -> None:
        """Delete the hook and its triggers, discard what waits, keep the history. Raises `NotFound`."""
        with self._locked():
            queue = self._directory.get(hook_id)
            self._dispatch.discard_waiting(queue, reason, now)
            self._dispatch.forget(queue)
            self._directory.delete(queue)

    # Triggers

    def add_trigger(self, hook_id: int, resource: str, action: str) -> Trigger:
        """Store a trigger. Raises `NotFound` and `DuplicateTrigger`."""
        with self._locked():
            return self._directory.add_trigger(self._directory.get(hook_id), resource, action)

    def list_triggers(self, hook_id: int, after: int, limit: int) -> list[Trigger]:
        """The hook's triggers with an id above `after`, by id. Raises `NotFound`."""
        with self._locked():
            triggers = _by_id(self._directory.get(hook_id))
        return list(islice((trigger for trigger in triggers if trigger.id > after), limit))

    def delete_trigger(self, trigger_id: int) -> None:
        """Delete the trigger. Raises `NotFound`."""
        with self._locked():
            self._directory.delete_trigger(trigger_id)

    def replace_triggers(self, hook_id: int, wanted: Wanted) -> list[Trigger]:
        """Make `wanted` the hook's triggers; those it has keep their ids. Raises `NotFound`."""
        with self._locked():
            queue = self._directory.get(hook_id)
            self._directory.replace_triggers(queue, wanted_of(wanted, _by_id(queue)))
            return _by_id(queue)

    # Events

    def emit(self, requests: Sequence[EmitRequest], now: datetime, connection: object | None) -> list[Emission]:
        """Store events and their deliveries, all or none.

        Raises `InvalidInput` for a connection, `IdempotencyConflict` and `EventIdTaken`.
        """
        with self._locked():
            if connection is not None:
                raise InvalidInput(
                    "connection",
                    f"a {type(connection).__name__} was given, and the in-memory storage has no transactions to join: "
                    "leave it out, or use SQLiteStorage or PostgreSQLStorage",
                )
            matches = self._checked_matches(requests)
            emissions = [self._store(request, queues, now) for request, queues in zip(requests, matches, strict=True)]
        if any(matches):
            self._wake()
        return emissions

    def _checked_matches(self, requests: Sequence[EmitRequest]) -> list[Sequence[HookQueue]]:
        """The queues that each request goes to. Whatever can be refused is refused here, before anything is stored."""
        fingerprints: dict[str, bytes] = {}
        event_ids: set[int] = set()
        matches: list[Sequence[HookQueue]] = []
        for request in requests:
            key, event = request.idempotency_key, request.event
            seen = None if key is None else fingerprints.get(key, self._history.fingerprint(key))
            if seen is not None:
                if seen != request.fingerprint:
                    raise IdempotencyConflict(
                        f"idempotency_key: {key!r} was used before for other content: use a new key for new content"
                    )
                matches.append(())
                continue
            queues = self._directory.wanting(event)
            if key is not None:
                fingerprints[key] = request.fingerprint
            if queues or key is not None:
                if event.id in event_ids or self._history.has_event(event.id):
                    raise EventIdTaken(event.id)
                event_ids.add(event.id)
            matches.append(queues)
        return matches

    def _store(self, request: EmitRequest, queues: Sequence[HookQueue], now: datetime) -> Emission:
        key = request.idempotency_key
        first = None if key is None else self._history.emission(key)
        if first is not None:
            return first
        emission = Emission(request.event, tuple(self._send(request.event, queue, now).id for queue in queues))
        if key is not None:
            self._history.keep_key(key, emission, request.fingerprint, now)
        return emission

    def _send(self, event: Event, queue: HookQueue, now: datetime, redelivery_of: int | None = None) -> DeliveryRow:
        row = self._history.add(event, queue.hook.id, now, redelivery_of=redelivery_of)
        if _drops(queue):
            row.finish("discarded", DROPPED, now)
        else:
            queue.append(row)
            self._dispatch.place(queue)
        return row

    def add_ping(self, hook_id: int, event: Event, now: datetime) -> Delivery:
        """Store an event and one delivery of it, ahead of all that waits. Raises `NotFound` and `Conflict`."""
        with self._locked():
            queue = self._directory.get(hook_id)
            if queue.hook.status == "disabled":
                raise Conflict(f"hook {hook_id} is disabled: enable it, then ping it")
            if self._history.has_event(event.id):
                raise EventIdTaken(event.id)
            queue.hook = attrs.evolve(queue.hook, paused_until=None)
            row = self._history.add(event, hook_id, now)
            queue.push_ahead(row)
            self._dispatch.place(queue)
            ping = view(row, queue.hook, bodies=True)
        self._wake()
        return ping

    # Deliveries

    def list_deliveries(self, query: DeliveryQuery) -> list[Delivery]:
        """The deliveries that fit, newest first, without bodies. Raises `NotFound` for a hook that never was."""
        with self._locked():
            if query.hook_id is not None:
                self._directory.payload_version_of(query.hook_id)
            return [self._view(row, bodies=False) for row in self._history.select(query)]

    def get_delivery(self, delivery_id: int) -> Delivery:
        """The delivery with all of its attempts, bodies included. Raises `NotFound`."""
        with self._locked():
            return self._view(self._history.get(delivery_id), bodies=True)

    def _view(self, row: DeliveryRow, *, bodies: bool) -> Delivery:
        queue = self._directory.find(row.hook_id)
        return view(row, None if queue is None else queue.hook, bodies=bodies)

    def payload_version_of(self, hook_id: int) -> str:
        """The payload version of a hook, deleted or not. Raises `NotFound`."""
        with self._locked():
            return self._directory.payload_version_of(hook_id)

    def redeliver(self, delivery_id: int, now: datetime) -> Delivery:
        """A new delivery of the same event to the same hook. Raises `NotFound` and `Conflict`."""
        with self._locked():
            old = self._history.get(delivery_id)
            queue = self._receiving(old.hook_id)
            if old.status not in FINAL:
                raise Conflict(
                    f"delivery {delivery_id} is {old.status}: wait until it is delivered, failed or discarded"
                )
            delivery = self._view(self._send(old.event, queue, now, old.id), bodies=True)
        self._wake()
        return delivery

    def recover(self, hook_id: int, since: datetime, until: datetime, now: datetime) -> int:
        """Redeliver what failed or was discarded in [since, until). Raises `NotFound` and `Conflict`."""
        with self._locked():
            queue = self._receiving(hook_id)
            lost = self._history.recoverable(hook_id, since, until)
            for old in lost:
                self._send(old.event, queue, now, old.id)
        if lost:
            self._wake()
        return len(lost)

    def _receiving(self, hook_id: int) -> HookQueue:
        queue = self._directory.get(hook_id)
        if _drops(queue):
            raise Conflict(f"hook {hook_id} is disabled and drops events: enable it first")
        return queue

    def prune(self, before: datetime) -> int:
        """Delete final deliveries created before `before`, and idempotency keys as old. Returns how many deliveries."""
        with self._locked():
            ids = self._history.ids()
        pruned = 0
        for start in range(0, len(ids), _PRUNED_AT_ONCE):
            with self._locked():
                pruned += sum(
                    self._history.prune_row(row_id, before) for row_id in ids[start : start + _PRUNED_AT_ONCE]
                )
        with self._locked():
            self._history.prune_keys(before)
        return pruned

    def count_deliveries(self, hook_id: int | None, since: datetime) -> dict[DeliveryStatus, int]:
        """How many deliveries created since then are in each status."""
        with self._locked():
            return self._history.tally(hook_id, since)

    def count_in_buckets(
        self, hook_id: int | None, since: datetime, width: timedelta, number: int
    ) -> list[dict[DeliveryStatus, int]]:
        """How many deliveries created in each of so many spans of time are in each status."""
        with self._locked():
            return self._history.tally_buckets(hook_id, since, width, number)

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
        """See `Storage.turn`. Nobody keeps the lock for long, so `wait` makes no difference."""
        with self._locked():
            if reading is not None:
                self._dispatch.follow_clock(reading)
            settled, late, flushed = self._dispatch.settle(settlements, now)
            expired, dropped = self._dispatch.expire(now)
            claims = self._dispatch.claim(now, due_by, lease, capacity)
            next_due_at = self._dispatch.next_due_at(due_by)
        if (settled or expired) and next_due_at is not None and next_due_at <= now:
            self._wake()
        return Turn(
            settled=tuple(settled),
            late=tuple(late),
            discarded=flushed + dropped,
            expired=expired,
            claims=tuple(claims),
            next_due_at=next_due_at,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise StorageError("the in-memory storage is closed, and what it held is gone: make a new one")
            yield

    def _wake(self) -> None:
        """Call the subscribers; the lock is not held, so that they may come back with calls."""
        with self._lock:
            wakes = tuple(self._wakes.values())
        for wake in wakes:
            wake()


def _drops(queue: HookQueue) -> bool:
    return queue.hook.status == "disabled" and queue.hook.when_disabled == "drop"


def _by_id(queue: HookQueue) -> list[Trigger]:
    return sorted(queue.triggers.values(), key=lambda trigger: trigger.id)
