"""The events, deliveries and idempotency keys of `MemoryStorage`.

Rows lie in dicts in the order of their ids, so that a list, newest first, is a walk from the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count, islice

import attrs

from .._core.models import Attempt, Delivery, DeliveryStatus, Emission, Event, Hook
from .._core.states import FINAL
from ..exceptions import NotFound
from ._base import DeliveryQuery
from ._memory_queue import DeliveryRow

__all__ = ["History", "view"]

_COVERING: frozenset[DeliveryStatus] = frozenset({"enqueued", "retrying", "delivered"})


@attrs.define
class _EventUse:
    """What keeps an event: how many deliveries it has, and whether an idempotency key gives it again."""

    deliveries: int = 0
    keyed: bool = False


@attrs.frozen
class _Key:
    emission: Emission
    fingerprint: bytes
    stored_at: datetime


class History:
    """All that was emitted and what became of it."""

    def __init__(self) -> None:
        self._rows: dict[int, DeliveryRow] = {}
        self._of_hook: dict[int, dict[int, DeliveryRow]] = {}
        self._uses: dict[int, _EventUse] = {}
        self._keys: dict[str, _Key] = {}
        self._ids = count(1)

    def has_event(self, event_id: int) -> bool:
        """Whether an event with this id is kept."""
        return event_id in self._uses

    def add(self, event: Event, hook_id: int, now: datetime, *, redelivery_of: int | None = None) -> DeliveryRow:
        """Keep a new delivery, and its event with it."""
        row = DeliveryRow(id=next(self._ids), hook_id=hook_id, event=event, created_at=now, redelivery_of=redelivery_of)
        self._rows[row.id] = row
        self._of_hook.setdefault(hook_id, {})[row.id] = row
        self._uses.setdefault(event.id, _EventUse()).deliveries += 1
        return row

    def fingerprint(self, key: str) -> bytes | None:
        """The fingerprint that came with an idempotency key; None for a key that is new."""
        stored = self._keys.get(key)
        return None if stored is None else stored.fingerprint

    def emission(self, key: str) -> Emission | None:
        """What the first emit with this key gave; None for a key that is new."""
        stored = self._keys.get(key)
        return None if stored is None else stored.emission

    def keep_key(self, key: str, emission: Emission, fingerprint: bytes, now: datetime) -> None:
        """Remember an emission, and its event, by its idempotency key."""
        self._keys[key] = _Key(emission, fingerprint, now)
        self._uses.setdefault(emission.event.id, _EventUse()).keyed = True

    def get(self, delivery_id: int) -> DeliveryRow:
        """The delivery. Raises `NotFound`."""
        row = self._rows.get(delivery_id)
        if row is None:
            raise NotFound("delivery", delivery_id)
        return row

    def find(self, delivery_id: int) -> DeliveryRow | None:
        """The delivery; None if it never was or was pruned."""
        return self._rows.get(delivery_id)

    def select(self, query: DeliveryQuery) -> list[DeliveryRow]:
        """The deliveries that fit, newest first."""
        rows = self._rows if query.hook_id is None else self._of_hook.get(query.hook_id, {})
        return list(islice((row for row in reversed(rows.values()) if _fits(row, query)), query.limit))

    def tally(self, hook_id: int | None, since: datetime) -> dict[DeliveryStatus, int]:
        """How many deliveries created since then are in each status."""
        rows = self._rows if hook_id is None else self._of_hook.get(hook_id, {})
        return dict(Counter(row.status for row in rows.values() if row.created_at >= since))

    def tally_buckets(
        self, hook_id: int | None, since: datetime, width: timedelta, number: int
    ) -> list[dict[DeliveryStatus, int]]:
        """How many deliveries created in each span of time since then are in each status."""
        rows = self._rows if hook_id is None else self._of_hook.get(hook_id, {})
        tallies: list[Counter[DeliveryStatus]] = [Counter() for _ in range(number)]
        for row in rows.values():
            if row.created_at >= since:
                tallies[min((row.created_at - since) // width, number - 1)][row.status] += 1
        return [dict(tally) for tally in tallies]

    def recoverable(self, hook_id: int, since: datetime, until: datetime) -> list[DeliveryRow]:
        """Of each event that `recover` sends again, its first delivery in the range, by ascending id."""
        rows = self._of_hook.get(hook_id, {}).values()
        done = {row.event.id for row in rows if row.redelivery_of is not None and row.status in _COVERING}
        chosen: list[DeliveryRow] = []
        for row in rows:
            lost = row.status in ("failed", "discarded") and since <= row.created_at < until
            if lost and row.event.id not in done:
                done.add(row.event.id)
                chosen.append(row)
        return chosen

    def ids(self) -> list[int]:
        """The ids of all deliveries, for a walk in steps."""
        return list(self._rows)

    def prune_row(self, delivery_id: int, before: datetime) -> bool:
        """Forget the delivery if it is final and older; its event, if nothing else keeps that."""
        row = self._rows.get(delivery_id)
        if row is None or row.status not in FINAL or row.created_at >= before:
            return False
        del self._rows[row.id]
        del self._of_hook[row.hook_id][row.id]
        self._uses[row.event.id].deliveries -= 1
        self._drop_unused(row.event.id)
        return True

    def prune_keys(self, before: datetime) -> None:
        """Forget idempotency keys that were stored before then, and events that only they kept."""
        for key, stored in [(key, stored) for key, stored in self._keys.items() if stored.stored_at < before]:
            del self._keys[key]
            self._uses[stored.emission.event.id].keyed = False
            self._drop_unused(stored.emission.event.id)

    def _drop_unused(self, event_id: int) -> None:
        use = self._uses[event_id]
        if not use.deliveries and not use.keyed:
            del self._uses[event_id]


def view(row: DeliveryRow, hook: Hook | None, *, bodies: bool) -> Delivery:
    """The delivery as apps see it; `hook` is None if it is deleted."""
    return Delivery(
        id=row.id,
        hook_id=row.hook_id,
        event=row.event,
        status=row.status,
        attempts=tuple(row.attempts if bodies else _without_bodies(row.attempts)),
        attempt_count=row.attempt_count,
        next_attempt_at=_next_attempt_at(row, hook),
        created_at=row.created_at,
        completed_at=row.completed_at,
        redelivery_of=row.redelivery_of,
        reason=row.reason,
    )


def _without_bodies(attempts: list[Attempt]) -> Iterator[Attempt]:
    for attempt in attempts:
        has_bodies = attempt.request_body or attempt.response_body
        yield attrs.evolve(attempt, request_body=b"", response_body=b"") if has_bodies else attempt


def _next_attempt_at(row: DeliveryRow, hook: Hook | None) -> datetime | None:
    if row.status in FINAL or row.lease is not None or hook is None or hook.status == "disabled":
        return None
    moment = row.due_at or row.created_at
    return moment if hook.paused_until is None else max(moment, hook.paused_until)


def _fits(row: DeliveryRow, query: DeliveryQuery) -> bool:
    return (
        (query.before is None or row.id < query.before)
        and (not query.statuses or row.status in query.statuses)
        and query.resource in (None, row.event.resource)
        and query.action in (None, row.event.action)
        and query.resource_id in (None, row.event.resource_id)
        and (query.start is None or query.start <= row.created_at)
        and (query.end is None or row.created_at < query.end)
    )
