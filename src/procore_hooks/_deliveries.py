"""`registry.deliveries`: the history, and what can be done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs

from ._core.checks import (
    check_action,
    check_bucket,
    check_id,
    check_moment,
    check_page_size,
    check_resource,
    check_row_id,
    check_statuses,
    check_switch,
)
from ._core.cursors import after_cursor, page_of
from ._core.models import Delivery, DeliveryBucket, DeliveryStats, DeliveryStatus, Page
from ._core.payloads import BUILT_IN, render
from .exceptions import InvalidInput
from .storage._base import DeliveryQuery

if TYPE_CHECKING:
    from ._registry import HookRegistry

__all__ = ["Deliveries"]

_FAILURES: frozenset[DeliveryStatus] = frozenset({"retrying", "failed", "discarded"})
_ITERATED_AT_ONCE = 100


class Deliveries:
    """The deliveries of a registry."""

    def __init__(self, registry: HookRegistry) -> None:
        self._registry = registry
        self._storage = registry.storage

    def list(
        self,
        hook_id: int | None = None,
        *,
        status: DeliveryStatus | Iterable[DeliveryStatus] | None = None,
        only_failures: bool = False,
        resource: str | None = None,
        action: str | None = None,
        resource_id: int | str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        page_size: int = 25,
        cursor: str | None = None,
    ) -> Page[Delivery]:
        """The deliveries that fit, newest first, with their attempts but without bodies (`get` has them).

        Pages are stable while new deliveries arrive, and the last is as fast as the first.

        Args:
            hook_id: only this hook's; a deleted hook has its history.
            status: one status, or several.
            only_failures: only ``retrying``, ``failed`` and ``discarded`` ones.
            resource, action, resource_id: only of events with exactly this.
            start, end: only those with ``start <= created_at < end``; aware datetimes.
            page_size: 1 to 1000.
            cursor: `next_cursor` of the page before.

        Raises:
            NotFound: there never was such a hook.
            InvalidInput: a value is wrong.
        """
        size = check_page_size(page_size)
        statuses = check_statuses(status)
        if check_switch("only_failures", only_failures):
            wanted = statuses & _FAILURES if statuses else _FAILURES
        else:
            wanted = statuses
        query = DeliveryQuery(
            hook_id=None if hook_id is None else check_row_id("hook", hook_id),
            statuses=wanted,
            resource=None if resource is None else check_resource(resource),
            action=None if action is None else check_action(action),
            resource_id=check_id("resource_id", resource_id),
            start=None if start is None else check_moment("start", start),
            end=None if end is None else check_moment("end", end),
            before=after_cursor("deliveries", cursor),
            limit=size + 1,
        )
        if statuses and not wanted:
            if query.hook_id is not None:
                self._storage.payload_version_of(query.hook_id)
            return Page(())
        return page_of("deliveries", self._storage.list_deliveries(query), size)

    def iter(self, hook_id: int | None = None, **filters: Any) -> Iterator[Delivery]:
        """All deliveries that fit, newest first, page after page. The filters are those of `list`."""
        for page in self.pages(hook_id, **filters):
            yield from page

    def pages(self, hook_id: int | None = None, **filters: Any) -> Iterator[Page[Delivery]]:
        """The pages of `iter`."""
        filters.setdefault("page_size", _ITERATED_AT_ONCE)
        cursor = filters.pop("cursor", None)
        while True:
            page = self.list(hook_id, cursor=cursor, **filters)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def get(self, delivery_id: int) -> Delivery:
        """The delivery with all of its attempts, request and response bodies included. Raises `NotFound`."""
        delivery = self._storage.get_delivery(check_row_id("delivery", delivery_id))
        if all(attempt.request_body for attempt in delivery.attempts):
            return delivery
        version = self._storage.payload_version_of(delivery.hook_id)
        if version not in BUILT_IN:
            return delivery  # an app's own format is stored; where it raised there was no body
        # Bodies in a built-in format follow from the event to the byte, and are not stored again for each attempt.
        body = render(version, delivery.event, {})
        attempts = [a if a.request_body else attrs.evolve(a, request_body=body) for a in delivery.attempts]
        return attrs.evolve(delivery, attempts=tuple(attempts))

    def redeliver(self, delivery_id: int) -> Delivery:
        """Deliver the same event again: a new delivery, with the same ``webhook-id``, at the end of the hook's queue.

        Raises:
            NotFound: there is no such delivery, or its hook was deleted.
            Conflict: the delivery is not final yet, or its hook is disabled and drops events.
        """
        return self._storage.redeliver(check_row_id("delivery", delivery_id), self._registry.clock.now())

    def recover(self, hook_id: int, *, since: datetime, until: datetime | None = None) -> int:
        """Redeliver what failed or was discarded, once the endpoint is well again.

        Args:
            since, until: ``since <= created_at < until``; until None is now.

        Returns:
            How many deliveries were made: one for each event that no later redelivery covers.

        Raises:
            NotFound: there is no such hook.
            Conflict: the hook is disabled and drops events.
        """
        now = self._registry.clock.now()
        start = check_moment("since", since)
        # "Until now" takes in what was made at this very moment.
        end = _just_after(now) if until is None else check_moment("until", until)
        if end < start:
            late = f"{start.isoformat()} is after until, {end.isoformat()}, which is now if left out"
            raise InvalidInput("since", f"{late}: use an earlier moment")
        return self._storage.recover(check_row_id("hook", hook_id), start, end, now)

    def prune(self, *, before: datetime) -> int:
        """Delete final deliveries created before a moment, with what only they needed, and old idempotency keys.

        Nothing is ever pruned by itself. (Procore keeps 28 days.)

        Returns:
            How many deliveries were deleted.
        """
        return self._storage.prune(check_moment("before", before))

    def stats(self, hook_id: int | None = None, *, since: datetime, bucket: timedelta | None = None) -> DeliveryStats:
        """How many deliveries, created at or after `since`, are in each status now.

        Args:
            hook_id: only this hook's; a deleted hook has its history.
            bucket: count each span of this length by itself too. The first span begins at `since`, the last is the
                one that holds the present moment, and also takes what was created later, by a clock that was set
                back since then. At most 5,000 spans.

        Raises:
            NotFound: there never was such a hook.
            InvalidInput: a value is wrong, or there would be too many spans.
        """
        start = check_moment("since", since)
        number = 0 if bucket is None else check_bucket(bucket, start, self._registry.clock.now())
        checked = None if hook_id is None else check_row_id("hook", hook_id)
        if checked is not None:
            self._storage.payload_version_of(checked)
        buckets: tuple[DeliveryBucket, ...] = ()
        if bucket is None:
            total = Counter(self._storage.count_deliveries(checked, start))
        else:
            counts = self._storage.count_in_buckets(checked, start, bucket, number)
            buckets = tuple(DeliveryBucket(start=start + n * bucket, **one) for n, one in enumerate(counts))
            total = sum(map(Counter, counts), Counter())
        return DeliveryStats(
            since=start,
            enqueued=total["enqueued"],
            retrying=total["retrying"],
            delivered=total["delivered"],
            failed=total["failed"],
            discarded=total["discarded"],
            buckets=buckets,
        )


def _just_after(moment: datetime) -> datetime:
    return moment + datetime.resolution
