"""Settling: what becomes of deliveries whose attempt is over, and of those whose lease ran out."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from ..._core.claims import Settled, Settlement
from ..._core.models import Attempt, masked_url
from .._base import LEFT_OPEN
from .ready import ready
from .rows import STATES, HeaderItems, attempt_row, compact_json, moment, split_headers, stamp_or_none
from .sweeping import drop_waiting

__all__ = ["RequestKey", "Settling"]

# A URL, and headers as they are stored.
RequestKey = tuple[str, HeaderItems]

_RETRYING, _DISCARDED = 1, 4
_EXPIRED_AT_ONCE: Final = 1000
_WORTH_A_STATEMENT: Final = 4
_COLUMNS: Final = 11  # of the attempts table
_ROW: Final = f"({', '.join('?' * _COLUMNS)})"
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
# What nearly all of them become is one and the same: with that as parameters it takes little more than half the time.
_END_ALIKE: Final = """
UPDATE procore_hooks_deliveries SET state = :state, completed_at = :completed_at, due_at = :due_at, reason = :reason,
    lease_until = NULL, claimed_at = NULL, began_at = iif(:state > 1, NULL, began_at)
WHERE id IN (SELECT value FROM json_each(:ids))
"""
_END_ATTEMPTS: Final = """
UPDATE procore_hooks_deliveries SET state = j.state, completed_at = j.completed_at, due_at = j.due_at,
    reason = j.reason, lease_until = NULL, claimed_at = NULL, began_at = iif(j.state > 1, NULL, began_at)
FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS completed_at, value ->> 3 AS due_at,
    value ->> 4 AS reason FROM json_each(?)) AS j
WHERE procore_hooks_deliveries.id = j.id
"""
_LEAVE_FLIGHT: Final = f"""
UPDATE procore_hooks_queues SET in_flight = in_flight - :ended, ready_at = {ready(in_flight="in_flight - :ended")}
WHERE hook_id IN (SELECT value FROM json_each(:hooks))
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


@attrs.frozen
class _Ended:
    """An attempt that is over: what its delivery becomes."""

    delivery_id: int
    hook_id: int
    state: int
    completed_at: int | None
    due_at: int | None
    reason: str | None
    attempt: Attempt


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
        settled: list[Settled] = []
        ended: list[_Ended] = []
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
            one = _ended(settlement, _drop_reason(dropped, hook_id, claim.delivery_id), now)
            changed = change is not None and epochs.get(hook_id) == claim.epoch
            if change is not None and changed:
                epochs[hook_id] += 1
                if change.flush_reason is not None:
                    dropped[hook_id] = _EVERYTHING, change.flush_reason
                    self.has_dropped = True
            ended.append(one)
            settled.append(Settled(settlement=settlement, status=STATES[one.state], changed=changed))
        self._end_attempts(cursor, ended, due)
        _change_queues(cursor, settled, now, due)
        return settled, late

    def return_expired(self, cursor: sqlite3.Cursor, now: int, due: int) -> tuple[int, int]:
        """Returns how many leases had run out, and how many of their deliveries were discarded."""
        rows = json.loads(cursor.execute(_EXPIRED, (now, _EXPIRED_AT_ONCE)).fetchone()[0])
        ended = []
        for delivery_id, hook_id, number, claimed_at, url, dropped, drop_reason in rows:
            attempt = Attempt(
                number=number,
                outcome="unknown",
                request_url=masked_url(url),
                response_error=LEFT_OPEN,
                started_at=moment(claimed_at),
            )
            if dropped:
                ended.append(_Ended(delivery_id, hook_id, _DISCARDED, now, None, drop_reason, attempt))
            else:
                ended.append(_Ended(delivery_id, hook_id, _RETRYING, None, 0, None, attempt))
        self._end_attempts(cursor, ended, due)
        return len(ended), sum(one.state == _DISCARDED for one in ended)

    def _end_attempts(self, cursor: sqlite3.Cursor, ended: Sequence[_Ended], due: int) -> None:
        if not ended:
            return
        self._insert_attempts(cursor, ended)
        alike: dict[tuple[int, int | None, int | None, str | None], list[int]] = {}
        for one in ended:
            alike.setdefault((one.state, one.completed_at, one.due_at, one.reason), []).append(one.delivery_id)
        rest = []
        for (state, completed_at, due_at, reason), ids in alike.items():
            if len(ids) < _WORTH_A_STATEMENT:
                rest += [[delivery_id, state, completed_at, due_at, reason] for delivery_id in ids]
                continue
            values = {"state": state, "completed_at": completed_at, "due_at": due_at, "reason": reason}
            cursor.execute(_END_ALIKE, {**values, "ids": json.dumps(ids)})
        if rest:
            cursor.execute(_END_ATTEMPTS, (json.dumps(rest),))
        hooks: dict[int, list[int]] = {}  # by how many of theirs ended
        for hook_id, number in Counter(one.hook_id for one in ended).items():
            hooks.setdefault(number, []).append(hook_id)
        for number, of_them in hooks.items():
            cursor.execute(_LEAVE_FLIGHT, {"ended": number, "hooks": json.dumps(of_them), "due": due})

    def _insert_attempts(self, cursor: sqlite3.Cursor, ended: Sequence[_Ended]) -> None:
        parameters: list[object] = []
        texts: dict[int, str | None] = {}  # of response headers: many of a hook's answers have the very same object
        for one in ended:
            headers, signature = split_headers(one.attempt)
            request_id = self._request_id(cursor, one.attempt.request_url, headers)
            answered = one.attempt.response_headers
            if id(answered) not in texts:
                texts[id(answered)] = compact_json(answered) if answered else None
            parameters += attempt_row(one.delivery_id, one.attempt, request_id, signature, texts[id(answered)])
        # Bodies are bytes, which JSON cannot hold: so many rows of parameters. Sizes are powers of two, so that a
        # few statements serve and stay prepared.
        start = 0
        while start < len(ended):
            size = min(128, 1 << ((len(ended) - start).bit_length() - 1))
            marks = ", ".join([_ROW] * size)
            chunk = parameters[start * _COLUMNS : (start + size) * _COLUMNS]
            cursor.execute(f"INSERT INTO procore_hooks_attempts VALUES {marks}", chunk)
            start += size

    def _request_id(self, cursor: sqlite3.Cursor, url: str, headers: HeaderItems) -> int:
        """The URL and the headers are the same for most attempts of a hook: they are stored once."""
        key = url, headers
        known = self._request_ids.get(key) or self.stored.get(key)
        if known is None:
            row = url, compact_json(dict(headers))
            cursor.execute("INSERT OR IGNORE INTO procore_hooks_requests (url, headers) VALUES (?, ?)", row)
            known = int(
                cursor.execute("SELECT id FROM procore_hooks_requests WHERE url = ? AND headers = ?", row).fetchone()[0]
            )
            self.stored[key] = known
        return known


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


def _ended(settlement: Settlement, drop_reason: str | None, now: int) -> _Ended:
    claim, status, attempt = settlement.claim, settlement.status, settlement.attempt
    if status == "retrying" and drop_reason is None:
        due_at = stamp_or_none(settlement.due_at) or 0
        return _Ended(claim.delivery_id, claim.hook.id, _RETRYING, None, due_at, None, attempt)
    reason = settlement.reason
    if status == "retrying":
        status, reason = "discarded", drop_reason
    state = STATES.index(status)
    return _Ended(claim.delivery_id, claim.hook.id, state, now, None, reason, attempt)


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
