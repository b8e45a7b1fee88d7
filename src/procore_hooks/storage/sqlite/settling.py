"""Settling: what becomes of deliveries whose attempt is over, and of those whose lease ran out."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from ..._core.claims import Settled, Settlement
from ..._core.models import Attempt, masked_url
from .._base import LEFT_OPEN
from .ending import EndedAttempts, RequestKey
from .ready import ready
from .rows import moment, stamp_or_none
from .sweeping import drop_waiting

__all__ = ["Settling"]

_EXPIRED_AT_ONCE: Final = 1000
_EVERYTHING: Final = sys.maxsize

# Two lists of numbers and not one of pairs: the garbage collector has to look at each list that there is.
_OPEN: Final = """
SELECT json_group_array(d.id), json_group_array(d.attempt_count)
FROM json_each(?) j CROSS JOIN procore_hooks_deliveries d ON d.id = j.value
WHERE d.lease_until IS NOT NULL
"""
_QUEUES: Final = """
SELECT json_group_array(json_array(q.hook_id, q.epoch, q.dropped_through, q.drop_reason))
FROM json_each(?) j CROSS JOIN procore_hooks_queues q ON q.hook_id = j.value
"""
_EXPIRED: Final = """
SELECT json_group_array(json_array(d.id, d.hook_id, d.attempt_count, d.claimed_at, h.destination_url,
    d.id <= q.dropped_through, q.drop_reason))
FROM (SELECT id FROM procore_hooks_deliveries WHERE lease_until IS NOT NULL AND lease_until <= ? LIMIT ?) x
    CROSS JOIN procore_hooks_deliveries d ON d.id = x.id
    CROSS JOIN procore_hooks_queues q ON q.hook_id = d.hook_id
    CROSS JOIN procore_hooks_hooks h ON h.id = d.hook_id
"""
_CHANGE: Final = f"""
UPDATE procore_hooks_queues SET failures = j.failures, failing_since = j.failing_since, paused_until = j.paused_until,
    enabled = CASE WHEN NOT j.disabled THEN enabled
        WHEN (SELECT when_disabled FROM procore_hooks_hooks h WHERE h.id = j.hook_id) = 'drop' THEN -1 ELSE 0 END,
    epoch = epoch + 1,
    ready_at = {ready(failures="j.failures", paused_until="j.paused_until", enabled="iif(j.disabled, 0, enabled)")}
FROM (SELECT value ->> 0 AS hook_id, value ->> 1 AS failures, value ->> 2 AS failing_since, value ->> 3 AS paused_until,
    value ->> 4 AS disabled FROM json_each(:changes)) AS j
