"""The conservation law: what must hold of a storage, a receiver's log and an emitter's log, whatever happened between.

1.  For each event whose emit returned, the deliveries are exactly the hooks that matched in that transaction, each
    once. An emit that raised or died left all or nothing.
2.  Once nothing is due, every delivery is delivered, failed or discarded; and no final state ever changes.
3.  Attempts are numbered 1..n without gaps; ``delivered`` means that exactly the last one is ``ok``. A delivery
    discarded before its first claim has no attempt, and a written reason.
4.  ``delivered`` means that the receiver got the body byte for byte, rightly signed. Duplicates never outnumber
    attempts whose outcome is ``unknown`` or that failed after sending. Without a fault: hits = attempts = 1.
7.  Of a hook with one delivery in flight, first arrivals at the receiver are in order of emission.

(5, no connection to a forbidden address, and 6, gaps by the monotonic clock, are for those who see connections and
clocks: the transport's tests and the simulator.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set

import attrs

from procore_hooks import Attempt, Delivery

FINAL = frozenset({"delivered", "failed", "discarded"})


@attrs.frozen
class Emitted:
    """An emit: which hooks matched. `is_sure` is False where it raised or its process died; `is_ordered` for a ping,
    which goes ahead of what waits.
    """

    event_id: int
    webhook_id: str
    hook_ids: frozenset[int]
    is_sure: bool = True
    is_ordered: bool = True


@attrs.frozen
class Hit:
    """A request that the receiver took in full, in the order of arrival."""

    hook_id: int
    webhook_id: str
    body: bytes = b""


@attrs.define
class Law:
    """Collects what is known, and says what is broken. An empty list is a good answer."""

    emitted: dict[int, Emitted] = attrs.field(factory=dict)
    final: dict[int, str] = attrs.field(factory=dict)

    def add(self, emitted: Emitted) -> None:
        """Note an emit."""
        self.emitted[emitted.event_id] = emitted

    def look(self, deliveries: Iterable[Delivery]) -> list[str]:
        """Note final states on the way, and say which of those noted before have changed."""
        broken = []
        for one in deliveries:
            before = self.final.get(one.id)
            if before is not None and one.status != before:
                broken.append(f"2: delivery {one.id} was {before} and is {one.status}")
            if one.status in FINAL:
                self.final[one.id] = one.status
        return broken

    def check(
        self,
        deliveries: Iterable[Delivery],
        hits: Iterable[Hit],
        *,
        waits: Callable[[Delivery], bool] = lambda delivery: False,
        in_order: frozenset[int] = frozenset(),
        is_faultless: bool = False,
        body_of: Callable[[Delivery], bytes] | None = None,
    ) -> list[str]:
        """Everything, once nothing is due.

        Args:
            waits: deliveries that may rightly still wait, such as those of a disabled hook.
            in_order: the hooks whose first arrivals must be in order.
            is_faultless: nothing went wrong, so every delivery took one attempt and one hit.
            body_of: the body that the receiver must have got.
        """
        listed = sorted(deliveries, key=lambda one: one.id)
        seen = list(hits)
        broken = self.look(listed)
        broken += self._check_fan_out(listed)
        per_key: dict[tuple[int, str], list[Hit]] = {}
        for hit in seen:
            per_key.setdefault((hit.hook_id, hit.webhook_id), []).append(hit)
        for one in listed:
            if one.status not in FINAL and not waits(one):
                broken.append(f"2: delivery {one.id} is {one.status} although nothing is due")
            broken += _check_attempts(one)
        broken += _check_hits(listed, per_key, is_faultless, body_of)
        unordered = {one.webhook_id for one in self.emitted.values() if not one.is_ordered}
        broken += _check_order(listed, seen, in_order, unordered)
        return broken

    def _check_fan_out(self, deliveries: list[Delivery]) -> list[str]:
        broken = []
        made: dict[int, list[int]] = {}
        for one in deliveries:
            if one.redelivery_of is None:
                made.setdefault(one.event.id, []).append(one.hook_id)
        for emitted in self.emitted.values():
            hooks = sorted(made.pop(emitted.event_id, []))
            if hooks != sorted(emitted.hook_ids) and (emitted.is_sure or hooks):
                broken.append(f"1: event {emitted.event_id} went to hooks {hooks}, not {sorted(emitted.hook_ids)}")
        broken += [f"1: event {event_id} was never emitted, and went to {hooks}" for event_id, hooks in made.items()]
        return broken


def _check_attempts(one: Delivery) -> list[str]:
    broken = []
    numbers = [attempt.number for attempt in one.attempts]
    if one.status in FINAL and numbers != list(range(1, one.attempt_count + 1)):
        broken.append(f"3: delivery {one.id} has attempts {numbers}, and counts {one.attempt_count}")
    ok = [attempt.number for attempt in one.attempts if attempt.outcome == "ok"]
    if (one.status == "delivered") != (ok == [one.attempt_count] and bool(ok)) or len(ok) > 1:
        broken.append(f"3: delivery {one.id} is {one.status} with ok attempts {ok} of {one.attempt_count}")
    if one.status in ("failed", "discarded") and not one.reason:
        broken.append(f"3: delivery {one.id} is {one.status} without a reason")
    return broken


def _may_have_arrived(attempt: Attempt) -> bool:
    return (
        attempt.outcome in ("ok", "unknown")
        or attempt.response_status is not None
        or any(words in (attempt.response_error or "") for words in ("answer", "connection was lost"))
    )


def _check_hits(
    deliveries: list[Delivery],
    per_key: Mapping[tuple[int, str], list[Hit]],
    is_faultless: bool,
    body_of: Callable[[Delivery], bytes] | None,
) -> list[str]:
    broken = []
    attempts: dict[tuple[int, str], list[Attempt]] = {}
    for one in deliveries:
        key = (one.hook_id, one.event.ulid)
        attempts.setdefault(key, []).extend(one.attempts)
        got = per_key.get(key, [])
        if one.status == "delivered" and not got:
            broken.append(f"4: delivery {one.id} is delivered, and never arrived")
        if one.status == "delivered" and body_of is not None and got and body_of(one) not in [hit.body for hit in got]:
            broken.append(f"4: delivery {one.id} arrived with another body")
        if is_faultless and (one.attempt_count != 1 or len(got) != 1):
            broken.append(f"4: delivery {one.id} took {one.attempt_count} attempts and {len(got)} hits without a fault")
    for key, got in per_key.items():
        tried = attempts.get(key)
        if tried is None:
            broken.append(f"4: {key} arrived, and is no delivery")
        elif len(got) > sum(map(_may_have_arrived, tried)):
            broken.append(f"4: {key} arrived {len(got)} times in {len(tried)} attempts")
    return broken


def _check_order(
    deliveries: list[Delivery], hits: list[Hit], in_order: frozenset[int], unordered: Set[str]
) -> list[str]:
    # What was delivered again may have arrived then for the first time.
    again = {(one.hook_id, one.event.ulid) for one in deliveries if one.redelivery_of is not None}
    keys = ((one.id, (one.hook_id, one.event.ulid)) for one in deliveries if one.event.ulid not in unordered)
    first = {key: delivery_id for delivery_id, key in keys if key not in again}
    broken = []
    newest: dict[int, int] = {}
    arrived: set[tuple[int, str]] = set()
    for hit in hits:
        key = (hit.hook_id, hit.webhook_id)
        if hit.hook_id not in in_order or key in arrived or key not in first:
            continue
        arrived.add(key)
        if first[key] < newest.get(hit.hook_id, 0):
            broken.append(f"7: hook {hit.hook_id} first got delivery {first[key]} after {newest[hit.hook_id]}")
        newest[hit.hook_id] = max(first[key], newest.get(hit.hook_id, 0))
    return broken