WHERE procore_hooks_queues.hook_id = j.hook_id
"""
_DISABLE: Final = """
UPDATE procore_hooks_hooks SET status = 'disabled', updated_at = :now
WHERE id IN (SELECT value FROM json_each(:hooks)) AND deleted_at IS NULL
"""


class Settling:
    """Settles attempts in one transaction.

    `request_ids` says which URLs and headers are stored already. What this transaction stores of them is in `stored`,
    which is worth remembering once it is committed, and not before. `has_dropped` says whether a queue was flushed,
    and is to be swept.
    """

    def __init__(self, request_ids: Mapping[RequestKey, int]) -> None:
        self._request_ids = request_ids
        self.stored: dict[RequestKey, int] = {}
        self.has_dropped = False

    def settle(
        self, cursor: sqlite3.Cursor, settlements: Sequence[Settlement], now: int, due: int
    ) -> tuple[list[Settled], list[Settlement]]:
        if not settlements:
            return [], []
        numbers = _open(cursor, settlements)
        epochs, dropped = _queues(cursor, settlements)
        ended = self._ended(cursor)
        settled: list[Settled] = []
        late: list[Settlement] = []
        for settlement in settlements:
            claim, change = settlement.claim, settlement.hook_change
            if numbers.get(claim.delivery_id) != claim.number:
                late.append(settlement)
                continue
            # Should the same attempt come twice, the second comes late.
            del numbers[claim.delivery_id]
            hook_id = claim.hook.id
            # Of several settlements of a hook, each sees what those before it did.
            status, reason = settlement.status, settlement.reason
            drop_reason = _drop_reason(dropped, hook_id, claim.delivery_id) if status == "retrying" else None
            if drop_reason is not None:
                status, reason = "discarded", drop_reason
            changed = change is not None and epochs.get(hook_id) == claim.epoch
            if change is not None and changed:
                epochs[hook_id] += 1
                if change.flush_reason is not None:
                    dropped[hook_id] = _EVERYTHING, change.flush_reason
                    self.has_dropped = True
            if status == "retrying":
                due_at = stamp_or_none(settlement.due_at) or 0
                ended.add_retrying(claim.delivery_id, hook_id, settlement.attempt, due_at)
            else:
                ended.add_final(claim.delivery_id, hook_id, settlement.attempt, status, now, reason)
            settled.append(Settled(settlement=settlement, status=status, changed=changed))
        ended.store(due)
        _change_queues(cursor, settled, now, due)
        return settled, late

    def return_expired(self, cursor: sqlite3.Cursor, now: int, due: int) -> tuple[int, int]:
        """Returns how many leases had run out, and how many of their deliveries were discarded."""
        rows = json.loads(cursor.execute(_EXPIRED, (now, _EXPIRED_AT_ONCE)).fetchone()[0])
        ended = self._ended(cursor)
        discarded = 0
        for delivery_id, hook_id, number, claimed_at, url, dropped, drop_reason in rows:
            attempt = Attempt(
                number=number,
                outcome="unknown",
                request_url=masked_url(url),
                response_error=LEFT_OPEN,
                started_at=moment(claimed_at),
            )
            if dropped:
                ended.add_final(delivery_id, hook_id, attempt, "discarded", now, drop_reason)
                discarded += 1
            else:
                ended.add_retrying(delivery_id, hook_id, attempt, 0)
        ended.store(due)
        return len(rows), discarded

    def _ended(self, cursor: sqlite3.Cursor) -> EndedAttempts:
        return EndedAttempts(cursor, self._request_ids, self.stored)


def _open(cursor: sqlite3.Cursor, settlements: Sequence[Settlement]) -> dict[int, int]:
    """By delivery, of those whose attempt is open: its number."""
    ids = json.dumps([one.claim.delivery_id for one in settlements])
    open_ids, numbers = cursor.execute(_OPEN, (ids,)).fetchone()
    return dict(zip(json.loads(open_ids), json.loads(numbers), strict=True))


def _queues(
    cursor: sqlite3.Cursor, settlements: Sequence[Settlement]
) -> tuple[dict[int, int], dict[int, tuple[int, str]]]:
    """By hook, of those that it matters for: the epoch of the queue; and up to which id what returns to it is dropped,
    and why.
    """
    hooks = {one.claim.hook.id for one in settlements if one.hook_change is not None or one.status == "retrying"}
    rows = json.loads(cursor.execute(_QUEUES, (json.dumps([*hooks]),)).fetchone()[0]) if hooks else []
    return {row[0]: row[1] for row in rows}, {row[0]: (row[2], row[3]) for row in rows}


def _drop_reason(dropped: Mapping[int, tuple[int, str]], hook_id: int, delivery_id: int) -> str | None:
    through, reason = dropped.get(hook_id, (0, None))
    return reason if delivery_id <= through else None


def _change_queues(cursor: sqlite3.Cursor, settled: Sequence[Settled], now: int, due: int) -> None:
    changes = [
        (one.settlement.claim.hook.id, one.settlement.hook_change)
        for one in settled
        if one.changed and one.settlement.hook_change is not None
    ]
    if not changes:
        return
    rows = [
        [hook_id, c.failures, stamp_or_none(c.failing_since), stamp_or_none(c.paused_until), int(c.disable)]
        for hook_id, c in changes
    ]
    cursor.execute(_CHANGE, {"changes": json.dumps(rows), "due": due})
    disabled = [hook_id for hook_id, change in changes if change.disable]
    if disabled:
        cursor.execute(_DISABLE, {"hooks": json.dumps(disabled), "now": now})
    for hook_id, change in changes:
        if change.flush_reason is not None:
            drop_waiting(cursor, hook_id, change.flush_reason)
